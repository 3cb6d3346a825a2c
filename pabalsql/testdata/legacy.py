"""A legacy program: it pays an order and records the event in the same transaction, with one statement.

python legacy.py mysql://user:password@host:port/name
"""
import sys
from urllib.parse import urlparse

import pymysql

url = urlparse(sys.argv[1])
db = pymysql.connect(host=url.hostname, port=url.port, user=url.username, password=url.password or "", database=url.path[1:],
                     charset="utf8mb4", autocommit=False)
with db.cursor() as c:
    c.execute("create table orders (no varchar(32) primary key, status varchar(10)) engine = innodb")
    c.execute("insert into orders values ('A-1', 'placed')")
    db.commit()
    for payload in ('{"orderNo": "A-1"}', '{"orderNo": "A-1", "won": "₩"}'):
        db.begin()
        c.execute("update orders set status = 'paid' where no = %s", ("A-1",))
        c.execute("call pabal_record(%s, %s, %s, %s)", ("order-pay-done", "order-pay-done", "A-1", payload))
        db.commit()
    db.begin()
    c.execute("call pabal_record('order-pay-done', 'order-pay-done', 'A-1', '{}')")
    db.rollback()  # it never existed
    db.autocommit(True)
    try:
        c.execute("call pabal_record('order-pay-done', 'order-pay-done', 'A-1', '{}')")
        sys.exit("recorded outside of a transaction")
    except pymysql.err.OperationalError as e:
        print("refused", e)
    except pymysql.err.MySQLError as e:
        print("refused", e)
    c.execute("select orderNo, topic, message, published, published_date from pabal_event_record order by created_date limit 1")
    print("seen", c.fetchone())
