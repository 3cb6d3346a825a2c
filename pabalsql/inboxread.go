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

// Read implements driver.Inbox.
func (b inbox) Read(ctx context.Context, q driver.InboxQuery) (r driver.InboxReading, err error) {
	if r.Now, err = b.s.clock(ctx, nil); err != nil {
		return r, err
	}
	if q.Consumers {
		err = b.counts(ctx, &r, q.Consumer)
	}
	if err == nil && q.Rows != nil {
		r.Rows, err = b.rows(ctx, q.Consumer, q.Rows)
	}
	if err == nil && len(q.Cursors) > 0 {
		r.Cursors, err = b.cursors(ctx, nil, "cursors", q.Consumer, q.Cursors, q.Cursors)
	}
	if err == nil && q.Overflowing {
		err = b.s.query(ctx, nil, func(rows *sql.Rows) error {
			c, err := scanCursor(rows)
			r.Cursors = append(r.Cursors, c)
			return err
		}, "overflowing", q.Consumer, q.Consumer)
	}
	if err == nil && q.Memories {
		err = b.s.query(ctx, nil, func(rows *sql.Rows) error {
			var m driver.Memory
			err := rows.Scan(&m.Source, &m.Topic, nullTime{&m.JoinedAt}, nullTime{&m.ForgotBefore})
			r.Memories = append(r.Memories, m)
			return err
		}, "memories", q.Consumer)
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
	}, "consumers")
	for i := 0; i < len(r.Consumers) && err == nil; i++ {
		c := &r.Consumers[i]
		var ignored time.Time
		err = errors.Join(
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Held, nullTime{&c.OldestHeld}) },
				"count state", c.Consumer, int(driver.Held), driver.CountMax),
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Parked, nullTime{&ignored}) },
				"count state", c.Consumer, int(driver.Parked), driver.CountMax),
			b.s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&c.Overflow) },
				"count overflowing", c.Consumer, driver.CountMax),
		)
	}
	return err
}

// rows builds the one statement whose conditions vary.
func (b inbox) rows(ctx context.Context, consumer string, f *driver.RowFilter) (found []driver.Row, err error) {
	name := "rows"
	if f.Done && len(f.IDs) > 0 {
		name = "all rows"
	}
	text, err := b.s.statement(name)
	if err != nil {
		return nil, err
	}
	where, args := []string{text}, []any{consumer}
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if len(f.IDs) > 0 {
		and("i.id "+b.s.dialect.statements["in list"], hexIDs(f.IDs, func(id *uuid.UUID) uuid.UUID { return *id }))
	}
	if f.State != driver.Done {
		and("i.state = ?", int(f.State))
	}
	if f.Source != "" {
		and("i.source = ?", f.Source)
	}
	if f.Topic != "" {
		and("i.topic = ?", f.Topic)
	}
	if f.Key != "" {
		and("i.`key` = ? and i.job = ?", f.Key, f.Job[:])
	}
	err = b.s.scan(ctx, nil, func(r *sql.Rows) error {
		row, err := scanRow(r)
		found = append(found, row)
		return err
	}, strings.Join(where, " and ")+" order by i.source, i.topic, i.`key`, i.job, i.position, i.id limit ?", append(args, f.Limit)...)
	return found, err
}

// Tend implements driver.Inbox.
func (b inbox) Tend(ctx context.Context, c driver.InboxChore) (n int, err error) {
	if c.Consumer == "" {
		return 0, errors.New("a chore needs a consumer")
	}
	if j := c.Join; j != nil {
		err = b.s.write(ctx, func(tx *sql.Tx) (err error) {
			n, err = b.s.exec(ctx, tx, "join", c.Consumer, j.Source, j.Topic, j.SentAt.UnixMicro())
			n = min(n, 1) // an upsert that changes a row is counted as two by some
			return err
		})
	}
	if f := c.Forget; f != nil && err == nil {
		err = b.s.write(ctx, func(tx *sql.Tx) error {
			_, err := b.s.exec(ctx, tx, "forgot before", c.Consumer, f.Before.UnixMicro())
			return err
		})
		if err != nil {
			return n, err
		}
		before := f.Before.Add(-f.Margin).UnixMicro()
		err = b.s.write(ctx, func(tx *sql.Tx) error {
			rows, err := b.s.exec(ctx, tx, "forget rows", c.Consumer, before, f.Limit)
			if err != nil {
				return err
			}
			cursors, err := b.forgetCursors(ctx, tx, c.Consumer, before, f.Limit)
			n += rows + cursors
			return err
		})
	}
	return n, err
}

func (b inbox) forgetCursors(ctx context.Context, tx *sql.Tx, consumer string, before int64, limit int) (int, error) {
	var idle []driver.CursorKey
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error {
		var k driver.CursorKey
		err := rows.Scan(&k.Source, &k.Topic, &k.Key, nullID{&k.Job})
		idle = append(idle, k)
		return err
	}, "idle cursors", consumer, before, limit)
	if err != nil || len(idle) == 0 {
		return 0, err
	}
	return b.s.exec(ctx, tx, "delete cursors", consumer, keyList(idle))
}
