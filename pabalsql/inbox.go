package pabalsql

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
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

// Load implements driver.Inbox. What is only read is read after the locks: where a transaction reads from a snapshot, that is
// taken then.
func (b inbox) Load(ctx context.Context, tx *sql.Tx, l driver.Load) (r driver.Loaded, err error) {
	now, err := b.s.clock(ctx, tx)
	if err != nil {
		return r, err
	}
	if r.Known, err = b.arrive(ctx, tx, l, now.UnixMicro()); err != nil {
		return r, fmt.Errorf("insert arrivals: %w", err)
	}
	if r.Cursors, err = b.lockCursors(ctx, tx, l, now.UnixMicro()); err != nil {
		return r, fmt.Errorf("lock cursors: %w", err)
	}
	if r.Now, err = b.s.clock(ctx, tx); err != nil {
		return r, err
	}
	if err := b.waiting(ctx, tx, &r, l); err != nil {
		return r, fmt.Errorf("read waiting rows: %w", err)
	}
	for i := range l.Arrivals {
		if err := b.remember(ctx, tx, &r, l.Consumer, l.Arrivals[i].Source, l.Arrivals[i].Topic); err != nil {
			return r, fmt.Errorf("read memory: %w", err)
		}
	}
	for _, k := range l.Keys {
		if err := b.remember(ctx, tx, &r, l.Consumer, k.Source, k.Topic); err != nil {
			return r, fmt.Errorf("read memory: %w", err)
		}
	}
	return r, nil
}

// rowKey is what makes an inbox row of a consumer unique.
type rowKey struct {
	id, job uuid.UUID
	source  string
}

func keyOfRow(r *driver.Row) rowKey { return rowKey{r.ID, r.Job, r.Source} }

// arrive inserts the arrivals, in the order of their keys, and answers the rows that were there already: those that this
// call did not mark as its own.
func (b inbox) arrive(ctx context.Context, tx *sql.Tx, l driver.Load, now int64) ([]*driver.Row, error) {
	known := make([]*driver.Row, len(l.Arrivals))
	if len(l.Arrivals) == 0 {
		return known, nil
	}
	mark := rand.Int64()
	at := make(map[rowKey][]int, len(l.Arrivals))
	for i := range l.Arrivals {
		key := keyOfRow(&l.Arrivals[i])
		at[key] = append(at[key], i)
	}
	sorted := slices.SortedFunc(maps.Keys(at), func(a, b rowKey) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), strings.Compare(a.source, b.source), bytes.Compare(a.job[:], b.job[:]))
	})
	rows, list := make([][]any, len(sorted)), make([][3]string, len(sorted))
	for i, key := range sorted {
		a := &l.Arrivals[at[key][0]]
		rows[i] = []any{l.Consumer, a.Source, a.ID[:], a.Job[:], a.Topic, a.Key, a.Type, a.Position, idOrNull(a.Prev.ID),
			positionOrNull(a.Prev.Position), micros(a.Prev.RecordedAt), a.RecordedAt.UnixMicro(), a.SentAt.UnixMicro(), now, mark}
		list[i] = [3]string{hex.EncodeToString(a.ID[:]), hexText(a.Source), hex.EncodeToString(a.Job[:])}
	}
	if err := b.s.execRows(ctx, tx, "arrive", rows); err != nil {
		return nil, err
	}
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error {
		row, err := scanRow(rows)
		for _, i := range at[keyOfRow(&row)] {
			known[i] = &row
		}
		return err
	}, "known", l.Consumer, jsonText(list), mark)
	return known, err
}

// keyList is a list of cursors for a statement.
func keyList(keys []driver.CursorKey) string {
	list := make([][4]string, len(keys))
	for i, k := range keys {
		list[i] = [4]string{hexText(k.Source), hexText(k.Topic), hexText(k.Key), hex.EncodeToString(k.Job[:])}
	}
	return jsonText(list)
}

// lockCursors inserts the cursors that are absent and locks all of them, in order. Where the transaction holds the
// database's write lock, neither is needed.
func (b inbox) lockCursors(ctx context.Context, tx *sql.Tx, l driver.Load, now int64) ([]driver.Cursor, error) {
	if len(l.Keys) == 0 {
		return nil, nil
	}
	sorted := slices.SortedFunc(slices.Values(l.Keys), func(a, b driver.CursorKey) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Topic, b.Topic), strings.Compare(a.Key, b.Key),
			bytes.Compare(a.Job[:], b.Job[:]))
	})
	rows := make([][]any, len(sorted))
	for i, k := range sorted {
		rows[i] = []any{l.Consumer, k.Source, k.Topic, k.Key, k.Job[:], now}
	}
	if err := b.s.execRows(ctx, tx, "add cursors", rows); err != nil {
		return nil, err
	}
	return b.cursors(ctx, tx, "lock cursors", l.Consumer, sorted, l.Keys)
}

// cursors reads the cursors of a list of keys, and answers them for all of keys, those not begun where there are none.
func (b inbox) cursors(ctx context.Context, tx *sql.Tx, name, consumer string, list, keys []driver.CursorKey) ([]driver.Cursor, error) {
	found := make(map[driver.CursorKey]driver.Cursor, len(list))
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error {
		c, err := scanCursor(rows)
		found[c.CursorKey] = c
		return err
	}, name, consumer, keyList(list))
	cursors := make([]driver.Cursor, len(keys))
	for i, k := range keys {
		cursors[i] = found[k]
		cursors[i].CursorKey = k
	}
	return cursors, err
}

// waiting reads the waiting rows of the keys that have any.
func (b inbox) waiting(ctx context.Context, tx *sql.Tx, r *driver.Loaded, l driver.Load) error {
	r.Waiting, r.WaitingCount = make([][]driver.Row, len(l.Keys)), make([]int, len(l.Keys))
	if len(l.Keys) == 0 {
		return nil
	}
	var busy []int
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error {
		var place int
		err := rows.Scan(&place)
		busy = append(busy, place)
		return err
	}, "busy keys", keyList(l.Keys), l.Consumer)
	for _, i := range busy {
		if err == nil {
			k := l.Keys[i]
			key := []any{l.Consumer, k.Source, k.Topic, k.Key, k.Job[:]}
			r.Waiting[i], r.WaitingCount[i], err = b.waitingOf(ctx, tx, key, r.Cursors[i].Last.Position, l.Waiting)
		}
	}
	return err
}

func (b inbox) waitingOf(ctx context.Context, tx *sql.Tx, key []any, last int64, limit int) (waiting []driver.Row, held int, err error) {
	err = b.s.query(ctx, tx, func(rows *sql.Rows) error {
		row, err := scanRow(rows)
		waiting = append(waiting, row)
		if row.State == driver.Held {
			held++
		}
		return err
	}, "waiting", append(key[:5:5], last, limit)...)
	if err == nil && len(waiting) == limit { // perhaps more than were read
		err = b.s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&held) }, "count held", append(key[:5:5], driver.CountMax)...)
	}
	return waiting, held, err
}

func (b inbox) remember(ctx context.Context, tx *sql.Tx, r *driver.Loaded, consumer, source, topic string) error {
	for _, m := range r.Memory {
		if m.Source == source && m.Topic == topic {
			return nil
		}
	}
	m := driver.Memory{Source: source, Topic: topic}
	err := b.s.query(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(nullTime{&m.JoinedAt}, nullTime{&m.ForgotBefore}) },
		"memory", consumer, source, topic)
	r.Memory = append(r.Memory, m)
	return err
}

func scanRow(rows *sql.Rows) (r driver.Row, err error) {
	err = rows.Scan(nullID{&r.ID}, &r.Source, &r.Topic, &r.Key, nullID{&r.Job}, &r.Type, &r.Position, nullID{&r.Prev.ID},
		nullInt{&r.Prev.Position}, nullTime{&r.Prev.RecordedAt}, nullTime{&r.RecordedAt}, nullTime{&r.SentAt}, &r.State, &r.Reason,
		nullTime{&r.NextAt}, &r.Failures, &r.Started, &r.LastError, &r.Body, nullTime{&r.ReceivedAt})
	return r, err
}

func scanCursor(rows *sql.Rows) (c driver.Cursor, err error) {
	err = rows.Scan(&c.Source, &c.Topic, &c.Key, nullID{&c.Job}, &c.Begun, &c.Began, nullID{&c.Last.ID}, &c.Last.Position,
		nullTime{&c.Last.RecordedAt}, nullID{&c.Overflow.ID}, nullInt{&c.Overflow.Position}, nullTime{&c.Overflow.RecordedAt},
		nullTime{&c.MovedAt})
	return c, err
}

// Save implements driver.Inbox.
func (b inbox) Save(ctx context.Context, tx *sql.Tx, s driver.Save) error {
	now, err := b.s.clock(ctx, tx)
	if err != nil {
		return err
	}
	if err := b.saveRows(ctx, tx, s.Consumer, s.Rows, now.UnixMicro()); err != nil {
		return err
	}
	cursors := make([][]any, len(s.Cursors))
	for i := range s.Cursors {
		c := &s.Cursors[i]
		cursors[i] = []any{s.Consumer, c.Source, c.Topic, c.Key, c.Job[:], c.Begun, c.Began, idOrNull(c.Last.ID), c.Last.Position,
			micros(c.Last.RecordedAt), idOrNull(c.Overflow.ID), positionOrNull(c.Overflow.Position), micros(c.Overflow.RecordedAt),
			now.UnixMicro()}
	}
	if err := b.s.execRows(ctx, tx, "save cursors", cursors); err != nil {
		return fmt.Errorf("save cursors: %w", err)
	}
	return nil
}

func (b inbox) saveRows(ctx context.Context, tx *sql.Tx, consumer string, rows []driver.Row, now int64) error {
	var saved [][]any
	var gone [][3]string
	for i := range rows {
		r := &rows[i]
		if r.State == driver.Gone {
			gone = append(gone, [3]string{hex.EncodeToString(r.ID[:]), hexText(r.Source), hex.EncodeToString(r.Job[:])})
			continue
		}
		saved = append(saved, []any{consumer, r.Source, r.ID[:], r.Job[:], r.Topic, r.Key, r.Type, r.Position, idOrNull(r.Prev.ID),
			positionOrNull(r.Prev.Position), micros(r.Prev.RecordedAt), r.RecordedAt.UnixMicro(), r.SentAt.UnixMicro(),
			now, int(r.State), r.Reason, micros(r.NextAt), r.Failures, r.Started, r.LastError, r.Body})
	}
	if err := b.s.execRows(ctx, tx, "save rows", saved); err != nil {
		return fmt.Errorf("save rows: %w", err)
	}
	if len(gone) > 0 {
		if _, err := b.s.exec(ctx, tx, "delete rows", consumer, jsonText(gone)); err != nil {
			return fmt.Errorf("delete rows: %w", err)
		}
	}
	return nil
}

// Due implements driver.Inbox. Whether anything is due is asked outside of a transaction, which would take the write lock
// of a database that has one.
func (b inbox) Due(ctx context.Context, sel driver.InboxSelection) (taken []driver.Row, err error) {
	var rows []driver.Row
	ask := func(tx *sql.Tx, now time.Time, how string) error {
		rows = nil
		scan := func(r *sql.Rows) error {
			row, err := scanRow(r)
			rows = append(rows, row)
			return err
		}
		if len(sel.IDs) > 0 {
			ids := hexIDs(sel.IDs, func(id *uuid.UUID) uuid.UUID { return *id })
			return b.s.query(ctx, tx, scan, how+"due by id", sel.Consumer, ids)
		}
		return b.s.query(ctx, tx, scan, how+"due", sel.Consumer, now.UnixMicro(), sel.Limit)
	}
	now, err := b.s.clock(ctx, nil)
	if err == nil {
		err = ask(nil, now, "")
	}
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	err = b.s.write(ctx, func(tx *sql.Tx) error {
		now, err := b.s.clock(ctx, tx)
		if err == nil {
			err = ask(tx, now, "take ")
		}
		if err != nil || len(rows) == 0 {
			return err
		}
		taken = sel.Decide(now, rows)
		return b.saveRows(ctx, tx, sel.Consumer, taken, now.UnixMicro())
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}
