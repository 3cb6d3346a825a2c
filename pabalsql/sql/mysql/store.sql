-- Statements of driver.Store in what MySQL 8.0 and MariaDB 10.11 both document. {p} stands for the table prefix, {event} and
-- {pending} for their columns, "..." repeats the placeholders before it for every row, {ids} is a list of ids as a table.
--
-- Rows that are locked are always looked up by the whole primary key, one by one: from a list (straight_join: the list
-- comes first; force index: not the few rows of a small table all at once). InnoDB then locks the rows and no gaps, at
-- any isolation (MySQL manual, "Locks Set by Different SQL Statements in InnoDB": "only an index record lock is required
-- for statements that lock rows using a unique index to search for a unique row"). Pabal's own transactions are READ
-- COMMITTED, which locks no gaps either.

-- fragment: ids
json_table(?, '$[*]' columns (id char(32) path '$')) j

-- Microseconds since 1970. now() and sysdate() are of the session's time zone, which may have an hour twice a year.
-- name: clock
select timestampdiff(microsecond, '1970-01-01', utc_timestamp(6));

-- The names differ: transaction_isolation in MySQL, tx_isolation in MariaDB before 11.1.
-- name: settings
show session variables where variable_name in
    ('autocommit', 'binlog_format', 'sql_mode', 'transaction_isolation', 'tx_isolation', 'version');

-- What decides about a commit that was answered; the server's, for these are no settings of a session.
-- name: durability
show global variables where variable_name in ('innodb_doublewrite', 'innodb_flush_log_at_trx_commit', 'innodb_flush_method',
    'log_bin', 'sync_binlog', 'idle_transaction_timeout', 'idle_write_transaction_timeout');

-- name: engines
select table_name, engine from information_schema.tables
where table_schema = database() and left(table_name, char_length('{p}')) = '{p}' and table_type = 'BASE TABLE' and engine <> 'InnoDB'
order by 1;

-- The last: does it only read? That is a number here, and on some versions a name.
-- name: meta
select version, source, generation, cast(@@global.read_only as char) not in ('0', 'OFF') from {p}meta where id = 1;

-- name: take source
update {p}meta set source = ? where id = 1 and source = '';

-- Inserts what is absent and locks the rest, in the order of the rows. An insert that finds its primary key takes an
-- exclusive lock of that record and no gap ("on duplicate key update"; "insert ignore" would take a shared one, which two
-- transactions cannot both make exclusive).
-- name: lock counters
insert into {p}counter (topic, `key`) values (?, ?)... on duplicate key update position = position;

-- The clock of this statement comes after all waiting for locks. What a subquery reads is not locked.
-- name: counters
select timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)), (select generation from {p}meta where id = 1), c.topic, c.`key`,
    c.generation, c.position, c.last_id, c.last_at, (select t.position_floor from {p}topic t where t.name = c.topic)
from {p}counter c force index (primary) where (c.topic = ? and c.`key` = ?)...or for update;

-- name: insert events
insert into {p}event (id, topic, type, `key`, content_type, version, payload, headers, traceparent, recorded_at, position, prev_id,
    prev_position, prev_at, bare)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)...;

-- The same without keys, at this statement's clock, which it returns. Only MariaDB reads what stands in the comment; MySQL is
-- asked by the statement after it.
-- name: insert events now
insert into {p}event (id, topic, type, `key`, content_type, version, payload, headers, traceparent, recorded_at, position, bare)
values (?, ?, ?, '', ?, ?, ?, ?, ?, timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)), 0, ?)... /*M!100500 returning recorded_at */;

-- name: recorded since
select recorded_at from {p}event where id = ?;

-- name: insert pending
insert into {p}pending (id, recorded_at, topic, due_at) values (?, ?, ?, ?)...;

-- name: move counters
insert into {p}counter (topic, `key`, generation, position, last_id, last_at) values (?, ?, ?, ?, ?, ?)...
on duplicate key update generation = values(generation), position = values(position), last_id = values(last_id),
    last_at = values(last_at);

-- name: take by id
select {pending} from {ids} straight_join {p}pending p force index (primary) on p.id = unhex(j.id) for update skip locked;

-- name: take fresh
select {pending} from {p}pending p force index ({p}pending_due)
where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at is null order by p.due_at limit ? for update skip locked;

-- name: take accepted
select {pending} from {p}pending p force index ({p}pending_due)
where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at < ? order by p.due_at limit ? for update skip locked;

-- name: add topic
insert into {p}topic (name) values (?) on duplicate key update name = name;

-- name: probe
update {p}topic set probed_at = ? where name = ? and (probed_at is null or probed_at <= ?);

-- name: write decisions
update json_table(?, '$[*]' columns (id char(32) path '$[0]', due_at bigint path '$[1]', claims int path '$[2]',
    crashes int path '$[3]', failures int path '$[4]', accepted_at bigint path '$[5]', sent_at bigint path '$[6]',
    last_error varchar(2000) path '$[7]')) j
straight_join {p}pending p force index (primary) on p.id = unhex(j.id)
set p.due_at = j.due_at, p.claims = j.claims, p.crashes = j.crashes, p.failures = j.failures, p.accepted_at = j.accepted_at,
    p.sent_at = j.sent_at, p.last_error = unhex(j.last_error);

-- name: skip events
update {ids} straight_join {p}event e force index (primary) on e.id = unhex(j.id) set e.skipped = 1;

-- name: events by id
select {event} from {ids} straight_join {p}event e force index (primary) on e.id = unhex(j.id);

-- name: lock pending
select p.id from {ids} straight_join {p}pending p force index (primary) on p.id = unhex(j.id) for update skip locked;

-- name: settle
update (select cast(? as signed) as at) clock cross join json_table(?, '$[*]' columns (id char(32) path '$[0]',
    claims int path '$[1]', accepted int path '$[2]', park int path '$[3]', wait bigint path '$[4]',
    said varchar(2000) path '$[5]')) j
straight_join {p}pending p force index (primary) on p.id = unhex(j.id) and p.claims = j.claims
set p.crashes = 0, p.due_at = case when j.park then null else clock.at + j.wait end,
    p.accepted_at = case when j.accepted then clock.at else p.accepted_at end,
    p.last_error = case when j.said <> '' then unhex(j.said) else p.last_error end;

-- name: which recorded
select e.id from {ids} straight_join {p}event e force index (primary) on e.id = unhex(j.id);

-- name: which pending
select p.id from {ids} straight_join {p}pending p force index (primary) on p.id = unhex(j.id) for update;

-- name: delete pending
delete p from {ids} straight_join {p}pending p force index (primary) on p.id = unhex(j.id);

-- name: published
update (select cast(? as signed) as at) clock cross join {ids}
straight_join {p}event e force index (primary) on e.id = unhex(j.id) and e.published_at is null
set e.published_at = clock.at;

-- Topics with pending rows are found by a loose scan of the index (topic, due_at), one lookup for each (MySQL manual, "GROUP BY
-- Optimization"; a subquery for each topic would read the index from its beginning).
-- name: topics
select m.source, m.generation, cast(@@global.read_only as char) not in ('0', 'OFF'),
    n.name, coalesce(t.ordered, 0), t.proven_at, t.probed_at, coalesce(t.position_floor, 0), d.oldest
from {p}meta m
left join (select name from {p}topic union select distinct topic from {p}pending) n on true
left join {p}topic t on t.name = n.name
left join (select topic, min(due_at) as oldest from {p}pending where due_at >= ? group by topic) d on d.topic = n.name
order by n.name;

-- name: count waiting
select count(*), min(recorded_at) from
    (select recorded_at from {p}pending where topic = ? and due_at is not null limit ?) w;

-- name: count parked
select count(*) from (select 1 from {p}pending where topic = ? and due_at is null limit ?) w;

-- The beginnings of the one statement whose conditions vary, and a condition of it.
-- name: find
select {event}, {pending} from {p}event e left join {p}pending p force index (primary) on p.id = e.id where

-- When only unconfirmed events are asked for, the work list is the smaller table to begin with.
-- name: find pending
select {event}, {pending} from {p}pending p straight_join {p}event e force index (primary) on e.id = p.id where

-- name: count found
select count(*) from {p}event e left join {p}pending p force index (primary) on p.id = e.id where

-- name: in list
in (select unhex(j.id) from {ids})

-- name: jobs
select id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until, owner
from {p}redelivery where finished_at is null or id in (select id from
    (select id from {p}redelivery where finished_at is not null order by created_at desc limit 20) latest)
order by created_at desc, id;

-- name: tallies
select type, count(*), count(published_at) from {p}event group by type;

-- name: order topic
update {p}topic set ordered = 1 where name = ? and ordered = 0;

-- name: prove
update {p}topic set proven_at = ? where name = ? and (proven_at is null or proven_at < ?);

-- name: restored
update {p}meta set generation = generation + 1 where id = 1;

-- Ids grow with time: the rows that go lie side by side at one end of the table and of the index, see
-- docs/decisions/0003-old-events-are-deleted-in-small-batches-on-mysql.md.
-- name: forget events
delete e from (select x.id from {p}event x force index ({p}event_recorded)
    where x.recorded_at < ? and not exists (select 1 from {p}pending p where p.id = x.id) order by x.recorded_at limit ?) old
straight_join {p}event e force index (primary) on e.id = old.id;

-- A counter goes once its last event is gone, and leaves its position behind. One that is locked is in use.
-- name: idle counters
select c.topic, c.`key`, c.position from {p}counter c force index ({p}counter_last)
where c.last_at < ? and not exists (select 1 from {p}event e where e.id = c.last_id) order by c.last_at limit ?
for update skip locked;

-- name: raise floors
insert into {p}topic (name, position_floor) values (?, ?)...
on duplicate key update position_floor = greatest(position_floor, values(position_floor));

-- name: delete counters
delete c from json_table(?, '$[*]' columns (topic varchar(510) path '$[0]', name varchar(2048) path '$[1]')) j
straight_join {p}counter c force index (primary) on c.topic = unhex(j.topic) and c.`key` = unhex(j.name);

-- name: forget jobs
delete from {p}redelivery where finished_at < ?;

-- name: update job
update {p}redelivery set asked_by = ?, spec = ?, resume_id = ?, resume_at = ?, sent = ?, last_error = ?,
    finished_at = case when ? then coalesce(finished_at, ?) end, lease_until = ?, owner = ?
where id = ? and (lease_until <= ? or owner = ?);

-- name: insert job
insert ignore into {p}redelivery (id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until,
    owner)
values (?, ?, ?, ?, ?, ?, ?, ?, case when ? then ? end, ?, ?);

-- name: has table
select count(*) from information_schema.tables where table_schema = database() and table_name = ?;

-- The name of a lock is of the whole server, and at most 64 characters long.
-- name: lock schema
select get_lock(concat('pabal ', sha1(concat(database(), '/{p}'))), 60);

-- name: unlock schema
select release_lock(concat('pabal ', sha1(concat(database(), '/{p}'))));
