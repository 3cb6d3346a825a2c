package pabalpgx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	// A loose scan: one lookup for each consumer, in each table that names them.
	sqlConsumers = `with recursive
		a (name) as ((select consumer from {p}consumer order by consumer limit 1) union all
			select (select consumer from {p}consumer where consumer > a.name order by consumer limit 1) from a where a.name is not null),
		b (name) as ((select consumer from {p}inbox order by consumer limit 1) union all
			select (select consumer from {p}inbox where consumer > b.name order by consumer limit 1) from b where b.name is not null),
		c (name) as ((select consumer from {p}cursor order by consumer limit 1) union all
			select (select consumer from {p}cursor where consumer > c.name order by consumer limit 1) from c where c.name is not null)
		select name from a where name is not null union select name from b where name is not null
		union select name from c where name is not null order by name`
	sqlCountState = `select count(*), min(received_at) from
		(select received_at from {p}inbox where consumer = $1::text and state <> 0 and state = $2::bigint limit $3::bigint) few`
	sqlCountOver = `select count(*) from (select from {p}cursor where consumer = $1::text and over_id is not null limit $2::bigint) few`
	sqlOver      = `select c.source, c.topic, c.key, c.job, ` + cursorColumns + ` from {p}cursor c
		where c.over_id is not null and (c.consumer = $1::text or $1::text = '')
		order by c.consumer, c.source, c.topic, c.key, c.job limit 100`
	sqlCursors  = `select c.source, c.topic, c.key, c.job, ` + cursorColumns + ` from ` + keyCursors + ` order by k.n`
	sqlMemories = `select c.source, c.topic, c.joined_at,
			(select forgot_before from {p}consumer f where f.consumer = c.consumer and f.source = '' and f.topic = '')
		from {p}consumer c where c.consumer = $1::text and c.topic <> '' order by c.source, c.topic`
	sqlInboxClock = `select clock_timestamp()`

	sqlJoin = `insert into {p}consumer as c (consumer, source, topic, joined_at) values ($1::text, $2::text, $3::text, $4::timestamptz)
		on conflict (consumer, source, topic) do update set joined_at = excluded.joined_at
			where c.joined_at is null or c.joined_at > excluded.joined_at`
	sqlForgotBefore = `insert into {p}consumer as c (consumer, source, topic, forgot_before) values ($1::text, '', '', $2::timestamptz)
		on conflict (consumer, source, topic) do update set forgot_before = excluded.forgot_before
			where c.forgot_before is null or c.forgot_before < excluded.forgot_before`
	// Rows that somebody works with are left to the next round.
	sqlForgetRows = `with old as materialized (
			select i.ctid as place from {p}inbox i where i.consumer = $1::text and i.state = 0 and i.recorded_at < $2::timestamptz
			order by i.recorded_at limit $3::bigint for update of i skip locked
		)
		delete from {p}inbox i where i.ctid = any (array(select place from old))`
	sqlForgetCursors = `with old as materialized (
			select c.ctid as place from {p}cursor c
			where c.consumer = $1::text and c.last_day <= ($2::timestamptz at time zone 'UTC')::date and c.last_at < $2::timestamptz
				and c.begun and (select true from {p}inbox i where i.consumer = c.consumer and i.source = c.source
					and i.topic = c.topic and i.key = c.key and i.job = c.job and i.state <> 0 limit 1) is null
			order by c.last_day limit $3::bigint for update of c skip locked
		)
		delete from {p}cursor c where c.ctid = any (array(select place from old))`
)

// Read implements driver.Inbox.
func (l ledger) Read(ctx context.Context, q driver.InboxQuery) (r driver.InboxReading, err error) {
	s := l.b.own()
	cursor := func(row scanner) error {
		var c driver.Cursor
		err := row.Scan(append([]any{&c.Source, &c.Topic, &c.Key, nullID{&c.Job}}, cursorFields(&c)...)...)
		r.Cursors = append(r.Cursors, c)
		return err
	}
	err = s.query(ctx, func(row scanner) error { return row.Scan(nullTime{&r.Now}) }, sqlInboxClock)
	if err == nil && q.Consumers {
		err = counts(ctx, s, &r, q.Consumer)
	}
	if err == nil && q.Rows != nil {
		r.Rows, err = findRows(ctx, s, q.Consumer, q.Rows)
	}
	if err == nil && len(q.Cursors) > 0 {
		err = s.query(ctx, cursor, sqlCursors, keyArgs(q.Consumer, q.Cursors)...)
	}
	if err == nil && q.Overflowing {
		err = s.query(ctx, cursor, sqlOver, q.Consumer)
	}
	if err == nil && q.Memories {
		err = s.query(ctx, func(row scanner) error {
			var m driver.Memory
			err := row.Scan(&m.Source, &m.Topic, nullTime{&m.JoinedAt}, nullTime{&m.ForgotBefore})
			r.Memories = append(r.Memories, m)
			return err
		}, sqlMemories, q.Consumer)
	}
	return r, err
}

func counts(ctx context.Context, s session, r *driver.InboxReading, only string) error {
	err := s.query(ctx, func(row scanner) error {
		var c driver.ConsumerCounts
		err := row.Scan(&c.Consumer)
		if only == "" || only == c.Consumer {
			r.Consumers = append(r.Consumers, c)
		}
		return err
	}, sqlConsumers)
	if err != nil {
		return err
	}
	var list []statement
	for i := range r.Consumers {
		c := &r.Consumers[i]
		var ignored time.Time
		list = append(list,
			statement{name: "count held", query: sqlCountState, args: []any{c.Consumer, int(driver.Held), driver.CountMax},
				scan: func(row scanner) error { return row.Scan(&c.Held, nullTime{&c.OldestHeld}) }},
			statement{name: "count parked", query: sqlCountState, args: []any{c.Consumer, int(driver.Parked), driver.CountMax},
				scan: func(row scanner) error { return row.Scan(&c.Parked, nullTime{&ignored}) }},
			statement{name: "count overflowing", query: sqlCountOver, args: []any{c.Consumer, driver.CountMax},
				scan: func(row scanner) error { return row.Scan(&c.Overflow) }})
	}
	return s.all(ctx, list)
}

// findRows builds the one statement whose conditions vary.
func findRows(ctx context.Context, s session, consumer string, f *driver.RowFilter) (found []driver.Row, err error) {
	var c conditions
	c.and("i.consumer = $?::text", consumer)
	if !f.Done || len(f.IDs) == 0 {
		c.and("i.state <> 0")
	}
	if len(f.IDs) > 0 {
		c.and("i.id = any ($?::text[]::uuid[])", ids(f.IDs, func(id *uuid.UUID) uuid.UUID { return *id }))
	}
	if f.State != driver.Done {
		c.and("i.state = $?::bigint", int(f.State))
	}
	if f.Source != "" {
		c.and("i.source = $?::text", f.Source)
	}
	if f.Topic != "" {
		c.and("i.topic = $?::text", f.Topic)
	}
	if f.Key != "" {
		c.and("i.key = $?::text", f.Key)
	}
	if f.Key != "" || f.Job != uuid.Nil {
		c.and("i.job = $?::text::uuid", f.Job.String())
	}
	c.args = append(c.args, f.Limit)
	text := "select " + rowColumns + " from {p}inbox i where " + c.text() +
		fmt.Sprintf(" order by i.source, i.topic, i.key, i.job, i.position, i.id limit $%d::bigint", len(c.args))
	err = s.query(ctx, func(row scanner) error {
		var r driver.Row
		err := row.Scan(rowFields(&r)...)
		found = append(found, r)
		return err
	}, text, c.args...)
	return found, err
}

// Tend implements driver.Inbox.
func (l ledger) Tend(ctx context.Context, c driver.InboxChore) (n int, err error) {
	if c.Consumer == "" {
		return 0, errors.New("a chore needs a consumer")
	}
	s := l.b.own()
	if j := c.Join; j != nil {
		n, err = s.exec(ctx, sqlJoin, c.Consumer, j.Source, j.Topic, j.SentAt)
	}
	if f := c.Forget; f != nil && err == nil {
		if _, err = s.exec(ctx, sqlForgotBefore, c.Consumer, f.Before); err != nil {
			return n, err
		}
		before := f.Before.Add(-f.Margin)
		for _, query := range []string{sqlForgetRows, sqlForgetCursors} {
			changed := 0
			err := l.b.write(ctx, func(s session) (err error) {
				changed, err = s.exec(ctx, query, c.Consumer, before, f.Limit)
				return err
			})
			n += changed
			if err != nil {
				return n, err
			}
		}
	}
	return n, err
}
