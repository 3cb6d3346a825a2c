package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

const (
	liveRate   = 50 // orders a second beside it
	liveBefore = 20 * time.Second

	// A redelivery of a million takes an hour, in which the machine is not always the same: it is held up now and then, so that
	// orders beside it and orders without take turns.
	busyFor  = 18 * time.Second
	quietFor = 2 * time.Second
	settled  = 300 * time.Millisecond // of a quiet time: what was sent before is still handled
)

// turns holds redeliveries up at the gate now and then, once one has begun, until ctx ends. It answers when, in the journal's
// time, orders were alone, and when they were beside one.
func (s *small) turns(ctx context.Context) (quiet, busy []span) {
	for ctx.Err() == nil && !s.broker.again.Load() {
		sleep(ctx, 10*time.Millisecond)
	}
	for ctx.Err() == nil {
		began := s.journal.now()
		sleep(ctx, busyFor)
		s.broker.held.Store(true)
		held := s.journal.now()
		sleep(ctx, quietFor)
		if ctx.Err() == nil {
			quiet, busy = append(quiet, span{held + settled.Nanoseconds(), s.journal.now()}), append(busy, span{began, held})
		}
		s.broker.held.Store(false)
	}
	return quiet, busy
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// span is a time, in nanoseconds.
type span struct{ from, until int64 }

// within are the latencies of the events that were committed in spans.
func (j *journal) within(spans []span) (ms []float64) {
	for i := range j.committed {
		at := j.committed[i].Load()
		n, _ := slices.BinarySearchFunc(spans, at, func(s span, at int64) int { return cmp.Compare(s.until, at) })
		if at > 0 && n < len(spans) && at >= spans[n].from {
			ms = append(ms, float64(j.handled[0][i].Load()-at)/1e6)
		}
	}
	return ms
}

// redeliverRates are events a second: Redelivery.Rate's default, and one that is in a hurry.
var redeliverRates = []int{100, 250}

// fillConfirmed makes events that were confirmed a while ago; their numbers are those of no order. Their ids begin with the time, as
// those of Record do: a consumer's index of them grows at its end.
const fillConfirmed = `with recursive n (i) as (select 1 union all select i + 1 from n where i < ?)
	insert into pabal_event (id, topic, type, key, content_type, version, payload, traceparent, recorded_at, position, published_at)
	select unhex(printf('%012x7%03x8%015x', (? + i) / 1000, i % 4096, i)), 'order-pay-done', 'order-pay-done', 'B' || i, 'application/json', '', cast(? as blob), '', ? + i, ? + i, ? + i from n`

// redeliverRows has a redelivery send many events to a service beside live traffic.
func redeliverRows(ctx context.Context, b *bench) (rows []row, err error) {
	rates := redeliverRates
	if b.rate > 0 {
		rates = []int{b.rate}
	}
	for _, rate := range rates {
		more, err := redeliverAt(ctx, b, rate)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func redeliverAt(ctx context.Context, b *bench, rate int) (rows []row, err error) {
	live := int((liveBefore + time.Duration(b.backlog)*time.Second/time.Duration(rate)).Seconds()) * liveRate
	s, err := b.small(ctx, "redeliver", newJournal(live+1, 1))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	hour := time.Now().Add(-time.Hour).UnixMicro()
	old := payloadOf(1 << 40)
	if _, err := s.db.ExecContext(ctx, fillConfirmed, b.backlog, hour, old, hour, hour/1000, hour); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	if err := s.write(ctx, live); err != nil { // topics and statements
		return nil, err
	}
	before := int(liveBefore.Seconds()) * liveRate
	orders := func(first, n int) error {
		return traffic{events: n, rate: liveRate}.run(ctx, s.owed, func(i int) error { return s.write(ctx, first+i) })
	}
	if err := orders(0, before); err != nil {
		return nil, err
	}
	idle, err := residentMiB(os.Getpid())
	if err != nil {
		return nil, err
	}
	until := time.UnixMicro(hour + int64(b.backlog) + 1)
	job, err := s.order.Redeliver(ctx, pabal.Redelivery{
		Topic: "order-pay-done", Until: until, Consumer: "settlement", Rate: rate, Why: "bench", By: "bench",
	})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	growth, stop := watchMemory(ctx, idle)
	var quiet, busy []span
	turning, turned := context.WithCancel(ctx)
	var turns sync.WaitGroup
	turns.Go(func() { quiet, busy = s.turns(turning) })
	err = orders(before, live-before)
	turned()
	turns.Wait()
	if err == nil {
		err = s.finished(ctx, job)
	}
	took := time.Since(began)
	stop()
	if err == nil {
		err = s.journal.wait(ctx, func() bool { return s.owed() == 0 })
	}
	if err != nil {
		return nil, err
	}
	if len(quiet) == 0 {
		return nil, fmt.Errorf("%d events at %d/s are redelivered in less than %v: too few to compare", b.backlog, rate, busyFor+quietFor)
	}
	without, beside := s.journal.within(quiet), s.journal.within(busy)
	what := fmt.Sprintf("redelivery of %d events at %d/s beside %d orders/s: ", b.backlog, rate, liveRate)
	return []row{
		{what + "took", fmt.Sprintf("%.0f s", took.Seconds()), ""},
		{what + "growth of the process's memory", fmt.Sprintf("%.0f MiB", growth()), "≤ 64 MiB"},
		{what + "p99 of an order's commit → handler, against what comes while it is held up, in turn", against(without, beside, 0.99), "≤ 1.5"},
		{what + "p50 of that", against(without, beside, 0.5), ""},
	}, nil
}

// finished waits for a redelivery's end.
func (s *small) finished(ctx context.Context, id uuid.UUID) error {
	for ctx.Err() == nil {
		status, err := s.order.Status(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(status.Jobs, func(j driver.Job) bool { return j.ID == id && j.Finished }) {
			return nil
		}
		time.Sleep(time.Second)
	}
	return ctx.Err()
}

func against(without, beside []float64, q float64) string {
	a, b := quantile(beside, q), quantile(without, q)
	return fmt.Sprintf("%.2f against %.2f ms, ratio %.2f", a, b, a/b)
}
