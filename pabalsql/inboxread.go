package pabalsql

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	// A loose scan: one lookup for each consumer, in each table that names them.
	sqlConsumers = `with recursive
		a (name) as (select min(consumer) from {p}consumer union all
			select (select min(consumer) from {p}consumer where consumer > a.name) from a where a.name is not null),
		b (name) as (select min(consumer) from {p}inbox union all
			select (select min(consumer) from {p}inbox where consumer > b.name) from b where b.name is not null),
		c (name) as (select min(consumer) from {p}cursor union all
			select (select min(consumer) from {p}cursor where consumer > c.name) from c where c.name is not null)
		select name from a where name is not null union select name from b where name is not null
		union select name from c where name is not null order by name`
	// Where an index is named, SQLite would otherwise, without statistics, read all rows of the consumer.
	sqlCountState = `select count(*), min(received_at) from
		(select received_at from {p}inbox indexed by {p}inbox_waiting where consumer = ? and state <> 0 and state = ? limit ?)`
	sqlCountOver = `select count(*) from
		(select 1 from {p}cursor indexed by {p}cursor_over where consumer = ? and over_id is not null limit ?)`
	sqlOver = `select source, topic, key, job, ` + cursorColumns + ` from {p}cursor
		where over_id is not null and (consumer = ?1 or ?1 = '') order by consumer, source, topic, key, job limit 100`
	sqlMemories = `select c.source, c.topic, c.joined_at,
			(select forgot_before from {p}consumer f where f.consumer = c.consumer and f.source = '' and f.topic = '')
		from {p}consumer c where c.consumer = ? and c.topic <> '' order by c.source, c.topic`

	sqlJoin = `insert into {p}consumer (consumer, source, topic, joined_at) values (?, ?, ?, ?)
		on conflict (consumer, source, topic) do update set joined_at = excluded.joined_at
			where joined_at is null or joined_at > excluded.joined_at`
	sqlForgotBefore = `insert into {p}consumer (consumer, source, topic, forgot_before) values (?, '', '', ?)
		on conflict (consumer, source, topic) do update set forgot_before = excluded.forgot_before
			where forgot_before is null or forgot_before < excluded.forgot_before`
	sqlForgetRows = `delete from {p}inbox where (consumer, id, source, job) in (select consumer, id, source, job from {p}inbox
		where consumer = ? and state = 0 and recorded_at < ? order by recorded_at limit ?)`
	sqlForgetCursors = `delete from {p}cursor where (consumer, source, topic, key, job) in
		(select c.consumer, c.source, c.topic, c.key, c.job from {p}cursor c
		where c.consumer = ? and c.last_at < ? and c.begun and not exists (select 1 from {p}inbox i indexed by {p}inbox_waiting
			where i.consumer = c.consumer and i.source = c.source and i.topic = c.topic and i.key = c.key and i.job = c.job
				and i.state <> 0)
		order by c.last_at limit ?)`
)

// Read implements driver.Inbox.
func (b inbox) Read(ctx context.Context, q driver.InboxQuery) (r driver.InboxReading, err error) {
	r.Now = b.s.dialect.clock()
	if q.Consumers {
		err = b.counts(ctx, &r, q.Consumer)
	}
	if err == nil && q.Rows != nil {
		r.Rows, err = b.rows(ctx, q.Consumer, q.Rows)
	}
	for i := 0; i < len(q.Cursors) && err == nil; i++ {
		k := q.Cursors[i]
		c := driver.Cursor{CursorKey: k}
		err = b.s.query(ctx, nil, func(rows *sql.Rows) error {
			err := rows.Scan(cursorFields(&c)...)
			r.Cursors = append(r.Cursors, c)
			return err
		}, sqlCursor, q.Consumer, k.Source, k.Topic, k.Key, k.Job[:])
	}
	if err == nil && q.Overflowing {
		err = b.s.query(ctx, nil, func(rows *sql.Rows) error {
			var c driver.Cursor
			err := rows.Scan(append([]any{&c.Source, &c.Topic, &c.Key, nullID{&c.Job}}, cursorFields(&c)...)...)
			r.Cursors = append(r.Cursors, c)
			return err
		}, sqlOver, q.Consumer)
	}
	if err == nil && q.Memories {
		err = b.s.query(ctx, nil, func(rows *sql.Rows) error {
			var m driver.Memory
			err := rows.Scan(&m.Source, &m.Topic, nullTime{&m.JoinedAt}, nullTime{&m.ForgotBefore})
			r.Memories = append(r.Memories, m)
			return err
		}, sqlMemories, q.Consumer)
	}
	return r, err
}

func (b inbox) counts(ctx context.Context, r *driver.InboxReading, only string) error {
	err := b.s.query(ctx, nil, func(rows *sql.Rows) error {
		var c driver.ConsumerCounts
		err := rows.Scan(&c.Consumer)
		if only == "" || only == c.Consumer {
			r.Consumers = append(r.Consumers, c)
		}
		return err
	}, sqlConsumers)
	for i := 0; i < len(r.Consumers) && err == nil; i++ {
		c := &r.Consumers[i]
		var ignored time.Time
		err = errors.Join(
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Held, nullTime{&c.OldestHeld}) },
				sqlCountState, c.Consumer, int(driver.Held), driver.CountMax),
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Parked, nullTime{&ignored}) },
				sqlCountState, c.Consumer, int(driver.Parked), driver.CountMax),
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Overflow) },
				sqlCountOver, c.Consumer, driver.CountMax),
		)
	}
	return err
}

// rows builds the one statement whose conditions vary.
func (b inbox) rows(ctx context.Context, consumer string, f *driver.RowFilter) (found []driver.Row, err error) {
	where, args := []string{"consumer = ?", "state <> 0"}, []any{consumer}
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if len(f.IDs) > 0 {
		and("id in (select unhex(value) from json_each(?))", hexIDs(f.IDs, func(id *uuid.UUID) uuid.UUID { return *id }))
	}
	if f.State != driver.Done {
		and("state = ?", int(f.State))
	}
	if f.Source != "" {
		and("source = ?", f.Source)
	}
	if f.Topic != "" {
		and("topic = ?", f.Topic)
	}
	if f.Key != "" {
		and("key = ? and job = ?", f.Key, f.Job[:])
	}
	query := "select " + rowColumns + " from {p}inbox where " + strings.Join(where, " and ") +
		" order by source, topic, key, job, position, id limit ?"
	rows, err := b.s.db.QueryContext(ctx, b.s.text(query), append(args, f.Limit)...)
	if err != nil {
		return nil, b.s.explain(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		row, err := scanRow(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

// Tend implements driver.Inbox.
func (b inbox) Tend(ctx context.Context, c driver.InboxChore) (n int, err error) {
	if c.Consumer == "" {
		return 0, errors.New("a chore needs a consumer")
	}
	if j := c.Join; j != nil {
		err = b.s.write(ctx, func(tx *sql.Tx) (err error) {
			n, err = b.s.exec(ctx, tx, sqlJoin, c.Consumer, j.Source, j.Topic, j.SentAt.UnixMicro())
			return err
		})
	}
	if f := c.Forget; f != nil && err == nil {
		err = b.s.write(ctx, func(tx *sql.Tx) error {
			_, err := b.s.exec(ctx, tx, sqlForgotBefore, c.Consumer, f.Before.UnixMicro())
			return err
		})
		if err != nil {
			return n, err
		}
		before := f.Before.Add(-f.Margin).UnixMicro()
		err = b.s.write(ctx, func(tx *sql.Tx) error {
			rows, err := b.s.exec(ctx, tx, sqlForgetRows, c.Consumer, before, f.Limit)
			if err != nil {
				return err
			}
			cursors, err := b.s.exec(ctx, tx, sqlForgetCursors, c.Consumer, before, f.Limit)
			n += rows + cursors
			return err
		})
	}
	return n, err
}
