-- Statements of the service order.

-- name: order_insert
insert into orders (no, member_id, seller_id, currency, amount, `lines`, status, idempotency_key, request_hash, placed_at)
values (?, ?, ?, ?, ?, ?, 'placed', ?, ?, ?);

-- name: order_pay
update orders set status = 'paid', payment_id = ?, paid_at = ? where no = ? and status = 'placed';

-- name: order_cancel
update orders set status = 'cancelled', cancelled_at = ?, cancel_reason = ? where no = ? and status = ?;

-- name: order_get
select no, member_id, seller_id, currency, amount, `lines`, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where no = ?;

-- name: order_by_key
select no, member_id, seller_id, currency, amount, `lines`, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason,
       request_hash
from orders where idempotency_key = ?;

-- name: order_list
select no, member_id, seller_id, currency, amount, `lines`, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where no < ? order by no desc limit ?;

-- name: order_list_member
select no, member_id, seller_id, currency, amount, `lines`, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where member_id = ? and no < ? order by no desc limit ?;

-- name: prices
select product_id, seller_id, currency, amount from price where product_id in (?...);

-- name: price_put
insert into price (product_id, seller_id, currency, amount) values (?, ?, ?, ?)...
on duplicate key update seller_id = values(seller_id), currency = values(currency), amount = values(amount);

-- name: books
select no, seller_id, currency, amount, paid_at is not null, cancelled_at is not null
from orders where paid_at is not null or cancelled_at is not null order by no;

-- name: totals
select count(*), coalesce(sum(paid_at is not null), 0), coalesce(sum(cancelled_at is not null), 0),
       coalesce(sum(cancelled_at is not null and paid_at is not null), 0)
from orders;
