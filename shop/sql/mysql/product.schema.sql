-- Tables of the service product. A statement may be run again: DDL ends a transaction, and a migration may be interrupted.

-- version: 1
create table if not exists product (
    id         varchar(64)  not null primary key,
    seller_id  varchar(64)  not null,
    name       varchar(400) not null,
    currency   char(3)      not null,
    amount     bigint       not null,
    stock      bigint       not null default 0,  -- arrived so far; the shop reserves none
    waiting    bigint       not null default 0,  -- members who wait for a restock
    changed_at bigint       not null
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

create table if not exists restock_request (
    product_id   varchar(64) not null,
    member_id    varchar(64) not null,
    requested_at bigint      not null,
    primary key (product_id, member_id),
    foreign key (product_id) references product (id)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;
