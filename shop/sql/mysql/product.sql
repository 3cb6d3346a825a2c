-- Statements of the service product.

-- name: product_get
select seller_id, name, currency, amount, stock, waiting, changed_at from product where id = ?;

-- name: product_insert
insert into product (id, seller_id, name, currency, amount, changed_at) values (?, ?, ?, ?, ?, ?);

-- name: product_price
update product set name = ?, currency = ?, amount = ?, changed_at = ?
where id = ? and seller_id = ? and (name <> ? or currency <> ? or amount <> ?);

-- name: product_restock
update product set stock = stock + ?, waiting = 0 where id = ?;

-- name: product_wait
update product set waiting = waiting + 1 where id = ?;

-- name: request_exists
select count(*) from restock_request where product_id = ? and member_id = ?;

-- name: request_insert
insert into restock_request (product_id, member_id, requested_at) values (?, ?, ?);

-- name: requests_delete
delete from restock_request where product_id = ?;
