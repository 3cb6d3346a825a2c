package pabalpgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
)

const (
	// An array in a subquery is one of whose length the planner knows nothing. Where it sees that there is one event, it
	// takes the plan for that for so much better than the general one that it plans anew for each statement.
	eventInput = `unnest((select $1::text[]::uuid[]), (select $2::text[]), (select $3::text[]), (select $4::text[]), (select $5::text[]),
			(select $6::text[]), (select $7::bytea[]), (select $8::bytea[]), (select $9::text[]),
			(select $10::boolean[]))
		with ordinality as e (id, topic, type, key, content_type, version, payload, headers, traceparent, bare, n)`
	lease = `$11::bigint * interval '1 microsecond'`

	// A counter moves by step, to a new run after a restore: + 1, not to be taken for the old one. What a row was before,
	// RETURNING does not tell before PostgreSQL 18: the counter keeps its former last event in columns of its own. The clock is
	// asked once more when a counter's lock is there, so that recorded_at follows the order of a key.
	moveCounter = `on conflict (topic, key) do update set
				position = case when c.generation >= excluded.generation then c.position + excluded.step
					else greatest(excluded.position, c.position + 1 + excluded.step) end,
				generation = greatest(c.generation, excluded.generation), step = excluded.step,
				prev_id = c.last_id, prev_position = c.position, prev_at = c.last_at,
				last_id = excluded.last_id, last_at = clock_timestamp(), last_day = excluded.last_day`
	clockDay      = `(clock.now at time zone 'UTC')::date`
	firstPosition = `greatest(floor(extract(epoch from clock.now) * 1000)::bigint, coalesce(t.position_floor, 0) + 1)`

	// Nearly every transaction records one event. That costs the database half of what the statements for many do, whose
	// arrays, windows and joins are much more work than four small inserts.
	oneInput = `$2::text, $3::text, $4::text, $5::text, $6::text, $7::bytea, $8::bytea, $9::text, $10::boolean`

	// Events without key need nobody's lock.
	sqlRecordOneLoose = `with stored as (
			insert into {p}event (id, recorded_at, topic, type, key, content_type, version, payload, headers, traceparent, bare, position)
			values ($1::text::uuid, clock_timestamp(), ` + oneInput + `, 0)
			returning id, recorded_at, topic
		)
		insert into {p}pending (id, recorded_at, topic, due_at)
		select id, recorded_at, topic, recorded_at + ` + lease + ` from stored
		returning id, recorded_at, 0::bigint, null::uuid, null::bigint, null::timestamptz`

	sqlRecordOne = `with moved as (
			insert into {p}counter as c (topic, key, generation, step, position, last_id, last_at, last_day)
			select $2::text, $4::text, m.generation, 1, ` + firstPosition + `, $1::text::uuid, clock.now, ` + clockDay + `
			from (select clock_timestamp() as now offset 0) clock cross join {p}meta m left join {p}topic t on t.name = $2::text
			` + moveCounter + `
			returning c.last_at, c.position, c.prev_id, c.prev_position, c.prev_at
		), stored as (
			insert into {p}event (id, recorded_at, topic, type, key, content_type, version, payload, headers, traceparent, bare,
				position, prev_id, prev_position, prev_at)
			select $1::text::uuid, last_at, ` + oneInput + `, position, prev_id, prev_position, prev_at from moved
			returning id, recorded_at, topic, position, prev_id, prev_position, prev_at
		), waiting as (
			insert into {p}pending (id, recorded_at, topic, due_at)
			select id, recorded_at, topic, recorded_at + ` + lease + ` from stored
		)
		select id, recorded_at, position, prev_id, prev_position, prev_at from stored`

	sqlRecordLoose = `with stored as (
			insert into {p}event (id, recorded_at, topic, type, key, content_type, version, payload, headers, traceparent, bare, position)
			select e.id, clock_timestamp(), e.topic, e.type, '', e.content_type, e.version, e.payload, e.headers, e.traceparent, e.bare, 0
			from ` + eventInput + `
			returning id, recorded_at, topic
		)
		insert into {p}pending (id, recorded_at, topic, due_at)
		select id, recorded_at, topic, recorded_at + ` + lease + ` from stored
		returning id, recorded_at, 0::bigint, null::uuid, null::bigint, null::timestamptz`

	// The counters are inserted, or locked and moved, in (topic, key) order.
	sqlRecord = `with clock as materialized (select clock_timestamp() as now),
		input as materialized (
			select e.*, row_number() over key_order as rank, lag(e.id) over key_order as before_id,
				lead(e.n) over key_order is null as last
			from ` + eventInput + `
			window key_order as (partition by e.topic, e.key order by e.n)
		), moved as (
			insert into {p}counter as c (topic, key, generation, step, position, last_id, last_at, last_day)
			select i.topic, i.key, m.generation, i.rank, ` + firstPosition + ` + i.rank - 1, i.id, clock.now, ` + clockDay + `
			from input i cross join clock cross join {p}meta m left join {p}topic t on t.name = i.topic
			where i.key <> '' and i.last
			order by i.topic collate "C", i.key collate "C"
			` + moveCounter + `
			returning c.topic, c.key, c.position - c.step as base, c.prev_id, c.prev_position, c.prev_at, c.last_at
		), stored as (
			insert into {p}event (id, recorded_at, topic, type, key, content_type, version, payload, headers, traceparent,
				bare, position, prev_id, prev_position, prev_at)
			select i.id, coalesce(m.last_at, clock.now), i.topic, i.type, i.key, i.content_type, i.version, i.payload, i.headers,
				i.traceparent, i.bare, coalesce(m.base + i.rank, 0),
				case when i.rank = 1 then m.prev_id when m.base is not null then i.before_id end,
				case when i.rank = 1 then m.prev_position else m.base + i.rank - 1 end,
				case when i.rank = 1 then m.prev_at else m.last_at end
			from input i cross join clock left join moved m on m.topic = i.topic and m.key = i.key
			returning id, recorded_at, topic, position, prev_id, prev_position, prev_at
		), waiting as (
			insert into {p}pending (id, recorded_at, topic, due_at)
			select id, recorded_at, topic, recorded_at + ` + lease + ` from stored
		)
		select id, recorded_at, position, prev_id, prev_position, prev_at from stored`
)

// Record implements driver.Store: one statement.
func (s *Store) Record(ctx context.Context, tx pgx.Tx, r driver.Recording) error {
	if tx == nil {
		return driver.ErrNoTransaction
	}
	if last, ok := tx.(*lastWords); ok {
		return s.recordAndCommit(ctx, last, r)
	}
	return s.record(ctx, session{b: &s.base, pgx: tx}, r)
}

// Record implements driver.Store: one statement.
func (s *SQLStore) Record(ctx context.Context, tx *sql.Tx, r driver.Recording) error {
	if tx == nil {
		return driver.ErrNoTransaction
	}
	return s.record(ctx, session{b: &s.base, sql: tx}, r)
}

func (b *base) record(ctx context.Context, s session, r driver.Recording) error {
	m := &meeting{then: func(w *watch) error { return w.record(r.Outcome) }}
	query, args := recording(r, m)
	err := s.query(ctx, newAnswers(r.Events).scan, query, args...)
	if err != nil {
		return m.refused(ctx, err)
	}
	return nil
}

// recording is the statement of a Recording; m meets its connection.
func recording(r driver.Recording, m *meeting) (query string, args []any) {
	n := len(r.Events)
	if n == 1 {
		e := &r.Events[0]
		if query = sqlRecordOne; e.Key == "" {
			query = sqlRecordOneLoose
		}
		return query, []any{m, e.ID.String(), e.Topic, e.Type, e.Key, e.ContentType, e.Version, payloadOf(e), e.Headers, e.Traceparent,
			e.Bare, r.Lease.Microseconds()}
	}
	topics, types, keys := make([]string, n), make([]string, n), make([]string, n)
	contents, versions, traces := make([]string, n), make([]string, n), make([]string, n)
	payloads, headers, bare := make([][]byte, n), make([][]byte, n), make([]bool, n)
	query = sqlRecordLoose
	for i := range r.Events {
		e := &r.Events[i]
		topics[i], types[i], keys[i], contents[i], versions[i], traces[i] = e.Topic, e.Type, e.Key, e.ContentType, e.Version, e.Traceparent
		payloads[i], headers[i], bare[i] = payloadOf(e), e.Headers, e.Bare
		if e.Key != "" {
			query = sqlRecord
		}
	}
	return query, []any{
		m, ids(r.Events, func(e *driver.Event) uuid.UUID { return e.ID }), topics, types, keys, contents, versions, payloads, headers, traces,
		bare, r.Lease.Microseconds(),
	}
}

// payloadOf is never null.
func payloadOf(e *driver.Event) []byte {
	if e.Payload == nil {
		return []byte{}
	}
	return e.Payload
}

// answers fills in what the database says of recorded events.
type answers struct {
	events []driver.Event
	index  map[uuid.UUID]int // of more than one
}

func newAnswers(events []driver.Event) *answers {
	a := &answers{events: events}
	if len(events) > 1 {
		a.index = make(map[uuid.UUID]int, len(events))
		for i := range events {
			a.index[events[i].ID] = i
		}
	}
	return a
}

func (a *answers) scan(row scanner) error {
	var id uuid.UUID
	var e driver.Event
	err := row.Scan(nullID{&id}, nullTime{&e.RecordedAt}, &e.Position, nullID{&e.Prev.ID}, nullInt{&e.Prev.Position},
		nullTime{&e.Prev.RecordedAt})
	if err != nil {
		return err
	}
	i := a.index[id]
	if a.events[i].ID != id {
		return fmt.Errorf("event %s was not asked for", id)
	}
	to := &a.events[i]
	to.RecordedAt, to.Position, to.Prev = e.RecordedAt, e.Position, e.Prev
	return nil
}

var errNotCommitted = errors.New("the database rolled back instead of committing")
