-- name: PlaceOrder :exec
insert into orders (no, status) values (?, 'placed');

-- name: PayOrder :execrows
update orders set status = 'paid' where no = ? and status = 'placed';

-- name: StatusOf :one
select status from orders where no = ?;
