package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// journal is who handled which event, and when: events are numbers from 0, readers too.
type journal struct {
	began     time.Time
	committed []atomic.Int64   // nanoseconds after began; 0: not yet
	handled   [][]atomic.Int64 // by reader
	twice     atomic.Int64
	left      atomic.Int64
	count     atomic.Int64   // events committed
	each      []atomic.Int64 // events handled, by reader
}

func newJournal(events, readers int) *journal {
	j := &journal{began: time.Now().Add(-time.Nanosecond), committed: make([]atomic.Int64, events), each: make([]atomic.Int64, readers)}
	for range readers {
		j.handled = append(j.handled, make([]atomic.Int64, events))
	}
	j.left.Store(int64(events * readers))
	return j
}

func (j *journal) now() int64 { return time.Since(j.began).Nanoseconds() }

func (j *journal) commit(event int) {
	j.committed[event].Store(j.now())
	j.count.Add(1)
}

// behind is how many committed events the slowest reader has not handled.
func (j *journal) behind() int {
	least := j.each[0].Load()
	for i := range j.each {
		least = min(least, j.each[i].Load())
	}
	return int(j.count.Load() - least)
}

func (j *journal) handle(reader, event int) {
	if j.handled[reader][event].CompareAndSwap(0, j.now()) {
		j.left.Add(-1)
		j.each[reader].Add(1)
	} else {
		j.twice.Add(1)
	}
}

// wait waits until every reader has handled every event and done answers true.
func (j *journal) wait(ctx context.Context, done func() bool) error {
	for j.left.Load() > 0 || !done() {
		if ctx.Err() != nil {
			return fmt.Errorf("%d handlings are missing, or not all are confirmed: %w", j.left.Load(), context.Cause(ctx))
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := j.twice.Load(); n > 0 {
		return fmt.Errorf("%d events were handled more than once", n)
	}
	return nil
}

// latencies are the milliseconds from commit to the start of the handler, of so many readers and events, the first ones.
func (j *journal) latencies(readers, events int) (ms []float64, err error) {
	for _, handled := range j.handled[:readers] {
		for i := range handled[:events] {
			ms = append(ms, float64(handled[i].Load()-j.committed[i].Load())/1e6)
			if j.committed[i].Load() == 0 {
				return nil, errors.New("an event was handled that nobody committed")
			}
		}
	}
	return ms, nil
}

// traffic has write called for every event: from several writers as fast as they get through, at most so many events ahead of
// what is settled; or at a rate, each on its own.
type traffic struct {
	events  int
	writers int
	ahead   int
	rate    int           // 0: as fast as possible
	length  time.Duration // not 0: no event begins later, as fast as possible
}

func (t traffic) run(ctx context.Context, owed func() int, write func(event int) error) error {
	errs := make(chan error, max(t.writers, t.events))
	started := 0
	began := time.Now()
	if t.rate > 0 {
		for ; started < t.events && ctx.Err() == nil; started++ {
			time.Sleep(time.Until(began.Add(time.Duration(started) * time.Second / time.Duration(t.rate)))) // late ones go at once
			go func(n int) { errs <- write(n) }(started)
		}
	} else {
		var next atomic.Int64
		for ; started < t.writers; started++ {
			go func() { errs <- t.write(ctx, began, &next, owed, write) }()
		}
	}
	err := ctx.Err()
	for range started {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (t traffic) write(ctx context.Context, began time.Time, next *atomic.Int64, owed func() int, write func(event int) error) error {
	for t.length == 0 || time.Since(began) < t.length {
		n := int(next.Add(1) - 1)
		if n >= t.events {
			return nil
		}
		for owed() >= t.ahead && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond) // of what is ahead little is settled meanwhile
		}
		if err := errors.Join(ctx.Err(), write(n)); err != nil {
			return err
		}
	}
	return nil
}
