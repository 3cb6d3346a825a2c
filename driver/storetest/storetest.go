// Package storetest is the conformance suite of driver.Store and driver.Inbox. Every case carries the sentence of the
// contract that it checks, and prints it when it is broken. A driver's test calls [Run] with a [Harness].
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Harness gives the suite databases of one kind, and states what that kind cannot do.
type Harness[X any] struct {
	// Open makes an empty database, with Pabal's tables, for one test.
	Open func(t *testing.T) Database[X]
	// SingleWriter: a second writing transaction waits until the first has ended.
	SingleWriter bool
}

// Database is one database of a test. The functions left nil are what the database cannot do.
type Database[X any] struct {
	// Connect returns a store of the database: each call another process, as it were.
	Connect  func(t *testing.T) driver.Store[X]
	Begin    func(ctx context.Context) (X, error) // the application's own transaction, on a watched connection
	Commit   func(x X) error
	Rollback func(x X) error
	// Nil returns a handle that is no transaction; Unwatched a transaction that nobody watches.
	Nil       func() X
	Unwatched func(ctx context.Context) (X, error)
	// Savepoint and RollbackTo work on the one savepoint of a transaction.
	Savepoint  func(x X) error
	RollbackTo func(x X) error
	// Fail runs a statement in the transaction that fails.
	Fail func(x X)
	// Write counts one effect in the transaction; Effects tells how many were committed.
	Write   func(x X) error
	Effects func() int
}

// suite is one case's database.
type suite[X any] struct {
	t   *testing.T
	h   Harness[X]
	db  Database[X]
	s   driver.Store[X]
	ctx context.Context
}

// Run runs every case.
func Run[X any](t *testing.T, h Harness[X]) {
	for _, c := range append(storeCases[X](), inboxCases[X]()...) {
		t.Run(c.name, func(t *testing.T) {
			db := h.Open(t)
			s := &suite[X]{t: t, h: h, db: db, s: db.Connect(t), ctx: t.Context()}
			if err := s.s.Open(s.ctx, "order"); err != nil {
				t.Fatalf("Open: %v", err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the rule: %s", c.rule)
				}
			})
			c.run(s)
		})
	}
}

type testCase[X any] struct {
	name string
	rule string
	run  func(s *suite[X])
}

func (s *suite[X]) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite[X]) check(cond bool, format string, args ...any) {
	s.t.Helper()
	if !cond {
		s.t.Errorf(format, args...)
	}
}

// event makes an event of the topic "paid"; with a key it is ordered.
func event(key string) driver.Event {
	return driver.Event{
		ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: "order-paid", Key: key, ContentType: "application/json", Version: "2",
		Payload: []byte(`{"a":"` + key + `"}`), Headers: []byte(`{"h":"1"}`),
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

func events(keys ...string) []driver.Event {
	list := make([]driver.Event, len(keys))
	for i, key := range keys {
		list[i] = event(key)
	}
	return list
}

// recorder collects the outcomes of a Recording.
type recorder struct {
	mu     sync.Mutex
	states []driver.CommitState
}

func (r *recorder) outcome(s driver.CommitState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, s)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.states)
}

func recording(list []driver.Event, lease time.Duration) driver.Recording {
	return driver.Recording{Events: list, Lease: lease, Outcome: func(driver.CommitState) {}}
}

// record commits events in a transaction of their own.
func (s *suite[X]) record(lease time.Duration, list ...driver.Event) []driver.Event {
	s.t.Helper()
	x, err := s.db.Begin(s.ctx)
	s.ok(err)
	s.ok(s.s.Record(s.ctx, x, recording(list, lease)))
	s.ok(s.db.Commit(x))
	return list
}

func (s *suite[X]) find(f driver.EventFilter) []driver.Found {
	s.t.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	r, err := s.s.Read(s.ctx, driver.Query{Events: &f})
	s.ok(err)
	return r.Events
}

func (s *suite[X]) pending(id uuid.UUID) *driver.Pending {
	s.t.Helper()
	for _, f := range s.find(driver.EventFilter{IDs: []uuid.UUID{id}}) {
		return f.Pending
	}
	s.t.Fatalf("event %s is not recorded", id)
	return nil
}

func (s *suite[X]) topic(name string) driver.Topic {
	s.t.Helper()
	r, err := s.s.Read(s.ctx, driver.Query{Topics: true, Counts: true})
	s.ok(err)
	for _, t := range r.Topics {
		if t.Name == name {
			return t
		}
	}
	return driver.Topic{}
}

func (s *suite[X]) now() time.Time {
	s.t.Helper()
	r, err := s.s.Read(s.ctx, driver.Query{})
	s.ok(err)
	return r.Now
}

// take claims everything that is offered for a minute, as a plain claim would.
func take(now time.Time, rows []driver.Pending) (decisions []driver.Decision) {
	for _, p := range rows {
		p.Claims++
		p.SentAt, p.DueAt = now, now.Add(time.Minute)
		decisions = append(decisions, driver.Decision{Pending: p})
	}
	return decisions
}

func (s *suite[X]) claim(sel driver.Selection) []driver.Claimed {
	s.t.Helper()
	if sel.Decide == nil {
		sel.Decide = take
	}
	claimed, err := s.s.Claim(s.ctx, sel)
	s.ok(err)
	return claimed
}

func due(limit int) driver.Selection { return driver.Selection{Topic: "paid", Limit: limit} }

func (s *suite[X]) refused(err, want error, outcomes *recorder) {
	s.t.Helper()
	s.check(errors.Is(err, want), "answered %v, want %v", err, want)
	s.check(len(outcomes.states) == 0, "outcomes %v were called", outcomes)
}
