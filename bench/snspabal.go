package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalsns"
)

// pabalRun is an order service and three consumers, each a client with a store in memory, over one broker.
type pabalRun struct {
	prefix, url string
	traffic     traffic
	ready       func() // called when everything is there, before the first event but one
}

func (r pabalRun) do(ctx context.Context) (snsResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, snsTime, errLate)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	broker, err := pabalsns.Open(awsConfig(r.url, nil), &pabalsns.Options{Prefix: r.prefix, Wait: time.Second, Logger: quiet})
	if err != nil {
		return snsResult{}, err
	}
	defer broker.Close() //nolint:errcheck // it never errs
	h := &pabalHouse{broker: broker, journal: newJournal(r.traffic.events+1, len(snsServices)), store: newMemoryStore()}
	running, stop := context.WithCancel(ctx)
	defer h.running.Wait()
	defer stop()
	if err := h.start(running, &pabal.Options{Logger: quiet}); err != nil {
		return snsResult{}, err
	}
	// The first event has the topic made; it is none of those that are measured.
	last := r.traffic.events
	if err := h.record(ctx, last); err != nil {
		return snsResult{}, err
	}
	for h.store.owed() > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if r.ready != nil {
		r.ready()
	}
	began := time.Now()
	if err := r.traffic.run(ctx, h.store.owed, func(n int) error { return h.record(ctx, n) }); err != nil {
		return snsResult{}, err
	}
	err = h.journal.wait(ctx, func() bool { return h.store.owed() == 0 })
	result := snsResult{took: time.Since(began)}
	if err == nil {
		result.ms, err = h.journal.latencies(len(snsServices), r.traffic.events)
	}
	return result, err
}

type pabalHouse struct {
	broker  *pabalsns.Broker
	journal *journal
	store   *memoryStore // the order service's
	client  *pabal.Client[*memoryTx]
	running sync.WaitGroup
}

var unkeyed = pabal.Define[paid]("order-pay-done")

func (h *pabalHouse) start(ctx context.Context, o *pabal.Options) error {
	for i, name := range append([]string{"order"}, snsServices...) {
		store := h.store
		if i > 0 {
			store = newMemoryStore()
		}
		client, err := pabal.New(ctx, store, h.broker, name, o)
		if err != nil {
			return err
		}
		if i == 0 {
			h.client = client
		} else {
			consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 2})
			pabal.HandleBatch(consumer, unkeyed, func(_ context.Context, _ *memoryTx, events []pabal.Received[paid]) error {
				for _, e := range events {
					h.journal.handle(i-1, int(e.Data.Amount))
				}
				return nil
			})
		}
		h.running.Go(func() { _ = client.Run(ctx) })
		if err := client.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h *pabalHouse) record(ctx context.Context, n int) error {
	tx, err := h.store.Begin(ctx)
	if err != nil {
		return err
	}
	if err := h.client.Record(ctx, tx, unkeyed.New(paidEvent(n))); err != nil {
		return err
	}
	h.journal.commit(n)
	h.store.commit(tx)
	return nil
}

func paidEvent(n int) paid {
	return paid{OrderNo: fmt.Sprintf("A%07d", n), MemberID: "M1", Amount: int64(n), Currency: "KRW"}
}
