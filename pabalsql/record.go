package pabalsql

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	sqlMeta = `select version, source, generation from {p}meta where id = 1`

	// The caller's transaction holds the database's write lock: nobody else moves these counters.
	sqlCounters = `select m.generation, c.topic, c.key, c.generation, c.position, c.last_id, c.last_at
		from {p}meta m
		left join json_each(?) j on true
		left join {p}counter c on c.topic = j.value ->> 0 and c.key = j.value ->> 1`
	sqlFloors      = `select name, position_floor from {p}topic where name in (select value from json_each(?))`
	sqlInsertEvent = `insert into {p}event (id, topic, type, key, content_type, version, payload, headers, traceparent, recorded_at,
		position, prev_id, prev_position, prev_at) values `
	rowEvent         = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	sqlInsertPending = `insert into {p}pending (id, recorded_at, topic, due_at) values `
	rowPending       = `(?, ?, ?, ?)`
	sqlInsertCounter = `insert into {p}counter (topic, key, generation, position, last_id, last_at) values `
	rowCounter       = `(?, ?, ?, ?, ?, ?)`
	onConflictCount  = ` on conflict (topic, key) do update set generation = excluded.generation,
		position = excluded.position, last_id = excluded.last_id, last_at = excluded.last_at`
)

// Open implements driver.Store.
func (s *Store) Open(ctx context.Context, source string) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	_, err = meet(ctx, tx)
	_ = tx.Rollback()
	if err != nil {
		return err
	}
	version, stored := 0, ""
	err = s.query(ctx, nil, func(r *sql.Rows) error {
		var generation int
		return r.Scan(&version, &stored, &generation)
	}, sqlMeta)
	switch {
	case err != nil:
		return err
	case version != schemaVersion:
		return fmt.Errorf("%w: tables %s* are of version %d, this program speaks %d: run `pabal migrate` of the newer release",
			driver.ErrSchema, s.prefix, version, schemaVersion)
	case source == "" || source == stored:
		return nil
	case stored != "":
		return fmt.Errorf("%w: the store is of source %q, this client of %q", driver.ErrSource, stored, source)
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		n, err := s.exec(ctx, tx, `update {p}meta set source = ? where id = 1 and source = ''`, source)
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
}

// Record implements driver.Store: at most five statements.
func (s *Store) Record(ctx context.Context, tx *sql.Tx, r driver.Recording) error {
	c, err := meet(ctx, tx)
	if err != nil {
		return err
	}
	if !c.record(r.Outcome) {
		return driver.ErrNoTransaction
	}
	now := s.dialect.clock()
	counters, generation, err := s.counters(ctx, tx, r.Events)
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	floors, err := s.floors(ctx, tx, counters)
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	for i := range r.Events {
		e := &r.Events[i]
		e.RecordedAt = now
		if e.Key != "" {
			find(counters, e).next(e, generation, floors[e.Topic])
		}
	}
	return s.insert(ctx, tx, r, counters)
}

// next gives an event its position and moves the counter.
func (c *counter) next(e *driver.Event, generation int, floor int64) {
	e.Prev = c.last
	if !c.last.IsZero() && c.generation == generation {
		e.Position = c.last.Position + 1
	} else { // a new run; + 2: not to be taken for the old one
		e.Position = max(e.RecordedAt.UnixMilli(), floor+1, c.last.Position+2)
	}
	c.generation, c.last = generation, e.Ref()
}

func find(counters []counter, e *driver.Event) *counter {
	i, _ := slices.BinarySearchFunc(counters, e, func(c counter, e *driver.Event) int {
		return cmp.Or(strings.Compare(c.topic, e.Topic), strings.Compare(c.key, e.Key))
	})
	return &counters[i]
}

// counters reads the counters of the events' keys, in (topic, key) order, zero where there are none.
func (s *Store) counters(ctx context.Context, tx *sql.Tx, events []driver.Event) (counters []counter, generation int, err error) {
	for i := range events {
		if e := &events[i]; e.Key != "" {
			counters = append(counters, counter{topic: e.Topic, key: e.Key})
		}
	}
	if len(counters) == 0 {
		return nil, 0, nil
	}
	slices.SortFunc(counters, func(a, b counter) int {
		return cmp.Or(strings.Compare(a.topic, b.topic), strings.Compare(a.key, b.key))
	})
	counters = slices.Compact(counters)
	names := make([][2]string, len(counters))
	for i, c := range counters {
		names[i] = [2]string{c.topic, c.key}
	}
	err = s.query(ctx, tx, func(r *sql.Rows) error {
		var topic, key sql.NullString
		var of, position, at sql.NullInt64
		var id []byte
		if err := r.Scan(&generation, &topic, &key, &of, &position, &id, &at); err != nil || !topic.Valid {
			return err
		}
		c := find(counters, &driver.Event{Topic: topic.String, Key: key.String})
		c.generation, c.last = int(of.Int64), driver.Ref{ID: idOf(id), Position: position.Int64, RecordedAt: timeOf(at)}
		return nil
	}, sqlCounters, jsonText(names))
	return counters, generation, err
}

// floors reads the position floors of topics with new counters.
func (s *Store) floors(ctx context.Context, tx *sql.Tx, counters []counter) (map[string]int64, error) {
	var names []string
	for i := range counters {
		if counters[i].last.IsZero() && !slices.Contains(names, counters[i].topic) {
			names = append(names, counters[i].topic)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	floors := map[string]int64{}
	err := s.query(ctx, tx, func(r *sql.Rows) error {
		var name string
		var floor int64
		err := r.Scan(&name, &floor)
		floors[name] = floor
		return err
	}, sqlFloors, jsonText(names))
	return floors, err
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, r driver.Recording, counters []counter) error {
	due := r.Events[0].RecordedAt.Add(r.Lease).UnixMicro()
	var events, pending, counts []any
	for i := range r.Events {
		e := &r.Events[i]
		at := e.RecordedAt.UnixMicro()
		payload := e.Payload
		if payload == nil {
			payload = []byte{}
		}
		events = append(events, e.ID[:], e.Topic, e.Type, e.Key, e.ContentType, e.Version, payload, e.Headers, e.Traceparent,
			at, e.Position, idOrNull(e.Prev.ID), positionOrNull(e.Prev.Position), micros(e.Prev.RecordedAt))
		pending = append(pending, e.ID[:], at, e.Topic, due)
	}
	for i := range counters {
		c := &counters[i]
		counts = append(counts, c.topic, c.key, c.generation, c.last.Position, c.last.ID[:], c.last.RecordedAt.UnixMicro())
	}
	if err := s.insertRows(ctx, tx, sqlInsertEvent, rowEvent, "", events, len(r.Events)); err != nil {
		return fmt.Errorf("insert events: %w", err)
	}
	if err := s.insertRows(ctx, tx, sqlInsertPending, rowPending, "", pending, len(r.Events)); err != nil {
		return fmt.Errorf("insert pending rows: %w", err)
	}
	if err := s.insertRows(ctx, tx, sqlInsertCounter, rowCounter, onConflictCount, counts, len(counters)); err != nil {
		return fmt.Errorf("move counters: %w", err)
	}
	return nil
}

// insertRows inserts n rows in one statement; for a few rows it is kept prepared.
func (s *Store) insertRows(ctx context.Context, tx *sql.Tx, into, row, onConflict string, args []any, n int) error {
	if n == 0 {
		return nil
	}
	query := into + row + strings.Repeat(", "+row, n-1) + onConflict
	if n <= 8 {
		_, err := s.exec(ctx, tx, query, args...)
		return err
	}
	_, err := tx.ExecContext(ctx, s.text(query), args...)
	return s.explain(err)
}

func positionOrNull(p int64) any {
	if p == 0 {
		return nil
	}
	return p
}

// jsonText encodes a list for json_each: statements with lists of any length have one text, and stay prepared.
func jsonText(list any) string {
	b, _ := json.Marshal(list) // of strings and numbers: never fails
	return string(b)
}

// hexIDs is a JSON list of ids, to be read with unhex(value).
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
