-- Tables of the service order. Times are milliseconds since 1970, amounts minor units of the currency.

-- version: 1
create table orders (
    no              text    primary key,  -- grows with time, so that new orders lie side by side
    member_id       text    not null,
    seller_id       text    not null,
    currency        text    not null,
    amount          integer not null,
    lines           text    not null,     -- JSON
    status          text    not null check (status in ('placed', 'paid', 'cancelled')),
    idempotency_key text,
    request_hash    text,
    placed_at       integer not null,
    payment_id      text,
    paid_at         integer,
    cancelled_at    integer,
    cancel_reason   text
) strict, without rowid;

create index orders_member on orders (member_id, no);

create unique index orders_idempotency_key on orders (idempotency_key) where idempotency_key is not null;

create table price (
    product_id text    primary key,
    seller_id  text    not null,
    currency   text    not null,
    amount     integer not null
) strict, without rowid;
