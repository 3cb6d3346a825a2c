-- name: PlaceOrder :exec
insert into orders (no, status) values ($1, 'placed');

-- name: PayOrder :execrows
update orders set status = 'paid' where no = $1 and status = 'placed';

-- name: StatusOf :one
select status from orders where no = $1;
