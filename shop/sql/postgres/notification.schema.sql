-- Tables of the service notification.

-- version: 1
create table contact (
    member_id text   collate "C" primary key,
    name      text   collate "C" not null,
    email     text   collate "C" not null
);

create table restock_alert (
    event_id   text   collate "C" not null,
    product_id text   collate "C" not null,
    member_id  text   collate "C" not null,
    primary key (product_id, member_id)
);

create table message (
    event_id   text   collate "C" primary key,  -- the idempotency key of its delivery; grows with time
    kind       text   collate "C" not null,     -- paid, cancelled, restocked
    member_id  text   collate "C" not null,
    subject    text   collate "C" not null,     -- the number of an order, the id of a product
    body       text   collate "C" not null,
    handled    bigint not null default 1,  -- how often its event was handled: Pabal promises once, Reconcile looks
    state      text   collate "C" not null default 'waiting' check (state in ('waiting', 'sent', 'failed')),
    attempts   bigint not null default 0,
    next_at    bigint not null,     -- when it is sent, or sent again, at the earliest
    sent_at    bigint,
    last_error text   collate "C" not null default '',
    created_at bigint not null
);

create index message_due on message (next_at) where state = 'waiting';

create index message_member on message (member_id, event_id);

create index message_subject on message (subject, event_id);
