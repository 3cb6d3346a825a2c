package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

// The embedded default: an order service and a settlement service, each with a SQLite database, and NATS, in this process.

// gate is a broker that can be away: nothing gets through, and nothing is answered well. Or only what is redelivered waits.
type gate struct {
	driver.Broker
	closed atomic.Bool
	held   atomic.Bool // messages to one queue, which redeliveries send, wait before it
	again  atomic.Bool // one has come
}

var errAway = errors.New("the broker is away")

// Check implements driver.Broker.
func (g *gate) Check(ctx context.Context, t driver.Topology, create bool) error {
	if g.closed.Load() {
		return errAway
	}
	return g.Broker.Check(ctx, t, create)
}

// Publish implements driver.Broker.
func (g *gate) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	if to.Queue != "" {
		g.again.Store(true)
	}
	for to.Queue != "" && g.held.Load() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if !g.closed.Load() {
		return g.Broker.Publish(ctx, to, messages)
	}
	verdicts := make([]driver.Verdict, len(messages))
	for i := range verdicts {
		verdicts[i].Err = errAway
	}
	return verdicts
}

// Receive implements driver.Broker.
func (g *gate) Receive(ctx context.Context, queue string, most int) ([]driver.Delivery, error) {
	if g.closed.Load() {
		return nil, errAway
	}
	return g.Broker.Receive(ctx, queue, most)
}

// small is what runs.
type small struct {
	works   *works
	broker  gate
	order   *pabal.Client[*sql.Tx]
	db      *sql.DB // the order service's
	journal *journal
	seen    published
	closes  []func() error
}

const createEffectsLite = `create table effect (no integer not null)`

func (b *bench) small(ctx context.Context, name string, journal *journal) (s *small, err error) {
	s = &small{journal: journal}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	s.works, ctx = newWorks(ctx)
	dir, err := b.path(name)
	if err != nil {
		return s, err
	}
	s.closes = append(s.closes, func() error { return os.RemoveAll(dir) })
	broker, err := pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: quiet})
	if err != nil {
		return s, err
	}
	s.closes = append(s.closes, broker.Close)
	s.broker.Broker = broker
	settlementDB, settlement, err := s.client(ctx, filepath.Join(dir, "settlement.db"), "settlement", createEffectsLite)
	if err != nil {
		return s, err
	}
	_ = settlementDB
	consumer := settlement.Consumer("settlement", &pabal.ConsumerOptions{Concurrency: 1})
	pabal.HandleBatch(consumer, keyedPaid, func(ctx context.Context, tx *sql.Tx, events []pabal.Received[bill]) error {
		for _, e := range events {
			if no := int(e.Data.No); no < len(journal.committed) {
				journal.handle(0, no)
			}
			if _, err := tx.ExecContext(ctx, `insert into effect values (?)`, e.Data.No); err != nil {
				return err
			}
		}
		return nil
	})
	if s.db, s.order, err = s.client(ctx, filepath.Join(dir, "order.db"), "order", `create table orders (no integer primary key, status text not null)`); err != nil {
		return s, err
	}
	for _, c := range []*pabal.Client[*sql.Tx]{settlement, s.order} {
		s.works.run(ctx, func() error { return c.Run(ctx) })
		if err := c.Ready(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *small) client(ctx context.Context, file, source, create string) (*sql.DB, *pabal.Client[*sql.Tx], error) {
	db, client, err := openClient(ctx, file, &s.broker, source, &pabal.Options{Logger: quiet, Observer: &s.seen})
	if err != nil {
		return nil, nil, err
	}
	s.closes = append(s.closes, db.Close)
	_, err = db.ExecContext(ctx, create)
	return db, client, err
}

func (s *small) stop() error {
	err := s.works.stop()
	for n := len(s.closes) - 1; n >= 0; n-- {
		err = errors.Join(err, s.closes[n]())
	}
	return err
}

// write commits order n with its event.
func (s *small) write(ctx context.Context, n int) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, `insert into orders values (?, 'paid')`, n); err != nil {
		return err
	}
	if err := s.order.Record(ctx, tx, keyedPaid.New(billOf(n))); err != nil {
		return err
	}
	err = tx.Commit()
	s.journal.commit(n)
	s.seen.recorded.Add(1)
	return err
}

func (s *small) owed() int { return int(s.seen.recorded.Load() - s.seen.confirmed.Load()) }

const smallWarm = 3 * time.Second

// fullRate is how many orders a second the embedded default takes, confirmed ones.
func (b *bench) fullRateEmbedded(ctx context.Context) (float64, error) {
	const most = 100_000
	s, err := b.small(ctx, "full", newJournal(most, 1))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = traffic{events: most, writers: 4, ahead: 2000, length: smallWarm}.run(ctx, s.owed, func(n int) error { return s.write(ctx, n) })
	for err == nil && s.owed() > 0 {
		time.Sleep(time.Millisecond)
		err = ctx.Err()
	}
	rate := float64(s.seen.confirmed.Load()) / time.Since(began).Seconds()
	return rate, errors.Join(err, s.stop())
}

// outageRows has the broker away for a while, beside traffic at half of what the embedded default takes.
func outageRows(ctx context.Context, b *bench) (rows []row, err error) {
	full, err := b.fullRateEmbedded(ctx)
	if err != nil {
		return nil, err
	}
	phases := [3]time.Duration{10 * time.Second, b.long, 5 * time.Second} // before, during, after
	rate := int(full / 2)
	total := ordersOf(phases, rate)
	s, err := b.small(ctx, "outage", newJournal(total+1, 1))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	switched := func(away bool) func() error { return func() error { s.broker.closed.Store(away); return nil } }
	o := &outageRun{
		rate: rate, write: s.write, owed: s.owed, journal: s.journal, took: make([]time.Duration, total+1),
		away: switched(true), back: switched(false),
	}
	if err := o.run(ctx, phases, total); err != nil {
		return nil, err
	}
	return o.rows(fmt.Sprintf("embedded default, which takes %.0f orders/s: broker", full), phases, &s.seen, 60), nil
}
