package pabalsql

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
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
		nullTime{&e.RecordedAt}, &e.Position, nullID{&e.Prev.ID}, nullInt{&e.Prev.Position}, nullTime{&e.Prev.RecordedAt}, &e.Bare, &e.Skipped,
		nullTime{&e.PublishedAt}}
}

// Claim implements driver.Store.
func (s *Store) Claim(ctx context.Context, sel driver.Selection) (claimed []driver.Claimed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		now, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
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
		return rows, s.query(ctx, tx, scan, "take by id", hexIDs(sel.IDs, func(r *driver.Ref) uuid.UUID { return r.ID }))
	}
	if sel.Probe > 0 {
		if _, err := s.exec(ctx, tx, "add topic", sel.Topic); err != nil {
			return nil, err
		}
		n, err := s.exec(ctx, tx, "probe", now.UnixMicro(), sel.Topic, now.Add(-sel.Probe).UnixMicro())
		if err != nil || n == 0 {
			return nil, err
		}
	}
	after := int64(0)
	if !sel.After.IsZero() {
		after = sel.After.UnixMicro()
	}
	if !sel.Accepted {
		return rows, s.query(ctx, tx, scan, "take fresh", sel.Topic, after, now.UnixMicro(), sel.Limit)
	}
	before := farFuture
	if !sel.AcceptedBefore.IsZero() {
		before = sel.AcceptedBefore.UnixMicro()
	}
	return rows, s.query(ctx, tx, scan, "take accepted", sel.Topic, after, now.UnixMicro(), before, sel.Limit)
}

// decide writes decisions back and joins their events.
func (s *Store) decide(ctx context.Context, tx *sql.Tx, decisions []driver.Decision) ([]driver.Claimed, error) {
	if len(decisions) == 0 {
		return nil, nil
	}
	claimed := make([]driver.Claimed, len(decisions))
	index := make(map[uuid.UUID]int, len(decisions))
	var skipped []driver.Decision
	list := make([][8]any, len(decisions))
	for i := range decisions {
		d := &decisions[i]
		claimed[i].Pending, index[d.ID] = d.Pending, i
		if d.Skip {
			skipped = append(skipped, *d)
		}
		list[i] = [8]any{hex.EncodeToString(d.ID[:]), micros(d.DueAt), d.Claims, d.Crashes, d.Failures, micros(d.AcceptedAt),
			micros(d.SentAt), hexText(d.LastError)}
	}
	if _, err := s.exec(ctx, tx, "write decisions", jsonText(list)); err != nil {
		return nil, fmt.Errorf("write decisions: %w", err)
	}
	id := func(d *driver.Decision) uuid.UUID { return d.ID }
	if len(skipped) > 0 {
		if _, err := s.exec(ctx, tx, "skip events", hexIDs(skipped, id)); err != nil {
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
	}, "events by id", hexIDs(decisions, id))
	return claimed, err
}

// Settle implements driver.Store: two statements and the clock.
func (s *Store) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	if len(verdicts) == 0 {
		return nil
	}
	list := make([][6]any, len(verdicts))
	for i, v := range verdicts {
		list[i] = [6]any{hex.EncodeToString(v.ID[:]), v.Claims, oneIf(v.Accepted), oneIf(v.Park), v.Delay.Microseconds(), hexText(v.Error)}
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		now, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		free, err := s.lockPending(ctx, tx, verdicts, list)
		if err != nil || len(free) == 0 {
			return err
		}
		_, err = s.exec(ctx, tx, "settle", now.UnixMicro(), jsonText(free))
		return err
	})
}

// lockPending locks the pending rows of verdicts, and leaves out of the list those that others hold locked. Where the
// database has one writer, there are none.
func (s *Store) lockPending(ctx context.Context, tx *sql.Tx, verdicts []driver.Settlement, list [][6]any) (free [][6]any, err error) {
	if text, err := s.statement("lock pending"); err != nil || text == "" {
		return list, err
	}
	locked := make(map[uuid.UUID]bool, len(verdicts))
	err = s.query(ctx, tx, func(r *sql.Rows) error {
		var id uuid.UUID
		err := r.Scan(nullID{&id})
		locked[id] = true
		return err
	}, "lock pending", hexIDs(verdicts, func(v *driver.Settlement) uuid.UUID { return v.ID }))
	for i := range verdicts {
		if locked[verdicts[i].ID] {
			free = append(free, list[i])
		}
	}
	return free, err
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Confirm implements driver.Store: four statements, of which two write, and the clock. Rows are locked in the order of their
// ids, whatever the order of the events: two confirmers do not deadlock.
func (s *Store) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	if len(events) == 0 {
		return nil, nil
	}
	sorted := slices.Clone(events)
	slices.SortFunc(sorted, func(a, b driver.Ref) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	ids := hexIDs(sorted, func(r *driver.Ref) uuid.UUID { return r.ID })
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
		if err := s.query(ctx, tx, note(driver.Known), "which recorded", ids); err != nil {
			return err
		}
		known := len(found)
		if err := s.query(ctx, tx, note(driver.Confirmed), "which pending", ids); err != nil || known == 0 {
			return err
		}
		n, err := s.exec(ctx, tx, "delete pending", ids)
		if err != nil || n == 0 {
			return err
		}
		now, err := s.clock(ctx, tx)
		if err == nil {
			_, err = s.exec(ctx, tx, "published", now.UnixMicro(), ids)
		}
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
