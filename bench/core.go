package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-go/pabal"
)

type paid struct {
	OrderNo  string `json:"orderNo"`
	MemberID string `json:"memberId"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// coreRun says how the core is measured: everything in memory, so that nothing but package pabal costs much.
type coreRun struct {
	keyed    bool
	events   int // in all
	perTx    int // recorded in a transaction
	writers  int // transactions at a time
	services int // consumers
}

// coreResult is what came of it.
type coreResult struct {
	elapsed time.Duration
	cpu     time.Duration // an event
	allocs  float64       // of memory, an event
	bytes   float64       // of memory, an event
}

func (r coreResult) perSecond(events int) float64 { return float64(events) / r.elapsed.Seconds() }

// run records events, has each service handle all of them, and waits until every one is confirmed.
func (c coreRun) run(ctx context.Context) (coreResult, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	broker := newMemoryBroker()
	quiet := &pabal.Options{Logger: slog.New(slog.DiscardHandler), Queue: 1_000_000}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	start := func(client *pabal.Client[*memoryTx]) error {
		running.Go(func() { _ = client.Run(ctx) })
		return client.Ready(ctx)
	}
	eventType := pabal.Define[paid]("order-pay-done")
	if c.keyed {
		eventType = pabal.Define("order-pay-done", pabal.Key(func(p paid) string { return p.OrderNo }))
	}
	var handled atomic.Int64
	for i := range c.services {
		name := fmt.Sprintf("service-%d", i+1)
		client, err := pabal.New(ctx, newMemoryStore(), broker, name, quiet)
		if err != nil {
			return coreResult{}, err
		}
		consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 2, Batch: 256})
		pabal.HandleBatch(consumer, eventType, func(_ context.Context, _ *memoryTx, events []pabal.Received[paid]) error {
			handled.Add(int64(len(events)))
			return nil
		})
		if err := start(client); err != nil {
			return coreResult{}, err
		}
	}
	store := newMemoryStore()
	client, err := pabal.New(ctx, store, broker, "order", quiet)
	if err != nil {
		return coreResult{}, err
	}
	if err := start(client); err != nil {
		return coreResult{}, err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began, busy := time.Now(), cpuTime()
	if err := c.record(ctx, client, store, eventType); err != nil {
		return coreResult{}, err
	}
	for handled.Load() < int64(c.services*c.events) || store.owed() > 0 {
		if err := ctx.Err(); err != nil {
			return coreResult{}, err
		}
		time.Sleep(time.Millisecond)
	}
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	if n := handled.Load(); n != int64(c.services*c.events) {
		return coreResult{}, fmt.Errorf("%d events handled, expected %d", n, c.services*c.events)
	}
	return coreResult{
		elapsed: elapsed,
		cpu:     (cpuTime() - busy) / time.Duration(c.events),
		allocs:  float64(after.Mallocs-before.Mallocs) / float64(c.events),
		bytes:   float64(after.TotalAlloc-before.TotalAlloc) / float64(c.events),
	}, nil
}

func (c coreRun) record(ctx context.Context, client *pabal.Client[*memoryTx], store *memoryStore, eventType pabal.Type[paid]) error {
	errs := make(chan error, c.writers)
	var next atomic.Int64
	for range c.writers {
		go func() {
			errs <- func() error {
				for {
					last := next.Add(int64(c.perTx))
					if last > int64(c.events) {
						return nil
					}
					tx, err := store.Begin(ctx)
					if err != nil {
						return err
					}
					events := make([]pabal.Event, c.perTx)
					for i := range events {
						n := last - int64(i)
						events[i] = eventType.New(paid{OrderNo: fmt.Sprintf("A%07d", n%100_000), MemberID: "M1", Amount: n, Currency: "KRW"})
					}
					if err := client.Record(ctx, tx, events...); err != nil {
						return err
					}
					store.commit(tx)
				}
			}()
		}()
	}
	var first error
	for range c.writers {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// coreRows measures package pabal alone. GOGC is 400, for the events of a run stay in memory and every collection would look
// at all of them.
func coreRows(ctx context.Context, b *bench) (rows []row, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	for _, c := range []coreRun{
		{events: 200_000, perTx: 1, writers: 8, services: 3}, {events: 200_000, perTx: 10, writers: 8, services: 3},
		{keyed: true, events: 200_000, perTx: 1, writers: 8, services: 3},
		{keyed: true, events: 200_000, perTx: 10, writers: 8, services: 3},
	} {
		var rate, allocs, cpu []float64
		for range b.rounds {
			r, err := c.run(ctx)
			if err != nil {
				return rows, err
			}
			rate = append(rate, r.perSecond(c.events))
			allocs = append(allocs, r.allocs)
			cpu = append(cpu, float64(r.cpu.Nanoseconds())/1000)
		}
		kind, target := "without key", "≥ 100,000/s, ≤ 40 allocations"
		if c.keyed {
			kind, target = "with key", ""
		}
		rows = append(rows, row{
			fmt.Sprintf("core: record → three consumers → confirmed, %s, %d per transaction", kind, c.perTx),
			fmt.Sprintf("%s events/s, %.1f allocations and %.1f µs of CPU an event", spread(rate, "%.0f"), median(allocs), median(cpu)),
			target,
		})
	}
	return rows, nil
}
