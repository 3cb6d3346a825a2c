package pabalsql

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Open implements driver.Store.
func (s *Store) Open(ctx context.Context, source string) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	_, err = meet(ctx, tx)
	_ = tx.Rollback()
	if err == nil {
		err = s.checkSettings(ctx)
	}
	if err != nil {
		return err
	}
	version, stored := 0, ""
	err = s.query(ctx, nil, func(r *sql.Rows) error {
		var ignored any
		return r.Scan(&version, &stored, &ignored, &ignored)
	}, "meta")
	switch {
	case err != nil:
		return err
	case version < schemaVersion:
		return fmt.Errorf("%w: tables %s* are of version %d, this program speaks %d: run `pabal migrate`",
			driver.ErrSchema, s.prefix, version, schemaVersion)
	case version > schemaVersion+1: // a migration is one that programs of the version before live with: see internal/rolling
		return fmt.Errorf("%w: tables %s* are of version %d, this program speaks %d and lives with %d: run a newer release",
			driver.ErrSchema, s.prefix, version, schemaVersion, schemaVersion+1)
	case source == "" || source == stored:
		return nil
	case stored != "":
		return fmt.Errorf("%w: the store is of source %q, this client of %q", driver.ErrSource, stored, source)
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, "take source", source)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: another client gave it a name just now", driver.ErrSource)
		}
		return err
	})
}

// Inbox implements driver.Store.
func (s *Store) Inbox() driver.Inbox[*sql.Tx] { return inbox{s} }

// counter is the last event of a key.
type counter struct {
	topic, key string
	generation int
	last       driver.Ref
	floor      int64 // of the topic: positions up to it were given to counters that are forgotten
}

// counters are those of a call of Record, in (topic, key) order, zero where there were none; locked, so that nobody else
// moves them. The clock is of a moment after the locks.
type counters struct {
	list       []counter
	generation int
	now        time.Time
}

// Record implements driver.Store: at most five statements, without keys at most three (MariaDB: two). Events go before their pending
// rows: a caller who commits although Record failed must leave no pending row without its event, which would be published (P2).
func (s *Store) Record(ctx context.Context, tx *sql.Tx, r driver.Recording) error {
	c, err := meet(ctx, tx)
	if err != nil {
		return err
	}
	if !c.record(r.Outcome) {
		return driver.ErrNoTransaction
	}
	k, err := s.counters(ctx, tx, r.Events)
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	inserted := false
	if k.now.IsZero() { // no lock was waited for
		if k.now, inserted, err = s.insertNow(ctx, tx, r.Events, len(k.list) > 0); err != nil {
			return fmt.Errorf("insert events: %w", err)
		}
	}
	for i := range r.Events {
		e := &r.Events[i]
		e.RecordedAt = k.now
		if e.Key != "" {
			find(k.list, e).next(e, k.generation)
		}
	}
	if !inserted {
		if err := s.insertEvents(ctx, tx, r.Events); err != nil {
			return fmt.Errorf("insert events: %w", err)
		}
	}
	return s.insertRest(ctx, tx, r, k.list)
}

// insertNow inserts events without key and answers their time, the clock of that statement. With keys, or a database that has no
// such statement, it only asks for the clock.
func (s *Store) insertNow(ctx context.Context, tx *sql.Tx, events []driver.Event, keyed bool) (now time.Time, inserted bool, err error) {
	text, err := s.statement("insert events now")
	if err != nil || text == "" || keyed {
		now, err = s.clock(ctx, tx)
		return now, false, err
	}
	rows := make([][]any, len(events))
	for i := range events {
		e := &events[i]
		rows[i] = []any{e.ID[:], e.Topic, e.Type, e.ContentType, e.Version, payload(e), e.Headers, e.Traceparent, e.Bare}
	}
	read := func(rows *sql.Rows) error { return rows.Scan(nullTime{&now}) }
	err = s.queryRows(ctx, tx, read, "insert events now", rows)
	if err == nil && now.IsZero() { // MySQL returns nothing from an insert
		err = s.query(ctx, tx, read, "recorded since", events[0].ID[:])
	}
	return now, true, err
}

func payload(e *driver.Event) []byte {
	if e.Payload == nil {
		return []byte{} // the column is not null
	}
	return e.Payload
}

// next gives an event its position and moves the counter.
func (c *counter) next(e *driver.Event, generation int) {
	e.Prev = c.last
	if !c.last.IsZero() && c.generation == generation {
		e.Position = c.last.Position + 1
	} else { // a new run; + 2: not to be taken for the old one
		e.Position = max(e.RecordedAt.UnixMilli(), c.floor+1, c.last.Position+2)
	}
	c.generation, c.last = generation, e.Ref()
}

func find(counters []counter, e *driver.Event) *counter {
	i, _ := slices.BinarySearchFunc(counters, e, func(c counter, e *driver.Event) int {
		return cmp.Or(strings.Compare(c.topic, e.Topic), strings.Compare(c.key, e.Key))
	})
	return &counters[i]
}

func (s *Store) counters(ctx context.Context, tx *sql.Tx, events []driver.Event) (k counters, err error) {
	for i := range events {
		if e := &events[i]; e.Key != "" {
			k.list = append(k.list, counter{topic: e.Topic, key: e.Key})
		}
	}
	slices.SortFunc(k.list, func(a, b counter) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), strings.Compare(a.key, b.key))
	})
	k.list = slices.Compact(k.list)
	names := make([][]any, len(k.list))
	for i, c := range k.list {
		names[i] = []any{c.topic, c.key}
	}
	if err := s.execRows(ctx, tx, "lock counters", names); err != nil {
		return k, err
	}
	err = s.queryRows(ctx, tx, func(r *sql.Rows) error {
		var topic, key string
		var of, position, floor int64
		var last driver.Ref
		err := r.Scan(nullTime{&k.now}, &k.generation, &topic, &key, nullInt{&of}, nullInt{&position}, nullID{&last.ID},
			nullTime{&last.RecordedAt}, nullInt{&floor})
		last.Position = position
		c := find(k.list, &driver.Event{Topic: topic, Key: key})
		c.generation, c.floor = int(of), floor
		if !last.IsZero() {
			c.last = last
		}
		return err
	}, "counters", names)
	return k, err
}

func (s *Store) insertEvents(ctx context.Context, tx *sql.Tx, events []driver.Event) error {
	rows := make([][]any, len(events))
	for i := range events {
		e := &events[i]
		rows[i] = []any{e.ID[:], e.Topic, e.Type, e.Key, e.ContentType, e.Version, payload(e), e.Headers, e.Traceparent,
			e.RecordedAt.UnixMicro(), e.Position, idOrNull(e.Prev.ID), positionOrNull(e.Prev.Position), micros(e.Prev.RecordedAt), e.Bare}
	}
	return s.execRows(ctx, tx, "insert events", rows)
}

func (s *Store) insertRest(ctx context.Context, tx *sql.Tx, r driver.Recording, moved []counter) error {
	pending, counts := make([][]any, len(r.Events)), make([][]any, len(moved))
	for i := range r.Events {
		e := &r.Events[i]
		pending[i] = []any{e.ID[:], e.RecordedAt.UnixMicro(), e.Topic, e.RecordedAt.Add(r.Lease).UnixMicro()}
	}
	for i := range moved {
		c := &moved[i]
		counts[i] = []any{c.topic, c.key, c.generation, c.last.Position, c.last.ID[:], c.last.RecordedAt.UnixMicro()}
	}
	if err := s.execRows(ctx, tx, "insert pending", pending); err != nil {
		return fmt.Errorf("insert pending rows: %w", err)
	}
	if err := s.execRows(ctx, tx, "move counters", counts); err != nil {
		return fmt.Errorf("move counters: %w", err)
	}
	return nil
}

func positionOrNull(p int64) any {
	if p == 0 {
		return nil
	}
	return p
}

// jsonText encodes a list: statements with lists of any length have one text, and stay prepared. Text goes as [hexText],
// so that it is the same whatever the character set of the connection.
func jsonText(list any) string {
	b, _ := json.Marshal(list) // of strings and numbers: never fails
	return string(b)
}

func hexText(s string) string { return hex.EncodeToString([]byte(s)) }

// hexIDs is a JSON list of ids, to be read with unhex.
func hexIDs[R any](list []R, id func(*R) uuid.UUID) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, 35*len(list)+2)
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for _, c := range id(&list[i]) {
			b = append(b, digits[c>>4], digits[c&15])
		}
		b = append(b, '"')
	}
	return string(append(b, ']'))
}

// nullTime scans a time.
type nullTime struct{ t *time.Time }

func (n nullTime) Scan(v any) error {
	*n.t = time.Time{}
	switch v := v.(type) {
	case nil:
	case int64:
		*n.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a time is a %T", v)
	}
	return nil
}

// nullRef scans the three columns of a reference.
type nullID struct{ id *uuid.UUID }

func (n nullID) Scan(v any) error {
	*n.id = uuid.Nil
	switch v := v.(type) {
	case nil:
	case []byte:
		copy(n.id[:], v)
	default:
		return fmt.Errorf("an id is a %T", v)
	}
	return nil
}

type nullInt struct{ n *int64 }

func (n nullInt) Scan(v any) error {
	*n.n = 0
	switch v := v.(type) {
	case nil:
	case int64:
		*n.n = v
	default:
		return fmt.Errorf("a number is a %T", v)
	}
	return nil
}
