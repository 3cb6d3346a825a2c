-- Statements of driver.Store. {p} stands for the table prefix, {event} and {pending} for their columns, "..." repeats the
-- placeholders before it for every row. A statement without text is one that SQLite does not need: a transaction that
-- writes holds the database's write lock, so that no row has to be locked.

-- name: clock

-- name: settings

-- Of the connection that asks. The pragma's table is there for reading; journal_mode has none, for it also sets.
-- name: durability
select 'synchronous', synchronous from pragma_synchronous;

-- name: engines

-- name: meta
select version, source, generation, 0 from {p}meta where id = 1;

-- name: take source
update {p}meta set source = ? where id = 1 and source = '';

-- name: lock counters

-- name: counters
with want (topic, key) as (values (?, ?)...)
select null, m.generation, w.topic, w.key, c.generation, c.position, c.last_id, c.last_at, t.position_floor
from {p}meta m
cross join want w
left join {p}counter c on c.topic = w.topic and c.key = w.key
left join {p}topic t on t.name = w.topic;

-- name: insert events
insert into {p}event (id, topic, type, key, content_type, version, payload, headers, traceparent, recorded_at, position, prev_id,
    prev_position, prev_at, bare)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)...;

-- name: insert events now

-- name: recorded since

-- name: insert pending
insert into {p}pending (id, recorded_at, topic, due_at) values (?, ?, ?, ?)...;

-- name: move counters
insert into {p}counter (topic, key, generation, position, last_id, last_at) values (?, ?, ?, ?, ?, ?)...
on conflict (topic, key) do update set generation = excluded.generation, position = excluded.position,
    last_id = excluded.last_id, last_at = excluded.last_at;

-- name: take by id
select {pending} from {p}pending p where p.id in (select unhex(value) from json_each(?));

-- name: take fresh
select {pending} from {p}pending p
where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at is null order by p.due_at limit ?;

-- name: take accepted
select {pending} from {p}pending p
where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at < ? order by p.due_at limit ?;

-- name: add topic
insert into {p}topic (name) values (?) on conflict (name) do nothing;

-- name: probe
update {p}topic set probed_at = ? where name = ? and (probed_at is null or probed_at <= ?);

-- name: write decisions
update {p}pending set due_at = v.value ->> 1, claims = v.value ->> 2, crashes = v.value ->> 3, failures = v.value ->> 4,
    accepted_at = v.value ->> 5, sent_at = v.value ->> 6, last_error = cast(unhex(v.value ->> 7) as text)
from json_each(?) v where {p}pending.id = unhex(v.value ->> 0);

-- name: skip events
update {p}event set skipped = 1 where id in (select unhex(value) from json_each(?));

-- name: events by id
select {event} from {p}event e where e.id in (select unhex(value) from json_each(?));

-- name: lock pending

-- name: settle
update {p}pending set crashes = 0,
    due_at = case when v.park then null else v.at + v.delay end,
    accepted_at = case when v.accepted then v.at else accepted_at end,
    last_error = case when v.error <> '' then v.error else last_error end
from (select ? as at, unhex(value ->> 0) as id, value ->> 1 as claims, value ->> 2 as accepted, value ->> 3 as park, value ->> 4 as delay,
        cast(unhex(value ->> 5) as text) as error from json_each(?)) v
where {p}pending.id = v.id and {p}pending.claims = v.claims;

-- name: which recorded
select id from {p}event where id in (select unhex(value) from json_each(?));

-- name: which pending
select id from {p}pending where id in (select unhex(value) from json_each(?));

-- name: delete pending
delete from {p}pending where id in (select unhex(value) from json_each(?));

-- name: published
update {p}event set published_at = ? where id in (select unhex(value) from json_each(?)) and published_at is null;

-- Topics with pending rows are found by a loose scan of the index (topic, due_at): one lookup for each.
-- name: topics
with recursive busy (name) as (
        select min(topic) from {p}pending
        union all
        select (select min(topic) from {p}pending where topic > busy.name) from busy where busy.name is not null
    ), names (name) as (select name from {p}topic union select name from busy where name is not null)
select m.source, m.generation, 0, n.name, coalesce(t.ordered, 0), t.proven_at, t.probed_at, coalesce(t.position_floor, 0),
    (select min(due_at) from {p}pending where topic = n.name and due_at >= ?)
from {p}meta m left join names n on true left join {p}topic t on t.name = n.name order by n.name;

-- name: count waiting
select count(*), min(recorded_at) from
    (select recorded_at from {p}pending where topic = ? and due_at is not null limit ?) w;

-- name: count parked
select count(*) from (select 1 from {p}pending where topic = ? and due_at is null limit ?) w;

-- The beginnings of the one statement whose conditions vary, and a condition of it.
-- name: find
select {event}, {pending} from {p}event e left join {p}pending p on p.id = e.id where

-- When only unconfirmed events are asked for, the work list is the smaller table to begin with.
-- name: find pending
select {event}, {pending} from {p}pending p cross join {p}event e on e.id = p.id where

-- name: count found
select count(*) from {p}event e left join {p}pending p on p.id = e.id where

-- name: in list
in (select unhex(value) from json_each(?))

-- name: jobs
select id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until, owner
from {p}redelivery where finished_at is null or id in (select id from
    (select id from {p}redelivery where finished_at is not null order by created_at desc limit 20) last)
order by created_at desc, id;

-- name: tallies
select type, count(*), count(published_at) from {p}event group by type;

-- name: order topic
update {p}topic set ordered = 1 where name = ? and ordered = 0;

-- name: prove
update {p}topic set proven_at = ? where name = ? and (proven_at is null or proven_at < ?);

-- name: restored
update {p}meta set generation = generation + 1 where id = 1;

-- name: forget events
delete from {p}event where id in (select e.id from {p}event e
    where e.recorded_at < ? and not exists (select 1 from {p}pending p where p.id = e.id) order by e.recorded_at limit ?);

-- A counter goes once its last event is gone, and leaves its position behind.
-- name: idle counters
select c.topic, c.key, c.position from {p}counter c
where c.last_at < ? and not exists (select 1 from {p}event e where e.id = c.last_id) order by c.last_at limit ?;

-- name: raise floors
insert into {p}topic (name, position_floor) values (?, ?)...
on conflict (name) do update set position_floor = max(position_floor, excluded.position_floor);

-- name: delete counters
delete from {p}counter where (topic, key) in
    (select cast(unhex(value ->> 0) as text), cast(unhex(value ->> 1) as text) from json_each(?));

-- name: forget jobs
delete from {p}redelivery where finished_at < ?;

-- name: update job
update {p}redelivery set asked_by = ?, spec = ?, resume_id = ?, resume_at = ?, sent = ?, last_error = ?,
    finished_at = case when ? then coalesce(finished_at, ?) end, lease_until = ?, owner = ?
where id = ? and (lease_until <= ? or owner = ?);

-- name: insert job
insert into {p}redelivery (id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until, owner)
values (?, ?, ?, ?, ?, ?, ?, ?, case when ? then ? end, ?, ?) on conflict (id) do nothing;

-- name: has table
select count(*) from sqlite_master where type = 'table' and name = ?;

-- name: lock schema

-- name: unlock schema
