package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	pgWriters = 16
	pgAhead   = 4000 // committed and not settled, at full rate
	pgMost    = 400_000
	pgFastest = 6000            // events a second at full rate, for which there is room
	pgTime    = 5 * time.Minute // beyond the traffic's own
)

// pgResult is what came of a run.
type pgResult struct {
	events int
	took   time.Duration
	used   usage
	ms     []float64 // commit → handler

	repeated int // events published more than once
}

func (r pgResult) rate() float64 { return float64(r.events) / r.took.Seconds() }

// per is a figure for each event.
func (r pgResult) per(figure float64) float64 { return figure / float64(r.events) }

// pgLoad is what a contender is asked to do.
type pgLoad struct {
	each    time.Duration
	rate    int  // events a second; 0: as many as it takes
	counted bool // statements, which costs a little
}

// do runs a contender on databases of its own, until all is settled, and checks its books.
func (s *stand) do(ctx context.Context, c contender, load pgLoad) (r pgResult, err error) {
	limit := pgTime + load.each
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()
	most := max(pgMost, int(load.each.Seconds()*pgFastest))
	if load.rate > 0 {
		most = int(load.each.Seconds() * float64(load.rate))
	}
	t, err := s.open(ctx, c.watched, load.counted, newJournal(most+1, services))
	if t != nil {
		defer t.close()
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", c.name, err)
	}
	l, err := c.open(ctx, t)
	if err != nil {
		return r, fmt.Errorf("%s: %w", c.name, err)
	}
	r, err = t.measure(ctx, l, load, most)
	if l.repeated != nil {
		r.repeated = l.repeated()
	}
	if err = errors.Join(err, l.stop()); err != nil {
		return r, fmt.Errorf("%s: %w", c.name, err)
	}
	if err := errors.Join(t.exact(ctx, r.events+1), l.check(ctx, r.events+1)); err != nil {
		return r, fmt.Errorf("%s: %w", c.name, err)
	}
	return r, nil
}

// measure makes the traffic. The last number of the journal is of an event that has tables, topics and statements warmed up.
func (t *site) measure(ctx context.Context, l *line, load pgLoad, most int) (r pgResult, err error) {
	if err := l.write(ctx, most); err != nil {
		return r, err
	}
	for t.journal.left.Load() > int64(services*most) || l.owed() > 0 {
		if ctx.Err() != nil {
			return r, fmt.Errorf("the first event does not arrive: %w", context.Cause(ctx))
		}
		time.Sleep(time.Millisecond)
	}
	if err := t.checkpoint(ctx); err != nil {
		return r, err
	}
	before, err := t.usage(ctx)
	if err != nil {
		return r, err
	}
	began := time.Now()
	r.events, err = t.traffic(ctx, l, load, most)
	if err != nil {
		return r, err
	}
	t.journal.left.Add(int64(-services * (most - r.events)))
	if err := t.journal.wait(ctx, func() bool { return l.owed() == 0 }); err != nil {
		return r, err
	}
	r.took = time.Since(began)
	after, err := t.usage(ctx)
	if err != nil {
		return r, err
	}
	r.used = after.minus(before)
	r.ms, err = t.journal.latencies(services, r.events)
	return r, err
}

// checkpoint has every run begin with the same debt of the database's, none.
func (t *site) checkpoint(ctx context.Context) error {
	_, err := t.admin.Exec(ctx, "checkpoint")
	return err
}

func (t *site) traffic(ctx context.Context, l *line, load pgLoad, most int) (int, error) {
	write := func(n int) error { return l.write(ctx, n) }
	if load.rate > 0 {
		return most, traffic{events: most, rate: load.rate}.run(ctx, l.owed, write)
	}
	var written atomic.Int64
	err := traffic{events: most, writers: pgWriters, ahead: pgAhead, length: load.each}.run(ctx, l.owed, func(n int) error {
		written.Add(1)
		return write(n)
	})
	return int(written.Load()), err
}

// handledLeft stands in where nothing else tells what is settled: it is what the slowest service has not handled.
func (t *site) handledLeft() int { return t.journal.behind() }
