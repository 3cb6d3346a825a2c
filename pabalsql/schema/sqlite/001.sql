-- Pabal, SQLite, schema version 1. {p} stands for the table prefix. Times are microseconds since 1970, UTC.

create table {p}meta (
    id         integer primary key check (id = 1),
    version    integer not null,
    source     text    not null default '',
    generation integer not null default 0
);

-- History: a row never changes but for skipped and published_at.
create table {p}event (
    id           blob    not null primary key,
    topic        text    not null,
    type         text    not null,
    key          text    not null,
    content_type text    not null,
    version      text    not null,
    payload      blob    not null,
    headers      blob,
    traceparent  text    not null,
    recorded_at  integer not null,
    position     integer not null,
    prev_id      blob,
    prev_position integer,
    prev_at      integer,
    bare         integer not null default 0,
    skipped      integer not null default 0,
    published_at integer
);
create index {p}event_recorded on {p}event (recorded_at, id);

-- The work list: what is recorded and not confirmed. A null due_at is a parked event.
create table {p}pending (
    id          blob    not null primary key,
    recorded_at integer not null,
    topic       text    not null,
    due_at      integer,
    claims      integer not null default 0,
    crashes     integer not null default 0,
    failures    integer not null default 0,
    accepted_at integer,
    sent_at     integer,
    last_error  text    not null default ''
) without rowid;
create index {p}pending_due on {p}pending (topic, due_at);

create table {p}topic (
    name           text    not null primary key,
    ordered        integer not null default 0,
    proven_at      integer,
    probed_at      integer,
    position_floor integer not null default 0
) without rowid;

create table {p}counter (
    topic      text    not null,
    key        text    not null,
    generation integer not null,
    position   integer not null,
    last_id    blob    not null,
    last_at    integer not null,
    primary key (topic, key)
) without rowid;
create index {p}counter_last on {p}counter (last_at);

create table {p}redelivery (
    id          blob    not null primary key,
    created_at  integer not null,
    asked_by    text    not null,
    spec        blob    not null,
    resume_id   blob,
    resume_at   integer,
    sent        integer not null default 0,
    last_error  text    not null default '',
    finished_at integer,
    lease_until integer not null,
    owner       blob    not null
) without rowid;

create table {p}inbox (
    consumer    text    not null,
    source      text    not null,
    id          blob    not null,
    job         blob    not null,
    topic       text    not null,
    key         text    not null,
    type        text    not null,
    position    integer not null,
    prev_id     blob,
    prev_position integer,
    prev_at     integer,
    recorded_at integer not null,
    sent_at     integer not null,
    received_at integer not null,
    arrival     integer not null default 0, -- which Load inserted it
    state       integer not null, -- 0 done, 1 held, 2 parked
    reason      text    not null default '',
    next_at     integer,
    failures    integer not null default 0,
    started     integer not null default 0,
    last_error  text    not null default '',
    body        blob,
    primary key (consumer, id, source, job)
) without rowid;
create index {p}inbox_due on {p}inbox (consumer, next_at) where next_at is not null;
create index {p}inbox_waiting on {p}inbox (consumer, source, topic, key, job, position) where state <> 0;
create index {p}inbox_age on {p}inbox (consumer, recorded_at) where state = 0;

create table {p}cursor (
    consumer      text    not null,
    source        text    not null,
    topic         text    not null,
    key           text    not null,
    job           blob    not null,
    begun         integer not null default 0,
    began         integer not null default 0,
    last_id       blob,
    last_position integer not null default 0,
    last_at       integer,
    over_id       blob,
    over_position integer,
    over_at       integer,
    moved_at      integer not null,
    primary key (consumer, source, topic, key, job)
) without rowid;
create index {p}cursor_age on {p}cursor (consumer, last_at);
create index {p}cursor_over on {p}cursor (consumer) where over_id is not null;

-- A row with empty source and topic keeps what is true of the whole consumer.
create table {p}consumer (
    consumer      text not null,
    source        text not null,
    topic         text not null,
    joined_at     integer,
    forgot_before integer,
    primary key (consumer, source, topic)
) without rowid;

-- The classic shape of the engineering note that Pabal comes from.
create view {p}event_record as
select lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
             substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) as event_id,
       key as orderNo,
       topic,
       cast(payload as text) as message,
       case when published_at is null then 'N' else 'Y' end as published,
       strftime('%Y-%m-%d %H:%M:%f', published_at / 1000000.0, 'unixepoch') as published_date,
       strftime('%Y-%m-%d %H:%M:%f', recorded_at / 1000000.0, 'unixepoch') as created_date
from {p}event;

insert into {p}meta (id, version) values (1, 1);
