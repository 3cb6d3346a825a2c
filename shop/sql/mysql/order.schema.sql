-- Tables of the service order. Times are milliseconds since 1970, amounts minor units of the currency. A statement may be run
-- again: DDL ends a transaction, and a migration may be interrupted.

-- version: 1
create table if not exists orders (
    no              varchar(32)  not null primary key,  -- grows with time, so that new orders lie side by side
    member_id       varchar(64)  not null,
    seller_id       varchar(64)  not null,
    currency        char(3)      not null,
    amount          bigint       not null,
    `lines`         mediumtext   not null,              -- JSON
    status          varchar(16)  not null check (status in ('placed', 'paid', 'cancelled')),
    idempotency_key varchar(255),
    request_hash    varchar(128),
    placed_at       bigint       not null,
    payment_id      varchar(64),
    paid_at         bigint,
    cancelled_at    bigint,
    cancel_reason   varchar(2000),
    key orders_member (member_id, no),
    unique key orders_idempotency_key (idempotency_key)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

create table if not exists price (
    product_id varchar(64) not null primary key,
    seller_id  varchar(64) not null,
    currency   char(3)     not null,
    amount     bigint      not null
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;
