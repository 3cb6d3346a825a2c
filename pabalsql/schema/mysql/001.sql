-- Pabal, MySQL 8.0 and MariaDB 10.11 or newer, schema version 1. {p} stands for the table prefix. Each statement may be run
-- again: where DDL ends a transaction, a migration that was interrupted goes on by beginning anew.
--
-- Times are microseconds since 1970, UTC: a datetime is read and written in what each driver takes for its time zone, and a
-- timestamp in the session's, which has an hour twice where clocks are put back. The view {p}event_record shows datetimes.
-- Text is varbinary with UTF-8 in it: every collation that both databases have compares 'a' and 'a ' as equal, and a key
-- is its bytes.

create table if not exists {p}meta (
    id         tinyint       not null primary key check (id = 1),
    version    int           not null,
    source     varbinary(64) not null default '',
    generation int           not null default 0
) engine = innodb row_format = dynamic;

-- History: a row never changes but for skipped and published_at.
create table if not exists {p}event (
    id            binary(16)     not null primary key,
    topic         varbinary(64)  not null,
    type          varbinary(128) not null,
    `key`         varbinary(255) not null,
    content_type  varbinary(255) not null,
    version       varbinary(64)  not null,
    payload       longblob       not null,
    headers       mediumblob,
    traceparent   varbinary(64)  not null,
    recorded_at   bigint         not null,
    position      bigint         not null,
    prev_id       binary(16),
    prev_position bigint,
    prev_at       bigint,
    bare          tinyint        not null default 0,
    skipped       tinyint        not null default 0,
    published_at  bigint,
    key {p}event_recorded (recorded_at, id)
) engine = innodb row_format = dynamic;

-- The work list: what is recorded and not confirmed. A null due_at is a parked event.
create table if not exists {p}pending (
    id          binary(16)      not null primary key,
    recorded_at bigint          not null,
    topic       varbinary(64)   not null,
    due_at      bigint,
    claims      int             not null default 0,
    crashes     int             not null default 0,
    failures    int             not null default 0,
    accepted_at bigint,
    sent_at     bigint,
    last_error  varbinary(1000) not null default '',
    key {p}pending_due (topic, due_at)
) engine = innodb row_format = dynamic;

create table if not exists {p}topic (
    name           varbinary(64) not null primary key,
    ordered        tinyint       not null default 0,
    proven_at      bigint,
    probed_at      bigint,
    position_floor bigint        not null default 0
) engine = innodb row_format = dynamic;

-- A row without last_id has only been inserted to be locked.
create table if not exists {p}counter (
    topic      varbinary(64)  not null,
    `key`      varbinary(255) not null,
    generation int            not null default 0,
    position   bigint         not null default 0,
    last_id    binary(16),
    last_at    bigint         not null default 0,
    primary key (topic, `key`),
    key {p}counter_last (last_at)
) engine = innodb row_format = dynamic;

create table if not exists {p}redelivery (
    id          binary(16)      not null primary key,
    created_at  bigint          not null,
    asked_by    varbinary(255)  not null,
    spec        mediumblob      not null,
    resume_id   binary(16),
    resume_at   bigint,
    sent        bigint          not null default 0,
    last_error  varbinary(1000) not null default '',
    finished_at bigint,
    lease_until bigint          not null,
    owner       binary(16)      not null
) engine = innodb row_format = dynamic;

-- State: 0 done, 1 held, 2 parked. What comes from other libraries may have longer names than Pabal's. The generated column
-- stands for an index of the waiting rows only: those that are done have a short null there.
create table if not exists {p}inbox (
    consumer      varbinary(64)   not null,
    source        varbinary(255)  not null,
    id            binary(16)      not null,
    job           binary(16)      not null,
    topic         varbinary(255)  not null,
    `key`         varbinary(1024) not null,
    type          varbinary(255)  not null,
    position      bigint          not null,
    prev_id       binary(16),
    prev_position bigint,
    prev_at       bigint,
    recorded_at   bigint          not null,
    sent_at       bigint          not null,
    received_at   bigint          not null,
    arrival       bigint          not null default 0,
    state         tinyint         not null,
    reason        varbinary(1000) not null default '',
    next_at       bigint,
    failures      int             not null default 0,
    started       int             not null default 0,
    last_error    varbinary(1000) not null default '',
    body          longblob,
    waiting_key   varbinary(1024) generated always as (case when state <> 0 then `key` end) stored,
    primary key (consumer, id, source, job),
    key {p}inbox_due (consumer, next_at),
    key {p}inbox_waiting (consumer, waiting_key, position),
    key {p}inbox_age (consumer, state, recorded_at)
) engine = innodb row_format = dynamic;

create table if not exists {p}cursor (
    consumer      varbinary(64)   not null,
    source        varbinary(255)  not null,
    topic         varbinary(255)  not null,
    `key`         varbinary(1024) not null,
    job           binary(16)      not null,
    begun         tinyint         not null default 0,
    began         bigint          not null default 0,
    last_id       binary(16),
    last_position bigint          not null default 0,
    last_at       bigint,
    over_id       binary(16),
    over_position bigint,
    over_at       bigint,
    moved_at      bigint          not null,
    primary key (consumer, source, topic, `key`, job),
    key {p}cursor_age (consumer, last_at),
    key {p}cursor_over (consumer, over_id)
) engine = innodb row_format = dynamic;

-- A row with empty source and topic keeps what is true of the whole consumer.
create table if not exists {p}consumer (
    consumer      varbinary(64)  not null,
    source        varbinary(255) not null,
    topic         varbinary(255) not null,
    joined_at     bigint,
    forgot_before bigint,
    primary key (consumer, source, topic)
) engine = innodb row_format = dynamic;

-- The classic shape of the engineering note that Pabal comes from.
create or replace view {p}event_record as
select lower(concat_ws('-', substr(hex(id), 1, 8), substr(hex(id), 9, 4), substr(hex(id), 13, 4), substr(hex(id), 17, 4),
           substr(hex(id), 21))) as event_id,
       convert(`key` using utf8mb4) as orderNo,
       convert(topic using utf8mb4) as topic,
       convert(payload using utf8mb4) as message,
       case when published_at is null then 'N' else 'Y' end as published,
       timestampadd(microsecond, published_at, '1970-01-01 00:00:00') as published_date,
       timestampadd(microsecond, recorded_at, '1970-01-01 00:00:00') as created_date
from {p}event;

-- For programs in any language: records an event inside the caller's transaction, due at once, so that `pabal relay` publishes
-- it after COMMIT. With a key ('' or null: none) the events of a topic and key are ordered; transactions that record the
-- same key wait for each other. The payload is JSON.
--
--     start transaction;
--     update orders set status = 'paid' where no = 'A-1';
--     call {p}record('order-pay-done', 'order-pay-done', 'A-1', '{"orderNo": "A-1"}');
--     commit;
drop procedure if exists {p}record;

delimiter //
create procedure {p}record(in in_topic varchar(64) character set utf8mb4, in in_type varchar(128) character set utf8mb4,
    in in_key varchar(255) character set utf8mb4, in in_payload longtext character set utf8mb4)
    modifies sql data
    sql security invoker
begin
    declare moment, place, last_place, last_moment, lowest bigint default 0;
    declare now_generation, of_generation int default 0;
    declare new_id, previous binary(16);
    -- Outside of a transaction a savepoint is gone as soon as it is made; MySQL has no other way to ask.
    declare exit handler for 1305
        signal sqlstate '45000' set message_text = '{p}record: not in a transaction: START TRANSACTION first';
    savepoint {p}record;
    release savepoint {p}record;

    if coalesce(in_topic, '') = '' or in_topic regexp '[^A-Za-z0-9._/-]' or coalesce(in_type, '') = ''
        or in_type regexp '[^A-Za-z0-9._/-]' then
        signal sqlstate '45000' set message_text = '{p}record: topic and type are of letters, digits, dot, underscore, slash and hyphen';
    end if;
    if in_payload is null or not json_valid(in_payload) then
        signal sqlstate '45000' set message_text = '{p}record: the payload is not JSON';
    end if;
    set in_key = coalesce(in_key, '');
    if octet_length(in_key) > 255 then
        signal sqlstate '45000' set message_text = '{p}record: the key is longer than 255 bytes';
    end if;

    if in_key <> '' then -- as Record does: see "lock counters" of pabalsql
        insert into {p}counter (topic, `key`) values (in_topic, in_key) on duplicate key update position = position;
        select c.generation, c.position, c.last_id, c.last_at, (select m.generation from {p}meta m where m.id = 1),
            coalesce((select t.position_floor from {p}topic t where t.name = c.topic), 0),
            timestampdiff(microsecond, '1970-01-01', utc_timestamp(6))
        into of_generation, last_place, previous, last_moment, now_generation, lowest, moment
        from {p}counter c where c.topic = cast(in_topic as binary) and c.`key` = cast(in_key as binary) for update;
        if previous is not null and of_generation = now_generation then
            set place = last_place + 1;
        else -- a new run
            set place = greatest(moment div 1000, lowest + 1, last_place + 2);
        end if;
    else
        set moment = timestampdiff(microsecond, '1970-01-01', utc_timestamp(6));
    end if;

    -- A UUID of version 7: 48 bits of milliseconds, the rest is random.
    set new_id = unhex(concat(lpad(hex(moment div 1000), 12, '0'), '7', left(hex(random_bytes(2)), 3),
        elt(1 + (ord(random_bytes(1)) & 3), '8', '9', 'A', 'B'), left(hex(random_bytes(8)), 15)));
    insert into {p}event (id, topic, type, `key`, content_type, version, payload, traceparent, recorded_at, position, prev_id,
        prev_position, prev_at)
    values (new_id, in_topic, in_type, in_key, 'application/json', '', in_payload, '', moment, place, previous,
        if(previous is null, null, last_place), if(previous is null, null, last_moment));
    insert into {p}pending (id, recorded_at, topic, due_at) values (new_id, moment, in_topic, moment);
    if in_key <> '' then
        update {p}counter set generation = now_generation, position = place, last_id = new_id, last_at = moment
        where topic = cast(in_topic as binary) and `key` = cast(in_key as binary);
    end if;
end//
delimiter ;

insert ignore into {p}meta (id, version) values (1, 1);
