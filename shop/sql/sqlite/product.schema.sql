-- Tables of the service product.

-- version: 1
create table product (
    id         text    primary key,
    seller_id  text    not null,
    name       text    not null,
    currency   text    not null,
    amount     integer not null,
    stock      integer not null default 0,  -- arrived so far; the shop reserves none
    waiting    integer not null default 0,  -- members who wait for a restock
    changed_at integer not null
) strict, without rowid;

create table restock_request (
    product_id   text    not null references product (id),
    member_id    text    not null,
    requested_at integer not null,
    primary key (product_id, member_id)
) strict, without rowid;
