-- Statements of driver.Inbox; see store.sql. {row} and {cursor} stand for columns.

-- name: arrive
insert into {p}inbox (consumer, source, id, job, topic, key, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at,
    received_at, arrival, state)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)...
on conflict do nothing;

-- name: known
select {row} from {p}inbox i where (i.consumer, i.id, i.source, i.job) in
    (select ?, unhex(value ->> 0), cast(unhex(value ->> 1) as text), unhex(value ->> 2) from json_each(?)) and i.arrival <> ?;

-- name: add cursors

-- name: cursors
select c.source, c.topic, c.key, c.job, {cursor} from {p}cursor c where (c.consumer, c.source, c.topic, c.key, c.job) in
    (select ?, cast(unhex(value ->> 0) as text), cast(unhex(value ->> 1) as text), cast(unhex(value ->> 2) as text),
        unhex(value ->> 3) from json_each(?));

-- name: lock cursors
select c.source, c.topic, c.key, c.job, {cursor} from {p}cursor c where (c.consumer, c.source, c.topic, c.key, c.job) in
    (select ?, cast(unhex(value ->> 0) as text), cast(unhex(value ->> 1) as text), cast(unhex(value ->> 2) as text),
        unhex(value ->> 3) from json_each(?));

-- Which keys, by their place in the list, have waiting rows.
-- name: busy keys
select j.key from json_each(?) j where exists (select 1 from {p}inbox i indexed by {p}inbox_waiting
    where i.consumer = ? and i.source = cast(unhex(j.value ->> 0) as text) and i.topic = cast(unhex(j.value ->> 1) as text)
        and i.key = cast(unhex(j.value ->> 2) as text) and i.job = unhex(j.value ->> 3) and i.state <> 0);

-- name: waiting
select {row} from {p}inbox i where i.consumer = ? and i.source = ? and i.topic = ? and i.key = ? and i.job = ?
    and i.state <> 0 and (i.state = 1 or i.position > ?) order by i.position limit ?;

-- The index is named: without statistics SQLite would read all rows of the consumer.
-- name: count held
select count(*) from (select 1 from {p}inbox indexed by {p}inbox_waiting
    where consumer = ? and source = ? and topic = ? and key = ? and job = ? and state <> 0 and state = 1 limit ?) w;

-- name: memory
select max(joined_at), max(case when source = '' and topic = '' then forgot_before end)
from {p}consumer where consumer = ? and ((source = ? and topic = ?) or (source = '' and topic = ''));

-- name: save rows
insert into {p}inbox (consumer, source, id, job, topic, key, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at,
    received_at, state, reason, next_at, failures, started, last_error, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (consumer, id, source, job) do update set topic = excluded.topic, key = excluded.key, type = excluded.type,
    position = excluded.position, prev_id = excluded.prev_id, prev_position = excluded.prev_position,
    prev_at = excluded.prev_at, recorded_at = excluded.recorded_at, sent_at = excluded.sent_at, state = excluded.state,
    reason = excluded.reason, next_at = excluded.next_at, failures = excluded.failures, started = excluded.started,
    last_error = excluded.last_error, body = excluded.body;

-- name: delete rows
delete from {p}inbox where (consumer, id, source, job) in
    (select ?, unhex(value ->> 0), cast(unhex(value ->> 1) as text), unhex(value ->> 2) from json_each(?));

-- name: save cursors
insert into {p}cursor (consumer, source, topic, key, job, begun, began, last_id, last_position, last_at, over_id, over_position,
    over_at, moved_at)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (consumer, source, topic, key, job) do update set begun = excluded.begun, began = excluded.began,
    last_id = excluded.last_id, last_position = excluded.last_position, last_at = excluded.last_at,
    over_id = excluded.over_id, over_position = excluded.over_position, over_at = excluded.over_at, moved_at = excluded.moved_at;

-- name: due
select {row} from {p}inbox i where i.consumer = ? and i.next_at <= ? and i.state <> 0 order by i.next_at limit ?;

-- name: take due
select {row} from {p}inbox i where i.consumer = ? and i.next_at <= ? and i.state <> 0 order by i.next_at limit ?;

-- name: due by id
select {row} from {p}inbox i where i.consumer = ? and i.id in (select unhex(value) from json_each(?)) and i.state <> 0
order by i.id;

-- name: take due by id
select {row} from {p}inbox i where i.consumer = ? and i.id in (select unhex(value) from json_each(?)) and i.state <> 0
order by i.id;

-- The beginning of the one statement whose conditions vary.
-- name: all rows
select {row} from {p}inbox i where i.consumer = ?

-- name: rows
select {row} from {p}inbox i where i.consumer = ? and i.state <> 0

-- A loose scan: one lookup for each consumer, in each table that names them.
-- name: consumers
with recursive
    a (name) as (select min(consumer) from {p}consumer union all
        select (select min(consumer) from {p}consumer where consumer > a.name) from a where a.name is not null),
    b (name) as (select min(consumer) from {p}inbox union all
        select (select min(consumer) from {p}inbox where consumer > b.name) from b where b.name is not null),
    c (name) as (select min(consumer) from {p}cursor union all
        select (select min(consumer) from {p}cursor where consumer > c.name) from c where c.name is not null)
select name from a where name is not null union select name from b where name is not null
union select name from c where name is not null order by name;

-- Where an index is named, SQLite would otherwise, without statistics, read all rows of the consumer.
-- name: count state
select count(*), min(received_at) from
    (select received_at from {p}inbox indexed by {p}inbox_waiting where consumer = ? and state <> 0 and state = ? limit ?) w;

-- name: count overflowing
select count(*) from (select 1 from {p}cursor indexed by {p}cursor_over where consumer = ? and over_id is not null limit ?) w;

-- name: overflowing
select c.source, c.topic, c.key, c.job, {cursor} from {p}cursor c
where c.over_id is not null and (c.consumer = ? or ? = '') order by c.consumer, c.source, c.topic, c.key, c.job limit 100;

-- name: memories
select c.source, c.topic, c.joined_at,
    (select forgot_before from {p}consumer f where f.consumer = c.consumer and f.source = '' and f.topic = '')
from {p}consumer c where c.consumer = ? and c.topic <> '' order by c.source, c.topic;

-- name: join
insert into {p}consumer (consumer, source, topic, joined_at) values (?, ?, ?, ?)
on conflict (consumer, source, topic) do update set joined_at = excluded.joined_at
    where joined_at is null or joined_at > excluded.joined_at;

-- name: forgot before
insert into {p}consumer (consumer, source, topic, forgot_before) values (?, '', '', ?)
on conflict (consumer, source, topic) do update set forgot_before = excluded.forgot_before
    where forgot_before is null or forgot_before < excluded.forgot_before;

-- name: forget rows
delete from {p}inbox where (consumer, id, source, job) in (select consumer, id, source, job from {p}inbox
    where consumer = ? and state = 0 and recorded_at < ? order by recorded_at limit ?);

-- name: idle cursors
select c.source, c.topic, c.key, c.job from {p}cursor c
where c.consumer = ? and c.last_at < ? and c.begun and not exists (select 1 from {p}inbox i indexed by {p}inbox_waiting
    where i.consumer = c.consumer and i.source = c.source and i.topic = c.topic and i.key = c.key and i.job = c.job
        and i.state <> 0)
order by c.last_at limit ?;

-- name: delete cursors
delete from {p}cursor where (consumer, source, topic, key, job) in
    (select ?, cast(unhex(value ->> 0) as text), cast(unhex(value ->> 1) as text), cast(unhex(value ->> 2) as text),
        unhex(value ->> 3) from json_each(?));
