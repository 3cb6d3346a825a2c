-- Tables of the service notification.

-- version: 1
create table contact (
    member_id text primary key,
    name      text not null,
    email     text not null
) strict, without rowid;

create table restock_alert (
    event_id   text not null,
    product_id text not null,
    member_id  text not null,
    primary key (product_id, member_id)
) strict, without rowid;

create table message (
    event_id   text    primary key,  -- the idempotency key of its delivery; grows with time
    kind       text    not null,     -- paid, cancelled, restocked
    member_id  text    not null,
    subject    text    not null,     -- the number of an order, the id of a product
    body       text    not null,
    handled    integer not null default 1,  -- how often its event was handled: Pabal promises once, Reconcile looks
    state      text    not null default 'waiting' check (state in ('waiting', 'sent', 'failed')),
    attempts   integer not null default 0,
    next_at    integer not null,     -- when it is sent, or sent again, at the earliest
    sent_at    integer,
    last_error text    not null default '',
    created_at integer not null
) strict, without rowid;

create index message_due on message (next_at) where state = 'waiting';

create index message_member on message (member_id, event_id);

create index message_subject on message (subject, event_id);
