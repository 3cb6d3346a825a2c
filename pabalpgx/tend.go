package pabalpgx

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
)

const (
	sqlRegister = `insert into {p}topic as t (name, ordered) values ($1::text, $2::boolean)
		on conflict (name) do update set ordered = true where excluded.ordered and not t.ordered`
	sqlProve = `insert into {p}topic as t (name, proven_at) values ($1::text, least($2::timestamptz, clock_timestamp()))
		on conflict (name) do update set proven_at = excluded.proven_at
		where t.proven_at is null or t.proven_at < excluded.proven_at`
	sqlRestored = `update {p}meta set generation = generation + 1 where id = 1`

	// Whole days go as partitions. One by one go events of the day that is not over yet, and those that lie in the default
	// partition: left behind by their day, or recorded while nobody made partitions.
	sqlForgetToday = sqlForget + `{p}event f where f.recorded_at < $1::timestamptz
		and f.recorded_at >= (select date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC')` + notPending
	sqlForgetDefault = sqlForget + `{p}event_default f where f.recorded_at < $1::timestamptz` + notPending
	sqlForget        = `with r as materialized (select f.recorded_at, f.id from `
	notPending       = ` and not exists (select from {p}pending p where p.id = f.id) order by f.recorded_at limit $2::bigint
		), noted as (
			delete from {p}published e using r where ` + oneEvent + `
		)
		delete from {p}event e using r where ` + oneEvent
	// A counter goes once its last event is gone, and leaves its position behind. The topics are locked in order. A scalar
	// subquery looks up one event for each counter, where "not exists" may read all events first.
	sqlForgetCounters = `with idle as materialized (
			select c.ctid as place, c.topic, c.position from {p}counter c
			where c.last_day <= ($1::timestamptz at time zone 'UTC')::date and c.last_at < $1::timestamptz
				and (select true from {p}event e where e.recorded_at = c.last_at and e.id = c.last_id limit 1) is null
			order by c.last_day limit $2::bigint for update of c skip locked
		), floors as (
			insert into {p}topic as t (name, position_floor)
			select topic, max(position) from idle group by topic order by topic
			on conflict (name) do update set position_floor = greatest(t.position_floor, excluded.position_floor)
		)
		delete from {p}counter c where c.ctid = any (array(select place from idle))`
	sqlForgetJobs = `delete from {p}redelivery where finished_at < $1::timestamptz`

	sqlUpdateJob = `update {p}redelivery set asked_by = $2::text, spec = $3::bytea, resume_id = $4::text::uuid,
			resume_at = $5::timestamptz, sent = $6::bigint, last_error = $7::text,
			finished_at = case when $8::boolean then coalesce(finished_at, clock_timestamp()) end,
			lease_until = clock_timestamp() + $9::bigint * interval '1 microsecond', owner = $10::text::uuid
		where id = $1::text::uuid and (lease_until <= clock_timestamp() or owner = $10::text::uuid)`
	sqlInsertJob = `insert into {p}redelivery (id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at,
			lease_until, owner)
		values ($1::text::uuid, clock_timestamp(), $2::text, $3::bytea, $4::text::uuid, $5::timestamptz, $6::bigint, $7::text,
			case when $8::boolean then clock_timestamp() end, clock_timestamp() + $9::bigint * interval '1 microsecond', $10::text::uuid)
		on conflict (id) do nothing`
)

// Tend implements driver.Store.
func (b *base) Tend(ctx context.Context, c driver.Chore) (n int, err error) {
	do := func(query string, args ...any) {
		if err == nil {
			var changed int
			changed, err = b.own().exec(ctx, query, args...)
			n += changed
		}
	}
	if c.Register != nil {
		do(sqlRegister, c.Register.Name, c.Register.Ordered)
	}
	if c.Prove != nil {
		do(sqlProve, c.Prove.Topic, c.Prove.SentAt)
	}
	if c.Forget != nil && err == nil {
		var forgotten int
		forgotten, err = b.forget(ctx, c.Forget)
		n += forgotten
	}
	if c.Restored {
		do(sqlRestored)
	}
	if j := c.Job; j != nil {
		args := []any{j.ID.String(), j.By, j.Spec, idOrNull(j.Resume.ID), timeOrNull(j.Resume.RecordedAt), j.Sent, j.LastError,
			j.Finished, j.Lease.Microseconds(), j.Owner.String()}
		before := n
		if do(sqlUpdateJob, args...); n == before {
			do(sqlInsertJob, args...)
		}
	}
	return n, err
}

func (b *base) forget(ctx context.Context, f *driver.Forget) (int, error) {
	n, err := b.turnPartitions(ctx, f.Before)
	if err != nil {
		return n, err
	}
	list := []struct {
		query string
		args  []any
	}{
		{sqlForgetDefault, []any{f.Before, f.Limit}},
		{sqlForgetToday, []any{f.Before, f.Limit}},
		{sqlForgetCounters, []any{f.Before, f.Limit}},
		{sqlForgetJobs, []any{f.Before}},
	}
	for _, l := range list {
		changed := 0
		err := b.write(ctx, func(s session) (err error) {
			changed, err = s.exec(ctx, l.query, l.args...)
			return err
		})
		n += changed
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

const (
	ahead = 14 // days for which there are partitions, so that a fortnight without any client costs nothing

	sqlAhead = `select {p}ahead($1::int)`
	// Each wait for a lock is one attempt; whoever records waits behind it no longer than that.
	sqlPatience  = `set local lock_timeout = '100ms'`
	sqlOldestDay = `select c.relname, greatest(c.reltuples, 0)::bigint
		from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = $1::text::regclass and c.relname ~ ('^' || $1::text || '_[0-9]{8}$') and right(c.relname, 8) < $2::text
			and ($1::text = '{p}event' or to_regclass('{p}event' || right(c.relname, 9)) is null)
		order by c.relname limit 1`
	sqlKeep = `insert into {p}event select e.* from {p}pending r join {day} e on ` + oneEvent
)

// turnPartitions makes partitions ahead and drops the oldest one that is wholly before a moment. Its events that are still
// pending go into the default partition, where no other claims them (P7). A lock that is not free at once is left to the next round.
func (b *base) turnPartitions(ctx context.Context, before time.Time) (n int, err error) {
	err = b.write(ctx, func(s session) error {
		if _, err := s.exec(ctx, sqlPatience); err != nil {
			return err
		}
		return s.query(ctx, func(row scanner) error { var made int; return row.Scan(&made) }, sqlAhead, ahead)
	})
	if err != nil && !isState(err, lockNotAvailable) {
		return 0, err
	}
	for _, parent := range []string{"event", "published"} {
		err := b.write(ctx, func(s session) error {
			dropped, err := b.dropDay(ctx, s, parent, before)
			if parent == "event" {
				n = dropped
			}
			return err
		})
		if err != nil && !isState(err, lockNotAvailable) {
			return n, err
		}
	}
	return n, nil
}

// dropDay drops a partition of event but for what is pending, or one of published whose events have gone, and says how many
// rows it had.
func (b *base) dropDay(ctx context.Context, s session, parent string, before time.Time) (n int, err error) {
	day, rows := "", 0
	parent = b.prefix + parent
	err = s.query(ctx, func(row scanner) error { return row.Scan(&day, &rows) }, sqlOldestDay, parent, before.UTC().Format("20060102"))
	if err != nil || day == "" {
		return 0, err
	}
	day = pgx.Identifier{day}.Sanitize()
	list := []string{
		sqlPatience,
		`lock table only ` + parent + `, only ` + parent + `_default, only ` + day + ` in access exclusive mode`,
		`alter table ` + parent + ` detach partition ` + day,
		`drop table ` + day,
	}
	if parent == b.prefix+"event" {
		list = slices.Insert(list, 3, strings.ReplaceAll(sqlKeep, "{day}", day))
	}
	for _, query := range list {
		if _, err := s.exec(ctx, query); err != nil {
			return 0, err
		}
	}
	return rows, nil
}
