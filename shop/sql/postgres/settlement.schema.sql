-- Tables of the service settlement. Amounts are minor units of the currency.

-- version: 1
create table ledger (
    order_no  text   collate "C" not null,
    kind      text   collate "C" not null check (kind in ('payment', 'reversal')),
    event_id  text   collate "C" not null,
    seller_id text   collate "C" not null,
    day       text   collate "C" not null,  -- YYYY-MM-DD, UTC
    currency  text   collate "C" not null,
    amount    bigint not null,  -- below zero in a reversal
    handled   bigint not null,  -- how often its event was handled: Pabal promises once, Reconcile looks
    booked_at bigint not null,
    primary key (order_no, kind)
);

create table settlement (
    seller_id text   collate "C" not null,
    day       text   collate "C" not null,
    currency  text   collate "C" not null,
    payments  bigint not null,  -- how many
    reversals bigint not null,  -- how many
    paid      bigint not null,  -- sum of the payments
    reversed  bigint not null,  -- sum of the reversals, below zero
    primary key (seller_id, day, currency)
);
