-- Tables of the service settlement. Amounts are minor units of the currency. A statement may be run again: DDL ends a
-- transaction, and a migration may be interrupted.

-- version: 1
create table if not exists ledger (
    order_no  varchar(32) not null,
    kind      varchar(16) not null check (kind in ('payment', 'reversal')),
    event_id  varchar(36) not null,
    seller_id varchar(64) not null,
    day       char(10)    not null,  -- YYYY-MM-DD, UTC
    currency  char(3)     not null,
    amount    bigint      not null,  -- below zero in a reversal
    handled   int         not null,  -- how often its event was handled: Pabal promises once, Reconcile looks
    booked_at bigint      not null,
    primary key (order_no, kind)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

create table if not exists settlement (
    seller_id varchar(64) not null,
    day       char(10)    not null,
    currency  char(3)     not null,
    payments  bigint      not null,  -- how many
    reversals bigint      not null,  -- how many
    paid      bigint      not null,  -- sum of the payments
    reversed  bigint      not null,  -- sum of the reversals, below zero
    primary key (seller_id, day, currency)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;
