package pabalsql

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	pendingColumns = `p.id, p.recorded_at, p.topic, p.due_at, p.claims, p.crashes, p.failures, p.accepted_at, p.sent_at, p.last_error`
	eventColumns   = `e.id, e.topic, e.type, e.key, e.content_type, e.version, e.payload, e.headers, e.traceparent, e.recorded_at,
		e.position, e.prev_id, e.prev_position, e.prev_at, e.skipped, e.published_at`

	sqlPendingByID = `select ` + pendingColumns + ` from {p}pending p where p.id in (select unhex(value) from json_each(?))`
	sqlDueFresh    = `select ` + pendingColumns + ` from {p}pending p
		where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at is null order by p.due_at limit ?`
	sqlDueAccepted = `select ` + pendingColumns + ` from {p}pending p
		where p.topic = ? and p.due_at >= ? and p.due_at <= ? and p.accepted_at < ? order by p.due_at limit ?`
	sqlProbe = `insert into {p}topic (name, probed_at) values (?1, ?2)
		on conflict (name) do update set probed_at = excluded.probed_at where probed_at is null or probed_at <= ?3`
	sqlUpdatePending = `update {p}pending set due_at = ?, claims = ?, crashes = ?, failures = ?, accepted_at = ?, sent_at = ?,
		last_error = ? where id = ?`
	sqlSkipEvents = `update {p}event set skipped = 1 where id in (select unhex(value) from json_each(?))`
	sqlEventsByID = `select ` + eventColumns + ` from {p}event e where e.id in (select unhex(value) from json_each(?))`

	sqlSettle = `update {p}pending set crashes = 0,
			due_at = case when v.park then null else ?1 + v.delay end,
			accepted_at = case when v.accepted then ?1 else accepted_at end,
			last_error = case when v.error <> '' then v.error else last_error end
		from (select unhex(value ->> 0) as id, value ->> 1 as claims, value ->> 2 as accepted, value ->> 3 as park,
			value ->> 4 as delay, value ->> 5 as error from json_each(?2)) v
		where {p}pending.id = v.id and {p}pending.claims = v.claims`

	sqlWhichPending  = `select id from {p}pending where id in (select unhex(value) from json_each(?))`
	sqlWhichRecorded = `select id from {p}event where id in (select unhex(value) from json_each(?))`
	sqlDeletePending = `delete from {p}pending where id in (select unhex(value) from json_each(?))`
	sqlPublished     = `update {p}event set published_at = ? where id in (select unhex(value) from json_each(?)) and published_at is null`
)

// farFuture stands for "whenever".
const farFuture = int64(1) << 62

func scanPending(r *sql.Rows, more ...any) (p driver.Pending, err error) {
	err = r.Scan(append([]any{nullID{&p.ID}, nullTime{&p.RecordedAt}, &p.Topic, nullTime{&p.DueAt}, &p.Claims, &p.Crashes, &p.Failures,
		nullTime{&p.AcceptedAt}, nullTime{&p.SentAt}, &p.LastError}, more...)...)
	return p, err
}

func eventFields(e *driver.Event) []any {
	return []any{nullID{&e.ID}, &e.Topic, &e.Type, &e.Key, &e.ContentType, &e.Version, &e.Payload, &e.Headers, &e.Traceparent,
		nullTime{&e.RecordedAt}, &e.Position, nullID{&e.Prev.ID}, nullInt{&e.Prev.Position}, nullTime{&e.Prev.RecordedAt}, &e.Skipped,
		nullTime{&e.PublishedAt}}
}

// Claim implements driver.Store.
func (s *Store) Claim(ctx context.Context, sel driver.Selection) (claimed []driver.Claimed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		now := s.dialect.clock()
		rows, err := s.selectPending(ctx, tx, &sel, now)
		if err != nil || len(rows) == 0 {
			return err
		}
		claimed, err = s.decide(ctx, tx, sel.Decide(now, rows))
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func (s *Store) selectPending(ctx context.Context, tx *sql.Tx, sel *driver.Selection, now time.Time) (rows []driver.Pending, err error) {
	scan := func(r *sql.Rows) error {
		p, err := scanPending(r)
		rows = append(rows, p)
		return err
	}
	if len(sel.IDs) > 0 {
		return rows, s.query(ctx, tx, scan, sqlPendingByID, hexIDs(sel.IDs, func(r *driver.Ref) uuid.UUID { return r.ID }))
	}
	if sel.Probe > 0 {
		n, err := s.exec(ctx, tx, sqlProbe, sel.Topic, now.UnixMicro(), now.Add(-sel.Probe).UnixMicro())
		if err != nil || n == 0 {
			return nil, err
		}
	}
	after := int64(0)
	if !sel.After.IsZero() {
		after = sel.After.UnixMicro()
	}
	if !sel.Accepted {
		return rows, s.query(ctx, tx, scan, sqlDueFresh, sel.Topic, after, now.UnixMicro(), sel.Limit)
	}
	before := farFuture
	if !sel.AcceptedBefore.IsZero() {
		before = sel.AcceptedBefore.UnixMicro()
	}
	return rows, s.query(ctx, tx, scan, sqlDueAccepted, sel.Topic, after, now.UnixMicro(), before, sel.Limit)
}

// decide writes decisions back and joins their events.
func (s *Store) decide(ctx context.Context, tx *sql.Tx, decisions []driver.Decision) ([]driver.Claimed, error) {
	if len(decisions) == 0 {
		return nil, nil
	}
	claimed := make([]driver.Claimed, len(decisions))
	index := make(map[uuid.UUID]int, len(decisions))
	var skipped []driver.Decision
	for i := range decisions {
		d := &decisions[i]
		claimed[i].Pending, index[d.ID] = d.Pending, i
		if d.Skip {
			skipped = append(skipped, *d)
		}
		_, err := s.exec(ctx, tx, sqlUpdatePending, micros(d.DueAt), d.Claims, d.Crashes, d.Failures, micros(d.AcceptedAt),
			micros(d.SentAt), d.LastError, d.ID[:])
		if err != nil {
			return nil, fmt.Errorf("write decision: %w", err)
		}
	}
	id := func(d *driver.Decision) uuid.UUID { return d.ID }
	if len(skipped) > 0 {
		if _, err := s.exec(ctx, tx, sqlSkipEvents, hexIDs(skipped, id)); err != nil {
			return nil, fmt.Errorf("mark skips: %w", err)
		}
	}
	err := s.query(ctx, tx, func(r *sql.Rows) error {
		var e driver.Event
		if err := r.Scan(eventFields(&e)...); err != nil {
			return err
		}
		claimed[index[e.ID]].Event = e
		return nil
	}, sqlEventsByID, hexIDs(decisions, id))
	return claimed, err
}

// Settle implements driver.Store: one statement.
func (s *Store) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	if len(verdicts) == 0 {
		return nil
	}
	list := make([][6]any, len(verdicts))
	for i, v := range verdicts {
		list[i] = [6]any{hex.EncodeToString(v.ID[:]), v.Claims, oneIf(v.Accepted), oneIf(v.Park), v.Delay.Microseconds(), v.Error}
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := s.exec(ctx, tx, sqlSettle, s.dialect.clock().UnixMicro(), jsonText(list))
		return err
	})
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Confirm implements driver.Store: four statements, of which two write.
func (s *Store) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	if len(events) == 0 {
		return nil, nil
	}
	ids := hexIDs(events, func(r *driver.Ref) uuid.UUID { return r.ID })
	found := make(map[uuid.UUID]driver.Confirmation, len(events))
	err := s.write(ctx, func(tx *sql.Tx) error {
		note := func(answer driver.Confirmation) func(*sql.Rows) error {
			return func(r *sql.Rows) error {
				var id uuid.UUID
				err := r.Scan(nullID{&id})
				found[id] = answer
				return err
			}
		}
		if err := s.query(ctx, tx, note(driver.Known), sqlWhichRecorded, ids); err != nil {
			return err
		}
		known := len(found)
		if err := s.query(ctx, tx, note(driver.Confirmed), sqlWhichPending, ids); err != nil || known == 0 {
			return err
		}
		n, err := s.exec(ctx, tx, sqlDeletePending, ids)
		if err != nil || n == 0 {
			return err
		}
		_, err = s.exec(ctx, tx, sqlPublished, s.dialect.clock().UnixMicro(), ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	answers := make([]driver.Confirmation, len(events))
	for i, ref := range events {
		if answers[i] = found[ref.ID]; answers[i] == driver.Confirmed {
			found[ref.ID] = driver.Known // a second copy in the batch
		}
	}
	return answers, nil
}
