-- Statements of the service product.

-- name: product_get
select seller_id, name, currency, amount, stock, waiting, changed_at from product where id = $1;

-- name: product_insert
insert into product (id, seller_id, name, currency, amount, changed_at) values ($1, $2, $3, $4, $5, $6);

-- name: product_price
update product set name = $1, currency = $2, amount = $3, changed_at = $4
where id = $5 and seller_id = $6 and (name <> $7 or currency <> $8 or amount <> $9);

-- name: product_restock
update product set stock = stock + $1, waiting = 0 where id = $2;

-- name: product_wait
update product set waiting = waiting + 1 where id = $1;

-- name: request_exists
select count(*) from restock_request where product_id = $1 and member_id = $2;

-- name: request_insert
insert into restock_request (product_id, member_id, requested_at) values ($1, $2, $3);

-- name: requests_delete
delete from restock_request where product_id = $1;
