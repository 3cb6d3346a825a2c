package pabalsql

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	rowColumns = `id, source, topic, key, job, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at, state, reason,
		next_at, failures, started, last_error, body, received_at`

	sqlInsertArrival = `insert into {p}inbox (consumer, source, id, job, topic, key, type, position, prev_id, prev_position, prev_at,
			recorded_at, sent_at, received_at, state) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
		on conflict do nothing`
	sqlKnown = `select ` + rowColumns + ` from {p}inbox where consumer = ? and id = ? and source = ? and job = ?`

	cursorColumns = `begun, began, last_id, last_position, last_at, over_id, over_position, over_at, moved_at`
	sqlCursor     = `select ` + cursorColumns + ` from {p}cursor where consumer = ? and source = ? and topic = ? and key = ? and job = ?`
	sqlWaiting    = `select ` + rowColumns + ` from {p}inbox where consumer = ? and source = ? and topic = ? and key = ? and job = ?
		and state <> 0 and (state = 1 or position > ?) order by position limit ?`
	// The index is named: without statistics SQLite would read all rows of the consumer.
	sqlCountHeld = `select count(*) from (select 1 from {p}inbox indexed by {p}inbox_waiting
		where consumer = ? and source = ? and topic = ? and key = ? and job = ? and state <> 0 and state = 1 limit ?)`
	sqlMemory = `select max(case when source = ?2 then joined_at end), max(case when source = '' and topic = '' then forgot_before end)
		from {p}consumer where consumer = ?1 and ((source = ?2 and topic = ?3) or (source = '' and topic = ''))`

	sqlSaveRow = `insert into {p}inbox (consumer, source, id, job, topic, key, type, position, prev_id, prev_position, prev_at,
			recorded_at, sent_at, received_at, state, reason, next_at, failures, started, last_error, body)
		values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		on conflict (consumer, id, source, job) do update set topic = excluded.topic, key = excluded.key, type = excluded.type,
			position = excluded.position, prev_id = excluded.prev_id, prev_position = excluded.prev_position,
			prev_at = excluded.prev_at, recorded_at = excluded.recorded_at, sent_at = excluded.sent_at, state = excluded.state,
			reason = excluded.reason, next_at = excluded.next_at, failures = excluded.failures, started = excluded.started,
			last_error = excluded.last_error, body = excluded.body`
	sqlDeleteRow  = `delete from {p}inbox where consumer = ? and id = ? and source = ? and job = ?`
	sqlSaveCursor = `insert into {p}cursor (consumer, source, topic, key, job, ` + cursorColumns + `)
		values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		on conflict (consumer, source, topic, key, job) do update set begun = excluded.begun, began = excluded.began,
			last_id = excluded.last_id, last_position = excluded.last_position, last_at = excluded.last_at,
			over_id = excluded.over_id, over_position = excluded.over_position, over_at = excluded.over_at,
			moved_at = excluded.moved_at`

	sqlDue     = `select ` + rowColumns + ` from {p}inbox where consumer = ? and next_at <= ? and state <> 0 order by next_at limit ?`
	sqlDueByID = `select ` + rowColumns + ` from {p}inbox where consumer = ? and state <> 0
		and id in (select unhex(value) from json_each(?)) order by id`
)

// inbox implements driver.Inbox.
type inbox struct{ s *Store }

// Begin implements driver.Inbox. The transaction does not end with ctx, as those of database/sql do otherwise.
func (b inbox) Begin(ctx context.Context) (*sql.Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	whole := context.WithValue(context.WithoutCancel(ctx), waitKey{}, ctx)
	tx, err := b.s.db.BeginTx(whole, nil)
	if err != nil {
		return nil, err
	}
	c, err := meet(whole, tx)
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	b.s.mu.Lock()
	b.s.open[tx] = c.tx
	b.s.mu.Unlock()
	return tx, nil
}

// End implements driver.Inbox.
func (b inbox) End(ctx context.Context, tx *sql.Tx, how driver.Ending) error {
	if tx == nil {
		return driver.ErrNoTransaction
	}
	b.s.mu.Lock()
	state := b.s.open[tx]
	delete(b.s.open, tx)
	b.s.mu.Unlock()
	if how != driver.Commit {
		// Rollback waits for a statement of the handler's that is still running; nobody can commit any more, for the
		// pool refuses a COMMIT behind a Rollback.
		done := make(chan struct{})
		go func() {
			_ = tx.Rollback()
			close(done)
		}()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if state != nil && state.over() {
		err := state.ending()
		_ = tx.Rollback() // gives the connection back when the handler committed by text
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (t *transaction) over() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.ended
}

// ending says how a transaction ended that the handler ended by itself.
func (t *transaction) ending() error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	switch t.how {
	case driver.SawCommit:
		return nil
	case driver.SawCommitLost:
		return fmt.Errorf("the handler's COMMIT failed or was not answered")
	default:
		return driver.ErrNoTransaction
	}
}

// Conflict implements driver.Inbox.
func (b inbox) Conflict(err error) bool { return b.s.dialect.conflict(err) }

// Load implements driver.Inbox. The transaction holds the database's write lock: nothing else has to be locked.
func (b inbox) Load(ctx context.Context, tx *sql.Tx, l driver.Load) (driver.Loaded, error) {
	r := driver.Loaded{Now: b.s.dialect.clock(), Known: make([]*driver.Row, len(l.Arrivals))}
	for i := range l.Arrivals {
		known, err := b.arrive(ctx, tx, l.Consumer, &l.Arrivals[i], r.Now.UnixMicro())
		if err != nil {
			return r, fmt.Errorf("insert arrival: %w", err)
		}
		r.Known[i] = known
		if err := b.remember(ctx, tx, &r, l.Consumer, l.Arrivals[i].Source, l.Arrivals[i].Topic); err != nil {
			return r, fmt.Errorf("read memory: %w", err)
		}
	}
	for _, k := range l.Keys {
		if err := b.loadKey(ctx, tx, &r, l, k); err != nil {
			return r, fmt.Errorf("read cursor: %w", err)
		}
		if err := b.remember(ctx, tx, &r, l.Consumer, k.Source, k.Topic); err != nil {
			return r, fmt.Errorf("read memory: %w", err)
		}
	}
	return r, nil
}

func (b inbox) arrive(ctx context.Context, tx *sql.Tx, consumer string, a *driver.Row, now int64) (known *driver.Row, err error) {
	n, err := b.s.exec(ctx, tx, sqlInsertArrival, consumer, a.Source, a.ID[:], a.Job[:], a.Topic, a.Key, a.Type, a.Position,
		idOrNull(a.Prev.ID), positionOrNull(a.Prev.Position), micros(a.Prev.RecordedAt), a.RecordedAt.UnixMicro(), a.SentAt.UnixMicro(), now)
	if err != nil || n > 0 {
		return nil, err
	}
	err = b.s.query(ctx, tx, func(rows *sql.Rows) error {
		row, err := scanRow(rows)
		known = &row
		return err
	}, sqlKnown, consumer, a.ID[:], a.Source, a.Job[:])
	return known, err
}

func (b inbox) loadKey(ctx context.Context, tx *sql.Tx, r *driver.Loaded, l driver.Load, k driver.CursorKey) error {
	c := driver.Cursor{CursorKey: k}
	key := []any{l.Consumer, k.Source, k.Topic, k.Key, k.Job[:]}
	if err := b.s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(cursorFields(&c)...) }, sqlCursor, key...); err != nil {
		return err
	}
	var waiting []driver.Row
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error {
		row, err := scanRow(rows)
		waiting = append(waiting, row)
		return err
	}, sqlWaiting, append(key[:5:5], c.Last.Position, l.Waiting)...)
	if err != nil {
		return err
	}
	held := 0
	for i := range waiting {
		if waiting[i].State == driver.Held {
			held++
		}
	}
	if len(waiting) == l.Waiting { // perhaps more than were read
		if err := b.s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&held) }, sqlCountHeld,
			append(key[:5:5], driver.CountMax)...); err != nil {
			return err
		}
	}
	r.Cursors, r.Waiting, r.WaitingCount = append(r.Cursors, c), append(r.Waiting, waiting), append(r.WaitingCount, held)
	return nil
}

func (b inbox) remember(ctx context.Context, tx *sql.Tx, r *driver.Loaded, consumer, source, topic string) error {
	for _, m := range r.Memory {
		if m.Source == source && m.Topic == topic {
			return nil
		}
	}
	m := driver.Memory{Source: source, Topic: topic}
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(nullTime{&m.JoinedAt}, nullTime{&m.ForgotBefore}) },
		sqlMemory, consumer, source, topic)
	r.Memory = append(r.Memory, m)
	return err
}

func scanRow(rows *sql.Rows) (r driver.Row, err error) {
	err = rows.Scan(nullID{&r.ID}, &r.Source, &r.Topic, &r.Key, nullID{&r.Job}, &r.Type, &r.Position, nullID{&r.Prev.ID},
		nullInt{&r.Prev.Position}, nullTime{&r.Prev.RecordedAt}, nullTime{&r.RecordedAt}, nullTime{&r.SentAt}, &r.State, &r.Reason,
		nullTime{&r.NextAt}, &r.Failures, &r.Started, &r.LastError, &r.Body, nullTime{&r.ReceivedAt})
	return r, err
}

func cursorFields(c *driver.Cursor) []any {
	return []any{&c.Begun, &c.Began, nullID{&c.Last.ID}, &c.Last.Position, nullTime{&c.Last.RecordedAt}, nullID{&c.Overflow.ID},
		nullInt{&c.Overflow.Position}, nullTime{&c.Overflow.RecordedAt}, nullTime{&c.MovedAt}}
}

// Save implements driver.Inbox.
func (b inbox) Save(ctx context.Context, tx *sql.Tx, s driver.Save) error {
	now := b.s.dialect.clock().UnixMicro()
	for i := range s.Rows {
		if err := b.saveRow(ctx, tx, s.Consumer, &s.Rows[i], now); err != nil {
			return fmt.Errorf("save row: %w", err)
		}
	}
	for i := range s.Cursors {
		c := &s.Cursors[i]
		_, err := b.s.exec(ctx, tx, sqlSaveCursor, s.Consumer, c.Source, c.Topic, c.Key, c.Job[:], c.Begun, c.Began,
			idOrNull(c.Last.ID), c.Last.Position, micros(c.Last.RecordedAt), idOrNull(c.Overflow.ID),
			positionOrNull(c.Overflow.Position), micros(c.Overflow.RecordedAt), now)
		if err != nil {
			return fmt.Errorf("save cursor: %w", err)
		}
	}
	return nil
}

func (b inbox) saveRow(ctx context.Context, tx *sql.Tx, consumer string, r *driver.Row, now int64) error {
	if r.State == driver.Gone {
		_, err := b.s.exec(ctx, tx, sqlDeleteRow, consumer, r.ID[:], r.Source, r.Job[:])
		return err
	}
	_, err := b.s.exec(ctx, tx, sqlSaveRow, consumer, r.Source, r.ID[:], r.Job[:], r.Topic, r.Key, r.Type, r.Position,
		idOrNull(r.Prev.ID), positionOrNull(r.Prev.Position), micros(r.Prev.RecordedAt), r.RecordedAt.UnixMicro(), r.SentAt.UnixMicro(),
		now, int(r.State), r.Reason, micros(r.NextAt), r.Failures, r.Started, r.LastError, r.Body)
	return err
}

// Due implements driver.Inbox. Whether anything is due is asked outside of a transaction, which would take the write lock.
func (b inbox) Due(ctx context.Context, sel driver.InboxSelection) (taken []driver.Row, err error) {
	ask, args := sqlDue, []any{sel.Consumer, b.s.dialect.clock().UnixMicro(), sel.Limit}
	if len(sel.IDs) > 0 {
		ask, args = sqlDueByID, []any{sel.Consumer, hexIDs(sel.IDs, func(id *uuid.UUID) uuid.UUID { return *id })}
	}
	var rows []driver.Row
	scan := func(r *sql.Rows) error {
		row, err := scanRow(r)
		rows = append(rows, row)
		return err
	}
	if err := b.s.query(ctx, nil, scan, ask, args...); err != nil || len(rows) == 0 {
		return nil, err
	}
	err = b.s.write(ctx, func(tx *sql.Tx) error {
		rows = nil
		if err := b.s.query(ctx, tx, scan, ask, args...); err != nil || len(rows) == 0 {
			return err
		}
		now := b.s.dialect.clock()
		taken = sel.Decide(now, rows)
		for i := range taken {
			if err := b.saveRow(ctx, tx, sel.Consumer, &taken[i], now.UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}
