package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The leanest store and broker that the core can run on when nothing goes wrong: maps and slices. They keep what a
// database and a broker have to keep of an event, lose nothing and repeat nothing, and are good for measuring only.

type memoryStore struct {
	mu       sync.Mutex
	events   []driver.Event
	pending  map[uuid.UUID]driver.Pending
	counters map[string]driver.Ref // by key
	seen     map[uuid.UUID]struct{}
	cursors  map[driver.CursorKey]driver.Cursor
	joined   time.Time
}

func newMemoryStore() *memoryStore {
	return &memoryStore{
		pending: map[uuid.UUID]driver.Pending{}, counters: map[string]driver.Ref{}, seen: map[uuid.UUID]struct{}{},
		cursors: map[driver.CursorKey]driver.Cursor{},
	}
}

// memoryTx commits what it recorded; what a consumer writes is written at once, for nothing ever rolls back.
type memoryTx struct {
	events  []driver.Event
	lease   time.Duration
	outcome []func(driver.CommitState)
}

func (s *memoryStore) Begin(context.Context) (*memoryTx, error) { return &memoryTx{}, nil }

func (s *memoryStore) commit(tx *memoryTx) {
	s.mu.Lock()
	for i := range tx.events {
		e := &tx.events[i]
		s.pending[e.ID] = driver.Pending{ID: e.ID, RecordedAt: e.RecordedAt, Topic: e.Topic, DueAt: e.RecordedAt.Add(tx.lease)}
	}
	s.events = append(s.events, tx.events...)
	s.mu.Unlock()
	for _, outcome := range tx.outcome {
		outcome(driver.Proven)
	}
}

func (s *memoryStore) Open(context.Context, string) error { return nil }
func (s *memoryStore) Inbox() driver.Inbox[*memoryTx]     { return memoryInbox{s} }
func (s *memoryStore) now() time.Time                     { return time.Now().UTC().Truncate(time.Microsecond) }
func (s *memoryStore) owed() int                          { s.mu.Lock(); defer s.mu.Unlock(); return len(s.pending) }

func (s *memoryStore) Record(_ context.Context, tx *memoryTx, r driver.Recording) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for i := range r.Events {
		e := &r.Events[i]
		e.RecordedAt = now
		if e.Key == "" {
			continue
		}
		e.Prev = s.counters[e.Key]
		if e.Position = e.Prev.Position + 1; e.Prev.IsZero() {
			e.Position = now.UnixMilli()
		}
		s.counters[e.Key] = e.Ref()
	}
	tx.events, tx.lease = append(tx.events, r.Events...), r.Lease
	tx.outcome = append(tx.outcome, r.Outcome)
	return nil
}

func (s *memoryStore) Claim(context.Context, driver.Selection) ([]driver.Claimed, error) {
	return nil, nil
}

func (s *memoryStore) Settle(_ context.Context, verdicts []driver.Settlement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range verdicts {
		if p, ok := s.pending[v.ID]; ok && v.Accepted {
			p.AcceptedAt = s.now()
			p.DueAt = p.AcceptedAt.Add(v.Delay)
			s.pending[v.ID] = p
		}
	}
	return nil
}

func (s *memoryStore) Confirm(_ context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	answers := make([]driver.Confirmation, len(events))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		answers[i] = driver.Known
		if _, ok := s.pending[events[i].ID]; ok {
			delete(s.pending, events[i].ID)
			answers[i] = driver.Confirmed
		}
	}
	return answers, nil
}

func (s *memoryStore) Read(context.Context, driver.Query) (driver.Reading, error) {
	return driver.Reading{Now: s.now()}, nil
}
func (s *memoryStore) Tend(context.Context, driver.Chore) (int, error) { return 0, nil }

type memoryInbox struct{ s *memoryStore }

func (b memoryInbox) Begin(ctx context.Context) (*memoryTx, error)        { return b.s.Begin(ctx) }
func (b memoryInbox) End(context.Context, *memoryTx, driver.Ending) error { return nil }
func (b memoryInbox) Conflict(error) bool                                 { return false }
func (b memoryInbox) Due(context.Context, driver.InboxSelection) ([]driver.Row, error) {
	return nil, nil
}
func (b memoryInbox) Read(context.Context, driver.InboxQuery) (driver.InboxReading, error) {
	return driver.InboxReading{Now: b.s.now()}, nil
}

func (b memoryInbox) Load(_ context.Context, _ *memoryTx, l driver.Load) (driver.Loaded, error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r := driver.Loaded{
		Now: s.now(), Known: make([]*driver.Row, len(l.Arrivals)), Cursors: make([]driver.Cursor, len(l.Keys)),
		Waiting: make([][]driver.Row, len(l.Keys)), WaitingCount: make([]int, len(l.Keys)),
	}
	for i := range l.Arrivals {
		a := &l.Arrivals[i]
		if _, known := s.seen[a.ID]; known {
			return r, errors.New("an event came twice")
		}
		s.seen[a.ID] = struct{}{}
		if i == 0 {
			r.Memory = []driver.Memory{{Source: a.Source, Topic: a.Topic, JoinedAt: s.joined}}
		}
	}
	for i, k := range l.Keys {
		c, ok := s.cursors[k]
		if !ok {
			c.CursorKey = k
		}
		r.Cursors[i] = c
	}
	return r, nil
}

func (b memoryInbox) Save(_ context.Context, _ *memoryTx, save driver.Save) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if len(save.Rows) > 0 {
		return errors.New("an event came out of order") // there is one lane a key: it cannot
	}
	for i := range save.Cursors {
		b.s.cursors[save.Cursors[i].CursorKey] = save.Cursors[i]
	}
	return nil
}

func (b memoryInbox) Tend(_ context.Context, c driver.InboxChore) (int, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if c.Join != nil {
		b.s.joined = c.Join.SentAt
	}
	return 0, nil
}

// memoryBroker copies what is published to every queue; an acknowledgement has nothing left to do.
type memoryBroker struct {
	mu     sync.Mutex
	queues map[string]*memoryQueue
	topics map[string][]*memoryQueue
}

type memoryQueue struct {
	mu    sync.Mutex
	ready []driver.Delivery
	more  chan struct{}
}

func newMemoryBroker() *memoryBroker {
	return &memoryBroker{queues: map[string]*memoryQueue{}, topics: map[string][]*memoryQueue{}}
}

func (b *memoryBroker) Limits() driver.Limits {
	return driver.Limits{Message: 1 << 20, Wait: time.Second, Redelivery: time.Hour}
}

func (b *memoryBroker) Check(_ context.Context, t driver.Topology, _ bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, spec := range t.Queues {
		q := b.queues[spec.Name]
		if q == nil {
			q = &memoryQueue{more: make(chan struct{}, 1)}
			b.queues[spec.Name] = q
		}
		for _, topic := range spec.Topics {
			b.topics[topic] = append(b.topics[topic], q)
		}
	}
	return nil
}

func (b *memoryBroker) Publish(_ context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	size := 0
	for i := range messages {
		size += len(messages[i].Body)
	}
	bodies := make([]byte, 0, size) // the caller's are his again
	deliveries, verdicts := make([]driver.Delivery, len(messages)), make([]driver.Verdict, len(messages))
	for i := range messages {
		start := len(bodies)
		bodies = append(bodies, messages[i].Body...)
		deliveries[i] = driver.Delivery{Body: bodies[start:len(bodies):len(bodies)], Attempt: 1}
		verdicts[i].Kind = driver.Accepted
	}
	b.mu.Lock()
	queues := b.topics[to.Topic]
	b.mu.Unlock()
	for _, q := range queues {
		q.mu.Lock()
		q.ready = append(q.ready, deliveries...)
		q.mu.Unlock()
		select {
		case q.more <- struct{}{}:
		default:
		}
	}
	return verdicts
}

func (b *memoryBroker) Receive(ctx context.Context, name string, most int) ([]driver.Delivery, error) {
	b.mu.Lock()
	q := b.queues[name]
	b.mu.Unlock()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		q.mu.Lock()
		n := min(most, len(q.ready))
		deliveries := q.ready[:n:n]
		q.ready = q.ready[n:]
		q.mu.Unlock()
		if n > 0 {
			return deliveries, nil
		}
		select {
		case <-q.more:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (b *memoryBroker) Ack(context.Context, string, []driver.Delivery) error { return nil }
func (b *memoryBroker) Extend(context.Context, string, []driver.Delivery, time.Duration) ([]int, error) {
	return nil, nil
}
func (b *memoryBroker) Close() error { return nil }
