-- Statements of driver.Inbox; see store.sql. {row} and {cursor} stand for columns, {keys} is a list of (source, topic, key, job)
-- as a table. Load, Save run in the handler's transaction at the database's default isolation, REPEATABLE READ: what they
-- lock they look up by the primary key, and what they only read they read after locking, so that its snapshot is young.

-- fragment: keys
json_table(?, '$[*]' columns (place for ordinality, source varchar(510) path '$[0]', topic varchar(510) path '$[1]',
    name varchar(2048) path '$[2]', job char(32) path '$[3]')) j

-- An exclusive lock of the record where the row is there already: see "lock counters".
-- name: arrive
insert into {p}inbox (consumer, source, id, job, topic, `key`, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at,
    received_at, arrival, state)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)...
on duplicate key update arrival = arrival;

-- A locking read: it sees what another transaction has committed since this one began.
-- name: known
select {row} from (select ? as consumer) me cross join json_table(?, '$[*]' columns (id char(32) path '$[0]',
    source varchar(510) path '$[1]', job char(32) path '$[2]')) j
straight_join {p}inbox i force index (primary)
on i.consumer = me.consumer and i.id = unhex(j.id) and i.source = unhex(j.source) and i.job = unhex(j.job)
where i.arrival <> ? for update;

-- name: add cursors
insert into {p}cursor (consumer, source, topic, `key`, job, moved_at) values (?, ?, ?, ?, ?, ?)...
on duplicate key update moved_at = moved_at;

-- name: cursors
select c.source, c.topic, c.`key`, c.job, {cursor} from (select ? as consumer) me cross join {keys}
straight_join {p}cursor c force index (primary)
on c.consumer = me.consumer and c.source = unhex(j.source) and c.topic = unhex(j.topic) and c.`key` = unhex(j.name)
    and c.job = unhex(j.job);

-- name: lock cursors
select c.source, c.topic, c.`key`, c.job, {cursor} from (select ? as consumer) me cross join {keys}
straight_join {p}cursor c force index (primary)
on c.consumer = me.consumer and c.source = unhex(j.source) and c.topic = unhex(j.topic) and c.`key` = unhex(j.name)
    and c.job = unhex(j.job)
for update;

-- Which keys, by their place in the list, have waiting rows.
-- name: busy keys
select j.place - 1 from {keys} where (select 1 from {p}inbox i force index ({p}inbox_waiting)
    where i.consumer = ? and i.waiting_key = unhex(j.name) and i.source = unhex(j.source) and i.topic = unhex(j.topic)
        and i.job = unhex(j.job) limit 1);

-- name: waiting
select {row} from {p}inbox i force index ({p}inbox_waiting)
where i.consumer = ? and i.source = ? and i.topic = ? and i.waiting_key = ? and i.job = ? and (i.state = 1 or i.position > ?)
order by i.position limit ?;

-- name: count held
select count(*) from (select 1 from {p}inbox force index ({p}inbox_waiting)
    where consumer = ? and source = ? and topic = ? and waiting_key = ? and job = ? and state = 1 limit ?) w;

-- name: memory
select max(joined_at), max(case when source = '' and topic = '' then forgot_before end)
from {p}consumer where consumer = ? and ((source = ? and topic = ?) or (source = '' and topic = ''));

-- name: save rows
insert into {p}inbox (consumer, source, id, job, topic, `key`, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at,
    received_at, state, reason, next_at, failures, started, last_error, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)...
on duplicate key update topic = values(topic), `key` = values(`key`), type = values(type), position = values(position),
    prev_id = values(prev_id), prev_position = values(prev_position), prev_at = values(prev_at),
    recorded_at = values(recorded_at), sent_at = values(sent_at), state = values(state), reason = values(reason),
    next_at = values(next_at), failures = values(failures), started = values(started), last_error = values(last_error),
    body = values(body);

-- name: delete rows
delete i from (select ? as consumer) me cross join json_table(?, '$[*]' columns (id char(32) path '$[0]',
    source varchar(510) path '$[1]', job char(32) path '$[2]')) j
straight_join {p}inbox i force index (primary)
on i.consumer = me.consumer and i.id = unhex(j.id) and i.source = unhex(j.source) and i.job = unhex(j.job);

-- name: save cursors
insert into {p}cursor (consumer, source, topic, `key`, job, begun, began, last_id, last_position, last_at, over_id, over_position,
    over_at, moved_at)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)...
on duplicate key update begun = values(begun), began = values(began), last_id = values(last_id),
    last_position = values(last_position), last_at = values(last_at), over_id = values(over_id),
    over_position = values(over_position), over_at = values(over_at), moved_at = values(moved_at);

-- name: due
select {row} from {p}inbox i force index ({p}inbox_due)
where i.consumer = ? and i.next_at <= ? and i.state <> 0 order by i.next_at limit ?;

-- name: take due
select {row} from {p}inbox i force index ({p}inbox_due)
where i.consumer = ? and i.next_at <= ? and i.state <> 0 order by i.next_at limit ? for update skip locked;

-- name: due by id
select {row} from (select ? as consumer) me cross join {ids}
straight_join {p}inbox i force index (primary) on i.consumer = me.consumer and i.id = unhex(j.id)
where i.state <> 0 order by i.id;

-- name: take due by id
select {row} from (select ? as consumer) me cross join {ids}
straight_join {p}inbox i force index (primary) on i.consumer = me.consumer and i.id = unhex(j.id)
where i.state <> 0 order by i.id for update skip locked;

-- The beginning of the one statement whose conditions vary.
-- name: all rows
select {row} from {p}inbox i where i.consumer = ?

-- name: rows
select {row} from {p}inbox i where i.consumer = ? and i.state in (1, 2)

-- A loose scan of each table that names them: one lookup for each consumer.
-- name: consumers
select consumer from {p}consumer group by consumer union select consumer from {p}inbox group by consumer
union select consumer from {p}cursor group by consumer order by consumer;

-- name: count state
select count(*), min(received_at) from
    (select received_at from {p}inbox force index ({p}inbox_age) where consumer = ? and state = ? limit ?) w;

-- name: count overflowing
select count(*) from
    (select 1 from {p}cursor force index ({p}cursor_over) where consumer = ? and over_id is not null limit ?) w;

-- name: overflowing
select c.source, c.topic, c.`key`, c.job, {cursor} from {p}cursor c
where c.over_id is not null and (c.consumer = ? or ? = '') order by c.consumer, c.source, c.topic, c.`key`, c.job limit 100;

-- name: memories
select c.source, c.topic, c.joined_at,
    (select forgot_before from {p}consumer f where f.consumer = c.consumer and f.source = '' and f.topic = '')
from {p}consumer c where c.consumer = ? and c.topic <> '' order by c.source, c.topic;

-- name: join
insert into {p}consumer (consumer, source, topic, joined_at) values (?, ?, ?, ?)
on duplicate key update joined_at = least(coalesce(joined_at, values(joined_at)), values(joined_at));

-- name: forgot before
insert into {p}consumer (consumer, source, topic, forgot_before) values (?, '', '', ?)
on duplicate key update forgot_before = greatest(coalesce(forgot_before, 0), values(forgot_before));

-- name: forget rows
delete i from (select consumer, id, source, job from {p}inbox force index ({p}inbox_age)
    where consumer = ? and state = 0 and recorded_at < ? order by recorded_at limit ?) old
straight_join {p}inbox i force index (primary)
on i.consumer = old.consumer and i.id = old.id and i.source = old.source and i.job = old.job;

-- The lock keeps handlers of the key out while it is looked at; a cursor that is locked is in use.
-- name: idle cursors
select c.source, c.topic, c.`key`, c.job from {p}cursor c force index ({p}cursor_age)
where c.consumer = ? and c.last_at < ? and c.begun = 1
    and not exists (select 1 from {p}inbox i force index ({p}inbox_waiting)
        where i.consumer = c.consumer and i.waiting_key = c.`key` and i.source = c.source and i.topic = c.topic and i.job = c.job)
order by c.last_at limit ? for update skip locked;

-- name: delete cursors
delete c from (select ? as consumer) me cross join {keys}
straight_join {p}cursor c force index (primary)
on c.consumer = me.consumer and c.source = unhex(j.source) and c.topic = unhex(j.topic) and c.`key` = unhex(j.name)
    and c.job = unhex(j.job);
