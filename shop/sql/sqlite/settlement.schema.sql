-- Tables of the service settlement. Amounts are minor units of the currency.

-- version: 1
create table ledger (
    order_no  text    not null,
    kind      text    not null check (kind in ('payment', 'reversal')),
    event_id  text    not null,
    seller_id text    not null,
    day       text    not null,  -- YYYY-MM-DD, UTC
    currency  text    not null,
    amount    integer not null,  -- below zero in a reversal
    handled   integer not null,  -- how often its event was handled: Pabal promises once, Reconcile looks
    booked_at integer not null,
    primary key (order_no, kind)
) strict, without rowid;

create table settlement (
    seller_id text    not null,
    day       text    not null,
    currency  text    not null,
    payments  integer not null,  -- how many
    reversals integer not null,  -- how many
    paid      integer not null,  -- sum of the payments
    reversed  integer not null,  -- sum of the reversals, below zero
    primary key (seller_id, day, currency)
) strict, without rowid;
