-- Statements of the service order.

-- name: order_insert
insert into orders (no, member_id, seller_id, currency, amount, lines, status, idempotency_key, request_hash, placed_at)
values ($1, $2, $3, $4, $5, $6, 'placed', $7, $8, $9);

-- name: order_pay
update orders set status = 'paid', payment_id = $1, paid_at = $2 where no = $3 and status = 'placed';

-- name: order_cancel
update orders set status = 'cancelled', cancelled_at = $1, cancel_reason = $2 where no = $3 and status = $4;

-- name: order_get
select no, member_id, seller_id, currency, amount, lines, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where no = $1;

-- name: order_by_key
select no, member_id, seller_id, currency, amount, lines, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason,
       request_hash
from orders where idempotency_key = $1;

-- name: order_list
select no, member_id, seller_id, currency, amount, lines, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where no < $1 order by no desc limit $2;

-- name: order_list_member
select no, member_id, seller_id, currency, amount, lines, status, placed_at, payment_id, paid_at, cancelled_at, cancel_reason
from orders where member_id = $1 and no < $2 order by no desc limit $3;

-- name: prices
select product_id, seller_id, currency, amount from price where product_id in ($1...);

-- name: price_put
insert into price (product_id, seller_id, currency, amount) values ($1, $2, $3, $4)...
on conflict (product_id) do update set seller_id = excluded.seller_id, currency = excluded.currency, amount = excluded.amount;

-- name: books
select no, seller_id, currency, amount, paid_at is not null, cancelled_at is not null
from orders where paid_at is not null or cancelled_at is not null order by no;

-- name: totals
select count(*), count(*) filter (where paid_at is not null), count(*) filter (where cancelled_at is not null),
       count(*) filter (where cancelled_at is not null and paid_at is not null)
from orders;
