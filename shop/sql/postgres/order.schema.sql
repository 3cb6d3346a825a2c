-- Tables of the service order. Times are milliseconds since 1970, amounts minor units of the currency.

-- version: 1
create table orders (
    no              text   collate "C" primary key,  -- grows with time, so that new orders lie side by side
    member_id       text   collate "C" not null,
    seller_id       text   collate "C" not null,
    currency        text   collate "C" not null,
    amount          bigint not null,
    lines           text   collate "C" not null,     -- JSON
    status          text   collate "C" not null check (status in ('placed', 'paid', 'cancelled')),
    idempotency_key text   collate "C",
    request_hash    text   collate "C",
    placed_at       bigint not null,
    payment_id      text   collate "C",
    paid_at         bigint,
    cancelled_at    bigint,
    cancel_reason   text   collate "C"
);

create index orders_member on orders (member_id, no);

create unique index orders_idempotency_key on orders (idempotency_key) where idempotency_key is not null;

create table price (
    product_id text   collate "C" primary key,
    seller_id  text   collate "C" not null,
    currency   text   collate "C" not null,
    amount     bigint not null
);
