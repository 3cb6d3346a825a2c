-- Tables of the service notification. A statement may be run again: DDL ends a transaction, and a migration may be interrupted.

-- version: 1
create table if not exists contact (
    member_id varchar(64)  not null primary key,
    name      varchar(400) not null,
    email     varchar(400) not null
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

create table if not exists restock_alert (
    event_id   varchar(36) not null,
    product_id varchar(64) not null,
    member_id  varchar(64) not null,
    primary key (product_id, member_id)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

create table if not exists message (
    event_id   varchar(36)   not null primary key,  -- the idempotency key of its delivery; grows with time
    kind       varchar(16)   not null,              -- paid, cancelled, restocked
    member_id  varchar(64)   not null,
    subject    varchar(64)   not null,              -- the number of an order, the id of a product
    body       varchar(2000) not null,
    handled    int           not null default 1,    -- how often its event was handled: Pabal promises once, Reconcile looks
    state      varchar(8)    not null default 'waiting' check (state in ('waiting', 'sent', 'failed')),
    attempts   int           not null default 0,
    next_at    bigint        not null,              -- when it is sent, or sent again, at the earliest
    sent_at    bigint,
    last_error varchar(2000) not null default '',
    created_at bigint        not null,
    key message_due (state, next_at),
    key message_member (member_id, event_id),
    key message_subject (subject, event_id)
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;
