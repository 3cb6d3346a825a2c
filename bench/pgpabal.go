package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalpgx"
)

var (
	loosePaid = pabal.Define[bill]("order-pay-done")
	keyedPaid = pabal.Define("order-pay-done", pabal.Key(func(b bill) string { return keyOf(b.No) }))
)

const orderKeys = 10_000

func keyOf(no int64) string { return fmt.Sprint("A", no%orderKeys) }

// pabalLine says how Pabal runs.
type pabalLine struct {
	inTx   bool
	keyed  bool
	relays int // further processes of the source; 0: the one that records publishes by itself
	copies int // processes of each service, 0: one
}

var pabals = []contender{
	{name: "Pabal, Record", watched: true, open: pabalLine{}.open},
	{name: "Pabal, InTx", watched: true, open: pabalLine{inTx: true}.open},
}

// published counts what Pabal reports.
type published struct {
	pabal.Observer
	recorded, sent, accepted, confirmed atomic.Int64
}

func (p *published) Start(ctx context.Context, s pabal.Step) (context.Context, func(error)) {
	if s.Name == "publish" {
		p.sent.Add(int64(s.Events))
	}
	return ctx, func(error) {}
}

func (p *published) Count(c pabal.Count) {
	switch {
	case c.Step == "publish" && c.Result == "accepted":
		p.accepted.Add(int64(c.N))
	case c.Step == "confirm" && c.Result == "confirmed":
		p.confirmed.Add(int64(c.N))
	}
}

// pabalSite is what a run of Pabal consists of.
type pabalSite struct {
	*site
	works *works
	seen  published
	event pabal.Type[bill]
	store *pabalpgx.Store
	order *pabal.Client[pgx.Tx]
}

func (p pabalLine) open(ctx context.Context, t *site) (*line, error) {
	s, err := p.start(ctx, t)
	if err != nil {
		return nil, err
	}
	write := s.record
	if p.inTx {
		write = s.inTx
	}
	return &line{write: write, owed: s.owed, check: s.sameSettled, stop: s.works.stop, repeated: s.repeated}, nil
}

func (p pabalLine) start(ctx context.Context, t *site) (*pabalSite, error) {
	s := &pabalSite{site: t, event: loosePaid}
	if p.keyed {
		s.event = keyedPaid
	}
	s.works, ctx = newWorks(ctx)
	for i, pool := range t.service {
		name := fmt.Sprint("service", i+1)
		for range max(p.copies, 1) {
			client, _, err := s.client(ctx, pool, name)
			if err != nil {
				return nil, err
			}
			consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 2, Batch: handBatch})
			pabal.HandleBatch(consumer, s.event, func(ctx context.Context, tx pgx.Tx, events []pabal.Received[bill]) error {
				nos := make([]int64, len(events))
				for k := range events {
					nos[k] = events[k].Data.No
					t.journal.handle(i, int(nos[k]))
				}
				_, err := tx.Exec(ctx, insertEffects, nos)
				return err
			})
			if err := s.run(ctx, client); err != nil {
				return nil, err
			}
		}
	}
	var err error
	for range 1 + p.relays {
		if s.order, s.store, err = s.client(ctx, t.order, "order"); err != nil {
			return nil, err
		}
		if err := s.run(ctx, s.order); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *pabalSite) client(ctx context.Context, pool *pgxpool.Pool, source string) (*pabal.Client[pgx.Tx], *pabalpgx.Store, error) {
	if _, err := pabalpgx.Migrate(ctx, pool, nil); err != nil {
		return nil, nil, err
	}
	store, err := pabalpgx.New(pool, nil)
	if err != nil {
		return nil, nil, err
	}
	broker, err := pabalnats.Connect(ctx, s.nats.URL, &pabalnats.Options{Stream: s.name, Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	s.closes = append(s.closes, func() { _ = broker.Close() })
	client, err := pabal.New(ctx, store, broker, source, &pabal.Options{Logger: quiet, Observer: &s.seen})
	return client, store, err
}

func (s *pabalSite) run(ctx context.Context, client *pabal.Client[pgx.Tx]) error {
	s.works.run(ctx, func() error { return client.Run(ctx) })
	return client.Ready(ctx)
}

func (s *pabalSite) owed() int { return int(s.seen.recorded.Load() - s.seen.confirmed.Load()) }

func (s *pabalSite) record(ctx context.Context, n int) error {
	err := s.buy(ctx, n, func(tx pgx.Tx) error { return s.order.Record(ctx, tx, s.event.New(billOf(n))) })
	s.seen.recorded.Add(1)
	return err
}

func (s *pabalSite) inTx(ctx context.Context, n int) error {
	err := s.store.InTx(ctx, s.order, func(tx *pabalpgx.Tx) error {
		if _, err := tx.Exec(ctx, insertOrder, n); err != nil {
			return err
		}
		tx.Record(s.event.New(billOf(n)))
		return nil
	})
	s.journal.commit(n)
	s.seen.recorded.Add(1)
	return err
}

// repeated is how many events were published more than once.
func (s *pabalSite) repeated() int { return int(s.seen.accepted.Load() - s.seen.recorded.Load()) }
