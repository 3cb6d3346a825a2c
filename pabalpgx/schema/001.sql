-- Pabal, PostgreSQL 14 or newer, schema version 1. {p} stands for the table prefix.

create table {p}meta (
    id         integer primary key check (id = 1),
    version    integer not null,
    source     text    not null default '',
    generation integer not null default 0
);

-- History: a row never changes but for skipped. A partition is a day in UTC; what goes after the retention
-- is a whole partition, without a dead row. The key begins with recorded_at, so that it also serves whoever reads in order;
-- whoever looks an event up knows its recorded_at.
create table {p}event (
    recorded_at   timestamptz not null,
    id            uuid        not null,
    position      bigint      not null,
    prev_position bigint,
    prev_at       timestamptz,
    prev_id       uuid,
    bare          boolean     not null default false,
    skipped       boolean     not null default false,
    topic         text        collate "C" not null,
    type          text        not null,
    key           text        collate "C" not null,
    content_type  text        not null,
    version       text        not null,
    traceparent   text        not null,
    headers       bytea,
    payload       bytea       not null,
    primary key (recorded_at, id)
) partition by range (recorded_at);

-- A net for when nobody made partitions, and the place of events that are not confirmed when their day is dropped.
create table {p}event_default partition of {p}event default;

-- When an event came back from its broker, in the same days. Noted in its own row it would have that written anew, payload
-- and all, and its index entry too: a page of events has no room for a second version of each.
create table {p}published (
    recorded_at  timestamptz not null,
    id           uuid        not null,
    published_at timestamptz not null,
    primary key (recorded_at, id)
) partition by range (recorded_at);
create table {p}published_default partition of {p}published default;

-- {p}ahead makes the partitions of today and of the days that follow; it says how many. A table that is attached takes a
-- lock on its parent beside which transactions go on recording, other than one that is created as a partition
-- (PostgreSQL manual, 5.12.2.2). A day of which rows lie in the default partition keeps them there.
create function {p}ahead(days integer) returns integer language plpgsql as $$
declare
    today  date := (clock_timestamp() at time zone 'UTC')::date;
    since  timestamptz;
    before timestamptz;
    parent text;
    part   text;
    lies   boolean;
    made   integer := 0;
begin
    perform 1 from {p}meta where id = 1 for update skip locked;
    if not found then
        return 0; -- somebody else is at it
    end if;
    for i in 0 .. days loop
        since := (today + i)::timestamp at time zone 'UTC';
        before := (today + i + 1)::timestamp at time zone 'UTC';
        foreach parent in array array['{p}event', '{p}published'] loop
            part := parent || '_' || to_char(today + i, 'YYYYMMDD');
            continue when to_regclass(part) is not null;
            execute format('select exists (select from %I where recorded_at >= $1 and recorded_at < $2)', parent || '_default')
                into lies using since, before;
            continue when lies;
            execute format('create table %I (like %I including all)', part, parent);
            execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, part, since, before);
            made := made + 1;
        end loop;
    end loop;
    return made;
end $$;

-- The work list: what is recorded and not confirmed. A null due_at is a parked event. Rows live for milliseconds: vacuum
-- looks after a number of dead rows, not a share, and never locks everybody out in order to give back the file's end.
create table {p}pending (
    id          uuid        not null primary key,
    recorded_at timestamptz not null,
    due_at      timestamptz,
    accepted_at timestamptz,
    sent_at     timestamptz,
    claims      integer     not null default 0,
    crashes     integer     not null default 0,
    failures    integer     not null default 0,
    topic       text        collate "C" not null,
    last_error  text        not null default ''
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = false);
create index {p}pending_due on {p}pending (topic, due_at);

create table {p}topic (
    name           text    collate "C" not null primary key,
    ordered        boolean not null default false,
    proven_at      timestamptz,
    probed_at      timestamptz,
    position_floor bigint  not null default 0
) with (fillfactor = 50);

-- step is how many events the last recording added, prev_* the event before them. last_day is no later than last_at's, in UTC. No
-- index has a column that every event changes, so that moving a counter touches the row's own page only (HOT).
create table {p}counter (
    topic         text        collate "C" not null,
    key           text        collate "C" not null,
    generation    integer     not null,
    step          integer     not null,
    position      bigint      not null,
    last_id       uuid        not null,
    last_at       timestamptz not null,
    prev_id       uuid,
    prev_position bigint,
    prev_at       timestamptz,
    last_day      date        not null,
    primary key (topic, key)
) with (fillfactor = 70, vacuum_truncate = false);
create index {p}counter_day on {p}counter (last_day);

create table {p}redelivery (
    id          uuid        not null primary key,
    created_at  timestamptz not null,
    asked_by    text        not null,
    spec        bytea       not null,
    resume_id   uuid,
    resume_at   timestamptz,
    sent        integer     not null default 0,
    last_error  text        not null default '',
    finished_at timestamptz,
    lease_until timestamptz not null,
    owner       uuid        not null
);

create table {p}inbox (
    consumer      text        collate "C" not null,
    source        text        collate "C" not null,
    id            uuid        not null,
    job           uuid        not null,
    recorded_at   timestamptz not null,
    sent_at       timestamptz not null,
    received_at   timestamptz not null,
    next_at       timestamptz,
    position      bigint      not null,
    prev_position bigint,
    prev_at       timestamptz,
    prev_id       uuid,
    state         smallint    not null, -- 0 done, 1 held, 2 parked
    failures      integer     not null default 0,
    started       integer     not null default 0,
    topic         text        collate "C" not null,
    key           text        collate "C" not null,
    type          text        not null,
    reason        text        not null default '',
    last_error    text        not null default '',
    body          bytea,
    primary key (consumer, id, source, job)
) with (autovacuum_vacuum_scale_factor = 0.02, vacuum_truncate = false);
create index {p}inbox_due on {p}inbox (consumer, next_at) where next_at is not null and state <> 0;
create index {p}inbox_waiting on {p}inbox (consumer, source, topic, key, job, position, id) where state <> 0;
create index {p}inbox_age on {p}inbox (consumer, recorded_at) where state = 0;

-- last_day is the day of last_at in UTC, or of the cursor's insert. A page has room for the second version of each row that is inserted
-- into it, which comes in the same transaction and is longer.
create table {p}cursor (
    consumer      text        collate "C" not null,
    source        text        collate "C" not null,
    topic         text        collate "C" not null,
    key           text        collate "C" not null,
    job           uuid        not null,
    begun         boolean     not null default false,
    began         bigint      not null default 0,
    last_position bigint      not null default 0,
    last_at       timestamptz,
    last_id       uuid,
    over_position bigint,
    over_at       timestamptz,
    over_id       uuid,
    moved_at      timestamptz not null,
    last_day      date        not null,
    primary key (consumer, source, topic, key, job)
) with (fillfactor = 40, vacuum_truncate = false);
create index {p}cursor_day on {p}cursor (consumer, last_day);
create index {p}cursor_over on {p}cursor (consumer, source, topic, key, job) where over_id is not null;

-- A row with empty source and topic keeps what is true of the whole consumer.
create table {p}consumer (
    consumer      text collate "C" not null,
    source        text collate "C" not null,
    topic         text collate "C" not null,
    joined_at     timestamptz,
    forgot_before timestamptz,
    primary key (consumer, source, topic)
);

-- The classic shape of the engineering note that Pabal comes from.
create view {p}event_record as
select id as event_id,
       key as "orderNo",
       topic,
       case when content_type = 'application/json' then convert_from(payload, 'UTF8') else encode(payload, 'base64') end as message,
       case when published_at is null then 'N' else 'Y' end as published,
       published_at as published_date,
       recorded_at as created_date
from {p}event left join {p}published using (recorded_at, id);

-- {p}record records an event in the transaction of whoever calls it, in any language; with a key it is ordered. It is due
-- at once, for no writer publishes it: a running `pabal relay`, or any client of the source, does. It returns the id.
create function {p}record(topic text, type text, key text, payload json, headers json default null) returns uuid
language plpgsql as $$
#variable_conflict use_column
declare
    event_id  uuid;
    now       timestamptz := clock_timestamp();
    at        timestamptz := now;
    place     bigint := 0;
    before    {p}counter;
begin
    if coalesce($1 !~ '^[A-Za-z0-9_-]{1,64}$', true) then
        raise exception 'topic %: 1 to 64 letters, digits, "-" and "_"', coalesce(quote_literal($1), 'null');
    elsif coalesce($2 !~ '^[A-Za-z0-9_./-]{1,128}$', true) then
        raise exception 'type %: 1 to 128 letters, digits, "-", "_", "." and "/"', coalesce(quote_literal($2), 'null');
    elsif octet_length($3) > 255 then
        raise exception 'key: % bytes, at most 255', octet_length($3);
    elsif $4 is null then
        raise exception 'payload is null';
    elsif coalesce(json_typeof($5) <> 'object', false) then
        raise exception 'headers: an object of strings';
    end if;
    -- UUID version 7 (RFC 9562): 48 bits of milliseconds, version, random bits.
    event_id := encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        placing substring(int8send(floor(extract(epoch from now) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;
    if coalesce($3, '') <> '' then
        insert into {p}counter as c (topic, key, generation, step, position, last_id, last_at, last_day)
        select $1, $3, m.generation, 1,
               greatest(floor(extract(epoch from now) * 1000)::bigint, coalesce(t.position_floor, 0) + 1), event_id, now,
               (now at time zone 'UTC')::date
        from {p}meta m left join {p}topic t on t.name = $1
        on conflict (topic, key) do update set
            position = case when c.generation >= excluded.generation then c.position + 1
                            else greatest(excluded.position, c.position + 2) end,
            generation = greatest(c.generation, excluded.generation), step = 1,
            prev_id = c.last_id, prev_position = c.position, prev_at = c.last_at,
            last_id = excluded.last_id, last_at = clock_timestamp(), last_day = excluded.last_day
        returning c.* into before;
        place := before.position;
        at := before.last_at;
    end if;
    insert into {p}event (id, recorded_at, topic, type, key, content_type, version, payload, headers, traceparent, position,
                          prev_id, prev_position, prev_at)
    values (event_id, at, $1, $2, coalesce($3, ''), 'application/json', '', convert_to($4::text, 'UTF8'),
            convert_to($5::text, 'UTF8'), '', place, before.prev_id, before.prev_position, before.prev_at);
    insert into {p}pending (id, recorded_at, topic, due_at) values (event_id, at, $1, at);
    return event_id;
end $$;

insert into {p}meta (id, version) values (1, 1);
select {p}ahead(14);
