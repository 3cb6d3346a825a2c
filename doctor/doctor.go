// Package doctor looks at stores and their broker for what endangers a promise, before a fault comes that breaks it: settings
// that make a commit or a message worth less, retentions that do not fit each other, clocks that differ, topics that nobody
// confirms, subscriptions and queues that are missing. It changes nothing.
//
// What is in trouble now (late, parked and held events) is pabal.Operator's Status; that messages come through is
// topology.Verify. Settings are judged by the drivers, each of its own kind (driver.StoreAuditor, driver.Auditor); what takes
// more than one store, or a store and its broker, is judged here.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Finding is something that endangers a promise, or is worth knowing, and where it was found.
type Finding struct {
	Where string `json:"where"` // a store's name, or "broker"
	driver.Finding
}

// Unseen is a store, or a broker, that could not be looked at.
type Unseen struct {
	Where string `json:"where"`
	Err   string `json:"error"`
}

// Report is what an examination found.
type Report struct {
	Findings []Finding `json:"findings"`
	Unseen   []Unseen  `json:"unseen"`
}

// Endangered says whether a finding endangers a promise: one that is no driver.Note.
func (r *Report) Endangered() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != driver.Note })
}

func (r *Report) unseen(where string, err error) {
	r.Unseen = append(r.Unseen, Unseen{where, err.Error()})
}

// Store is a store that is examined; [Of] makes one.
type Store struct {
	name  string
	open  func(ctx context.Context) error
	read  func(ctx context.Context, q driver.Query) (driver.Reading, error)
	inbox func(ctx context.Context, q driver.InboxQuery) (driver.InboxReading, error)
	audit func(ctx context.Context) ([]driver.Finding, error) // nil: its driver has none
}

// Of is a store by the name under which an operator knows it.
func Of[X any](name string, s driver.Store[X]) Store {
	d := Store{
		name: name, read: s.Read, inbox: s.Inbox().Read,
		open: func(ctx context.Context) error { return s.Open(ctx, "") },
	}
	if a, ok := s.(driver.StoreAuditor); ok {
		d.audit = a.Audit
	}
	return d
}

// Options of [Examine]. Nil and zero values are the good defaults.
type Options struct {
	// Topology is what the broker shall have. Default: what the stores remember to have published to and received from.
	Topology *driver.Topology
}

// Examine looks at stores, and at their broker unless that is nil. What cannot be looked at is part of the report, beside what
// the rest showed. Times are compared with this machine's clock.
func Examine(ctx context.Context, stores []Store, broker driver.Broker, o *Options) *Report {
	r := &Report{Findings: []Finding{}, Unseen: []Unseen{}}
	var limits driver.Limits
	if broker != nil {
		limits = broker.Limits()
	}
	var all []*observation
	for _, s := range stores {
		seen, findings, err := s.observe(ctx)
		if err != nil {
			r.unseen(s.name, err)
			continue
		}
		all = append(all, seen)
		for _, f := range append(findings, seen.judge(limits)...) {
			r.Findings = append(r.Findings, Finding{s.name, f})
		}
	}
	r.Findings = append(r.Findings, compare(all)...)
	if broker != nil {
		t := topologyOf(all)
		if o != nil && o.Topology != nil {
			t = *o.Topology
		}
		found, err := examineBroker(ctx, broker, limits, t, all)
		if err != nil {
			r.unseen("broker", err)
		}
		for _, f := range found {
			r.Findings = append(r.Findings, Finding{"broker", f})
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return rank(a.Severity) - rank(b.Severity) })
	return r
}

// rank is the order in which findings are shown.
func rank(s driver.Severity) int {
	return slices.Index([]driver.Severity{driver.Broken, driver.AtRisk, driver.Note}, s)
}

// observation is what a store tells of itself.
type observation struct {
	name      string
	now       time.Time // the database's clock
	ahead     time.Duration
	source    string
	readOnly  bool
	topics    []topic
	oldest    time.Time // the first confirmed event that it keeps; zero: none
	consumers []consumer
}

// topic is one that a store publishes to.
type topic struct {
	driver.Topic
	unproven time.Time // while nothing has come back: when its first event was recorded; zero: it has none
}

// consumer is one that lives in a store.
type consumer struct {
	name         string
	topics       []driver.Memory // that it receives from
	forgotBefore time.Time       // zero: it forgot nothing
}

// observe reads a store, and has its driver audit it.
func (s *Store) observe(ctx context.Context) (*observation, []driver.Finding, error) {
	if err := s.open(ctx); err != nil {
		return nil, nil, err
	}
	began := time.Now()
	clock, err := s.read(ctx, driver.Query{})
	if err != nil {
		return nil, nil, fmt.Errorf("read clock: %w", err)
	}
	o := &observation{name: s.name, now: clock.Now, ahead: difference(began, time.Now(), clock.Now), source: clock.Source,
		readOnly: clock.ReadOnly}
	if err := s.observeTopics(ctx, o); err != nil {
		return nil, nil, err
	}
	if err := s.observeConsumers(ctx, o); err != nil {
		return nil, nil, err
	}
	if s.audit == nil {
		return o, nil, nil
	}
	findings, err := s.audit(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	return o, findings, nil
}

// difference is by how much a clock that was read between two moments was certainly ahead of them, or, below 0, behind.
func difference(began, ended, clock time.Time) time.Duration {
	switch {
	case clock.After(ended):
		return clock.Sub(ended)
	case clock.Before(began):
		return clock.Sub(began)
	}
	return 0
}

func (s *Store) observeTopics(ctx context.Context, o *observation) error {
	first := func(f driver.EventFilter) (time.Time, error) {
		f.Limit = 1
		r, err := s.read(ctx, driver.Query{Events: &f})
		if err != nil || len(r.Events) == 0 {
			return time.Time{}, err
		}
		return r.Events[0].Event.RecordedAt, nil
	}
	r, err := s.read(ctx, driver.Query{Topics: true})
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	for _, t := range r.Topics {
		seen := topic{Topic: t}
		if t.ProvenAt.IsZero() {
			if seen.unproven, err = first(driver.EventFilter{Topic: t.Name}); err != nil {
				return fmt.Errorf("read the first event of topic %s: %w", t.Name, err)
			}
		}
		o.topics = append(o.topics, seen)
	}
	if o.oldest, err = first(driver.EventFilter{State: driver.ConfirmedOnly}); err != nil {
		return fmt.Errorf("read the first confirmed event: %w", err)
	}
	return nil
}

func (s *Store) observeConsumers(ctx context.Context, o *observation) error {
	r, err := s.inbox(ctx, driver.InboxQuery{Consumers: true})
	if err != nil {
		return fmt.Errorf("read consumers: %w", err)
	}
	for _, c := range r.Consumers {
		m, err := s.inbox(ctx, driver.InboxQuery{Consumer: c.Consumer, Memories: true})
		if err != nil {
			return fmt.Errorf("read what consumer %s remembers: %w", c.Consumer, err)
		}
		seen := consumer{name: c.Consumer}
		for _, memory := range m.Memories {
			if memory.ForgotBefore.After(seen.forgotBefore) {
				seen.forgotBefore = memory.ForgotBefore
			}
			if memory.Topic != "" {
				seen.topics = append(seen.topics, memory)
			}
		}
		o.consumers = append(o.consumers, seen)
	}
	return nil
}
