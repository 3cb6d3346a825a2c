-- Tables of the service product.

-- version: 1
create table product (
    id         text   collate "C" primary key,
    seller_id  text   collate "C" not null,
    name       text   collate "C" not null,
    currency   text   collate "C" not null,
    amount     bigint not null,
    stock      bigint not null default 0,  -- arrived so far; the shop reserves none
    waiting    bigint not null default 0,  -- members who wait for a restock
    changed_at bigint not null
);

create table restock_request (
    product_id   text   collate "C" not null references product (id),
    member_id    text   collate "C" not null,
    requested_at bigint not null,
    primary key (product_id, member_id)
);
