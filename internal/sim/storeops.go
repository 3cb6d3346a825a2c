package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Store is one process's pool of connections to a Database. It implements driver.Store, and driver.Inbox through Inbox.
type Store struct {
	d         *Database
	w         world.World
	link      Link
	unwatched bool
}

var _ driver.Store[*Tx] = (*Store)(nil)

// Connect opens a pool for a process that lives in w.
func (d *Database) Connect(w world.World, l Link) *Store { return &Store{d: d, w: w, link: l} }

// Unwatched returns a pool whose commits nobody sees.
func (s *Store) Unwatched() *Store { return &Store{d: s.d, w: s.w, link: s.link, unwatched: true} }

// World makes clients of the store live where the store's process does.
func (s *Store) World() world.World { return s.w }

// Begin opens a transaction.
func (s *Store) Begin(ctx context.Context) (*Tx, error) {
	t := &Tx{d: s.d, s: s, watched: !s.unwatched}
	t.see(driver.SawBegin)
	t.forget = s.link.OnDead(func() {
		t.d.mu.Lock()
		defer t.d.mu.Unlock()
		t.dead, t.done = true, true
		t.rollback()
	})
	err := t.statement(ctx, "begin", func() (world.Signal, error) {
		if s.d.o.SingleWriter {
			return t.lock(rowKey{table: tableWriter})
		}
		return nil, nil
	})
	if err != nil {
		t.drop()
		return nil, err
	}
	return t, nil
}

// atomic runs a transaction of one call.
func (s *Store) atomic(ctx context.Context, what string, note func() string, effect func() error) error {
	return s.link.Call(ctx, Call{What: what, Note: note}, func() error {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		if s.d.o.SingleWriter {
			if l := s.d.locks[rowKey{table: tableWriter}]; l != nil && l.owner != nil {
				return fmt.Errorf("%w: the database has one writer", errBusy)
			}
		}
		err := effect()
		s.d.endCommit()
		return err
	})
}

// Open implements driver.Store.
func (s *Store) Open(ctx context.Context, source string) error {
	if s.unwatched {
		return driver.ErrUnwatched
	}
	return s.link.Call(ctx, Call{What: "open"}, func() error {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		switch {
		case source == "" || s.d.source == source:
			return nil
		case s.d.source != "":
			return fmt.Errorf("%w: %s is stored, %s is given", driver.ErrSource, s.d.source, source)
		}
		s.d.source = source
		return nil
	})
}

func (s *Store) Inbox() driver.Inbox[*Tx] { return simInbox{s} }

func counterKey(topic, key string) rowKey {
	return rowKey{table: tableCounter, topic: topic, key: key}
}

// Record implements driver.Store.
func (s *Store) Record(ctx context.Context, t *Tx, r driver.Recording) error {
	if over, _ := t.over(); over {
		return driver.ErrNoTransaction
	}
	if !t.watched {
		return driver.ErrUnwatched
	}
	t.watchMu.Lock()
	open := t.watch.Recording(r.Outcome)
	t.watchMu.Unlock()
	if !open {
		return driver.ErrNoTransaction
	}
	var keys []rowKey
	for i := range r.Events {
		if e := &r.Events[i]; e.Key != "" {
			keys = append(keys, counterKey(e.Topic, e.Key))
		}
	}
	slices.SortFunc(keys, compareCounters)
	return t.statement(ctx, "record", func() (world.Signal, error) {
		if sig, err := t.lockAll(keys, compareCounters); err != nil {
			return sig, err
		}
		now := s.d.now()
		for i := range r.Events {
			e := &r.Events[i]
			e.RecordedAt = now
			if e.Key != "" {
				t.position(e)
			}
			row := *e
			row.Payload, row.Headers = slices.Clone(e.Payload), slices.Clone(e.Headers)
			t.put(rowKey{table: tableEvent, id: e.ID}, &eventRow{row})
			t.put(rowKey{table: tablePending, id: e.ID}, &driver.Pending{
				ID: e.ID, RecordedAt: now, Topic: e.Topic, DueAt: now.Add(r.Lease),
			})
		}
		return nil, nil
	})
}

func compareCounters(a, b rowKey) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.key, b.key))
}

func (t *Tx) position(e *driver.Event) {
	generation := t.d.generation()
	key := counterKey(e.Topic, e.Key)
	c := counterRow{generation: generation}
	old, known := t.get(key).(*counterRow)
	if known {
		c.last = old.last
		e.Prev = old.last
	}
	if known && old.generation == generation {
		e.Position = c.last.Position + 1
	} else {
		e.Position = max(e.RecordedAt.UnixMilli(), c.last.Position+2) // + 2: not mistaken for the same run
		if topic, ok := t.d.rows[rowKey{table: tableTopic, topic: e.Topic}].(*driver.Topic); ok {
			e.Position = max(e.Position, topic.PositionFloor+1)
		}
	}
	c.last = e.Ref()
	t.put(key, &c)
}

func (d *Database) generation() int {
	n, _ := d.rows[rowKey{table: tableMeta}].(int)
	return n
}

// Claim implements driver.Store.
func (s *Store) Claim(ctx context.Context, sel driver.Selection) (claimed []driver.Claimed, err error) {
	note := func() string { return fmt.Sprintf("%d of %s", len(claimed), sel.Topic) }
	err = s.atomic(ctx, "claim", note, func() error {
		claimed = nil
		now := s.d.now()
		rows := s.d.selectPending(sel, now)
		if len(rows) == 0 {
			return nil
		}
		for _, decision := range sel.Decide(now, rows) {
			p := decision.Pending
			s.d.set(rowKey{table: tablePending, id: p.ID}, &p)
			e := *s.d.rows[rowKey{table: tableEvent, id: p.ID}].(*eventRow)
			if decision.Skip {
				e.Skipped = true
				s.d.set(rowKey{table: tableEvent, id: p.ID}, &e)
			}
			claimed = append(claimed, driver.Claimed{Pending: p, Event: e.Event})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func (d *Database) selectPending(sel driver.Selection, now time.Time) (rows []driver.Pending) {
	for _, ref := range sel.IDs {
		if p, ok := d.rows[rowKey{table: tablePending, id: ref.ID}].(*driver.Pending); ok {
			rows = append(rows, *p)
		}
	}
	if len(sel.IDs) > 0 {
		return rows
	}
	if sel.Probe > 0 {
		topic := d.topic(sel.Topic)
		if !topic.ProbedAt.IsZero() && topic.ProbedAt.After(now.Add(-sel.Probe)) {
			return nil
		}
		topic.ProbedAt = now
		d.set(rowKey{table: tableTopic, topic: sel.Topic}, &topic)
	}
	t := d.pending[sel.Topic]
	if t == nil {
		return nil
	}
	for _, p := range t.rows {
		switch {
		case p.Parked() || p.DueAt.After(now) || p.DueAt.Before(sel.After):
		case sel.Accepted != !p.AcceptedAt.IsZero():
		case sel.Accepted && !sel.AcceptedBefore.IsZero() && !p.AcceptedAt.Before(sel.AcceptedBefore):
		default:
			rows = append(rows, *p)
		}
	}
	slices.SortFunc(rows, func(a, b driver.Pending) int {
		return cmp.Or(a.DueAt.Compare(b.DueAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	return rows[:min(len(rows), sel.Limit)]
}

func (d *Database) topic(name string) driver.Topic {
	if t, ok := d.rows[rowKey{table: tableTopic, topic: name}].(*driver.Topic); ok {
		return *t
	}
	return driver.Topic{Name: name}
}

// Settle implements driver.Store.
func (s *Store) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	note := func() string { return fmt.Sprintf("%d verdicts", len(verdicts)) }
	return s.atomic(ctx, "settle", note, func() error {
		now := s.d.now()
		for _, v := range verdicts {
			key := rowKey{table: tablePending, id: v.ID}
			old, ok := s.d.rows[key].(*driver.Pending)
			if !ok || old.Claims != v.Claims {
				continue
			}
			p := *old
			p.Crashes, p.DueAt = 0, now.Add(v.Delay)
			if v.Park {
				p.DueAt = time.Time{}
			}
			if v.Accepted {
				p.AcceptedAt = now
			}
			if v.Error != "" {
				p.LastError = v.Error
			}
			s.d.set(key, &p)
		}
		return nil
	})
}

// Confirm implements driver.Store.
func (s *Store) Confirm(ctx context.Context, events []driver.Ref) (answers []driver.Confirmation, err error) {
	note := func() string { return fmt.Sprintf("%d events", len(events)) }
	err = s.atomic(ctx, "confirm", note, func() error {
		answers = make([]driver.Confirmation, len(events))
		now := s.d.now()
		for i, ref := range events {
			e, ok := s.d.rows[rowKey{table: tableEvent, id: ref.ID}].(*eventRow)
			if !ok {
				continue
			}
			answers[i] = driver.Known
			pending := rowKey{table: tablePending, id: ref.ID}
			if s.d.rows[pending] == nil {
				continue
			}
			answers[i] = driver.Confirmed
			s.d.set(pending, nil)
			if e.PublishedAt.IsZero() {
				published := *e
				published.PublishedAt = now
				s.d.set(rowKey{table: tableEvent, id: ref.ID}, &published)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// Tend implements driver.Store.
func (s *Store) Tend(ctx context.Context, c driver.Chore) (n int, err error) {
	err = s.atomic(ctx, "tend", nil, func() error {
		n = s.d.tend(c)
		return nil
	})
	return n, err
}

func (d *Database) tend(c driver.Chore) (n int) {
	now := d.now()
	if r := c.Register; r != nil {
		t := d.topic(r.Name)
		t.Ordered = t.Ordered || r.Ordered
		d.set(rowKey{table: tableTopic, topic: r.Name}, &t)
		n++
	}
	if p := c.Prove; p != nil {
		t := d.topic(p.Topic)
		at := p.SentAt
		if at.After(now) {
			at = now
		}
		if at.After(t.ProvenAt) {
			t.ProvenAt = at
			d.set(rowKey{table: tableTopic, topic: p.Topic}, &t)
			n++
		}
	}
	if c.Forget != nil {
		n += d.forget(c.Forget)
	}
	if c.Restored {
		d.set(rowKey{table: tableMeta}, d.generation()+1)
		n++
	}
	if c.Job != nil {
		n += d.saveJob(*c.Job, now)
	}
	return n
}

func (d *Database) forget(f *driver.Forget) (n int) {
	var gone []*eventRow
	for _, e := range d.events {
		if !e.RecordedAt.Before(f.Before) || len(gone) == f.Limit {
			break
		}
		if d.rows[rowKey{table: tablePending, id: e.ID}] == nil {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		d.set(rowKey{table: tableEvent, id: e.ID}, nil)
		n++
		key := counterKey(e.Topic, e.Key)
		c, ok := d.rows[key].(*counterRow)
		if !ok || c.last.ID != e.ID || d.locks[key] != nil {
			continue
		}
		t := d.topic(e.Topic)
		t.PositionFloor = max(t.PositionFloor, c.last.Position)
		d.set(rowKey{table: tableTopic, topic: e.Topic}, &t)
		d.set(key, nil)
		n++
	}
	for _, id := range slices.Clone(d.jobs) {
		if j := d.rows[jobKey(id)].(*driver.Job); j.Finished && j.FinishedAt.Before(f.Before) {
			d.set(jobKey(id), nil)
			n++
		}
	}
	return n
}

func (d *Database) saveJob(j driver.Job, now time.Time) int {
	old, ok := d.rows[jobKey(j.ID)].(*driver.Job)
	switch {
	case !ok:
		j.CreatedAt = now
	case old.LeaseUntil.After(now) && old.Owner != j.Owner:
		return 0
	default:
		j.CreatedAt, j.FinishedAt = old.CreatedAt, old.FinishedAt
	}
	j.LeaseUntil = now.Add(j.Lease)
	if j.Finished && j.FinishedAt.IsZero() {
		j.FinishedAt = now
	}
	j.Spec = slices.Clone(j.Spec)
	d.set(jobKey(j.ID), &j)
	return 1
}

func isConflict(err error) bool { return errors.Is(err, errConflict) || errors.Is(err, errBusy) }
