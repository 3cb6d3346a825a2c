package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsql"
)

// inside publishes within the transaction.
func inside(t *town) error {
	pay := func(no string, commit func(*sql.Tx) error) error {
		tx, err := t.orders.Begin()
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // after Commit it does nothing
		if _, err := tx.Exec("update orders set status = 'paid' where no = ?", no); err != nil {
			return err
		}
		if err := t.broker.publish(no); err != nil {
			return err
		}
		return commit(tx)
	}
	if err := errors.Join(t.place("A1"), t.place("A2")); err != nil {
		return err
	}
	t.say("The broker is away, and a customer pays A1.")
	t.broker.away.Store(true)
	t.say("  payment: %v", pay("A1", (*sql.Tx).Commit))
	t.say("  order A1 is %s: an outage of the messaging system is an outage of the shop", t.status("A1"))
	t.broker.away.Store(false)
	t.say("The database refuses to commit the payment of A2.")
	t.say("  payment: %v", pay("A2", func(tx *sql.Tx) error { return errors.Join(errors.New("disk full"), tx.Rollback()) }))
	if err := t.settle(); err != nil {
		return err
	}
	t.say("  order A2 is %s, and the ledger has %d entry: an event of something that never happened", t.status("A2"), t.ledger("A2"))
	return nil
}

// after publishes once the transaction has committed.
func after(t *town) error {
	if err := errors.Join(t.place("A1"), t.place("A2")); err != nil {
		return err
	}
	t.say("The broker is away, and a customer pays A1.")
	t.broker.away.Store(true)
	if err := payAndCommit(t.orders, "after", "A1"); err != nil {
		return err
	}
	t.say("  publish: %v", t.broker.publish("A1"))
	t.broker.away.Store(false)
	t.say("The process is killed between COMMIT and publish of A2.")
	if err := t.childDies("after"); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	for _, no := range []string{"A1", "A2"} {
		t.say("  order %s is %s, and the ledger has %d entries: nobody will ever tell the settlement service", no, t.status(no), t.ledger(no))
	}
	return nil
}

// polling keeps an outbox table, which a relay looks through every second.
func polling(t *town) error {
	if err := errors.Join(t.place("A1"), t.place("A2")); err != nil {
		return err
	}
	if _, err := t.orders.Exec("create table outbox (no text not null, published integer not null default 0)"); err != nil {
		return err
	}
	// relay publishes what is new; crash ends it between the broker's answer and its note of it.
	relay := func(crash bool) error {
		var no string
		for {
			err := t.orders.QueryRow("select no from outbox where published = 0 limit 1").Scan(&no)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err == nil {
				err = t.broker.publish(no)
			}
			if err == nil && crash {
				return errors.New("the relay was killed")
			}
			if err == nil {
				_, err = t.orders.Exec("update outbox set published = 1 where no = ?", no)
			}
			if err != nil {
				return err
			}
		}
	}
	t.say("The broker is away, and a customer pays A1.")
	t.broker.away.Store(true)
	if err := payAndCommit(t.orders, "polling", "A1"); err != nil {
		return err
	}
	t.say("  relay: %v", relay(false))
	t.broker.away.Store(false)
	t.say("The process is killed between COMMIT and publish of A2, and the relay between publish and its note.")
	if err := t.childDies("polling"); err != nil {
		return err
	}
	t.say("  relay: %v", relay(true))
	t.say("  relay, a second later: %v", relay(false))
	if err := t.settle(); err != nil {
		return err
	}
	t.say("  order A1 is %s, and the ledger has %d entries: told twice, booked twice", t.status("A1"), t.ledger("A1"))
	t.say("  order A2 is %s, and the ledger has %d entry: it was told, at the relay's next round", t.status("A2"), t.ledger("A2"))
	return nil
}

type paid struct {
	OrderNo string `json:"orderNo"`
	Amount  int    `json:"amount"`
}

var orderPaid = pabal.Define(topic, pabal.Key(func(p paid) string { return p.OrderNo }))

// withPabal records the event in the transaction and leaves the rest to two clients.
func withPabal(t *town) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := errors.Join(t.place("A1"), t.place("A2")); err != nil {
		return err
	}
	order, err := openClient(ctx, t.orders, t.broker, "order")
	if err != nil {
		return err
	}
	settlement, err := openClient(ctx, t.settlement, t.broker, "settlement")
	if err != nil {
		return err
	}
	pabal.Handle(settlement.Consumer("settlement", nil), orderPaid,
		func(ctx context.Context, tx *sql.Tx, e pabal.Received[paid]) error {
			_, err := tx.ExecContext(ctx, "insert into ledger values (?, ?)", e.Data.OrderNo, e.Data.Amount)
			return err
		})
	ended := make(chan error, 2)
	for _, client := range []*pabal.Client[*sql.Tx]{settlement, order} {
		go func() { ended <- client.Run(ctx) }()
		if err := client.Ready(ctx); err != nil {
			return err
		}
	}
	t.say("The broker is away, and a customer pays A1.")
	t.broker.away.Store(true)
	if err := pay(ctx, t.orders, order, "A1"); err != nil {
		return err
	}
	t.say("  payment: <nil>, order A1 is %s", t.status("A1"))
	t.broker.away.Store(false)
	t.say("The process is killed between COMMIT and publish of A2.")
	if err := t.childDies("pabal"); err != nil {
		return err
	}
	if err := t.await(ctx, order); err != nil {
		return err
	}
	for _, no := range []string{"A1", "A2"} {
		t.say("  order %s is %s, and the ledger has %d entry", no, t.status(no), t.ledger(no))
	}
	again := time.Now()
	if err := pay(ctx, t.orders, order, "A3"); err != nil {
		return err
	}
	for t.ledger("A3") == 0 && time.Since(again) < time.Minute {
		time.Sleep(time.Millisecond)
	}
	t.say("Nothing is wrong, and a customer pays A3.")
	t.say("  the ledger has %d entry, without anybody polling", t.ledger("A3"))
	if _, err := order.Redeliver(ctx, pabal.Redelivery{Topic: topic, By: "tutorial"}); err != nil {
		return err
	}
	t.say("Everything is delivered once more.")
	if err := t.redelivered(ctx, order); err != nil {
		return err
	}
	t.say("  the ledger has %d, %d and %d entry: an inbox knows what it has seen", t.ledger("A1"), t.ledger("A2"), t.ledger("A3"))
	stop()
	return errors.Join(<-ended, <-ended)
}

func openClient(ctx context.Context, db *sql.DB, broker driver.Broker, source string) (*pabal.Client[*sql.Tx], error) {
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return nil, err
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return nil, err
	}
	// The lease is what a killed process costs; 10 s by default.
	return pabal.New(ctx, store, broker, source, &pabal.Options{
		Lease: 3 * time.Second, PublishTimeout: time.Second, Sweep: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
}

// await waits until every event is confirmed and the ledger knows the orders.
func (t *town) await(ctx context.Context, order *pabal.Client[*sql.Tx]) error {
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(20 * time.Millisecond) {
		s, err := order.Status(ctx)
		if err != nil {
			return err
		}
		owed := 0
		for _, topic := range s.Topics {
			owed += topic.Waiting + topic.Parked
		}
		if owed == 0 && t.ledger("A1") > 0 && t.ledger("A2") > 0 {
			return nil
		}
	}
	return errors.New("the events are not there after a minute")
}

func (t *town) redelivered(ctx context.Context, order *pabal.Client[*sql.Tx]) error {
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(20 * time.Millisecond) {
		s, err := order.Status(ctx)
		if err != nil || len(s.Jobs) == 1 && s.Jobs[0].Finished {
			return err
		}
	}
	return errors.New("nothing was redelivered within a minute")
}

// recorder is what a payment needs of Pabal.
type recorder interface {
	Record(ctx context.Context, tx *sql.Tx, events ...pabal.Event) error
}

func pay(ctx context.Context, db *sql.DB, r recorder, no string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "update orders set status = 'paid' where no = ?", no); err != nil {
		return err
	}
	if err := r.Record(ctx, tx, orderPaid.New(paid{no, 100})); err != nil {
		return err
	}
	return tx.Commit()
}

// payAndCommit pays an order, and writes down in the same transaction what the way asks for.
func payAndCommit(db *sql.DB, way, no string) error {
	if way == "pabal" {
		client, err := openClient(context.Background(), db, nothing{}, "order")
		if err != nil {
			return err
		}
		return pay(context.Background(), db, client, no)
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.Exec("update orders set status = 'paid' where no = ?", no); err != nil {
		return err
	}
	if way == "polling" {
		if _, err := tx.Exec("insert into outbox (no) values (?)", no); err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	return tx.Commit()
}

// nothing is the broker of a process that dies before it needs one.
type nothing struct{ driver.Broker }

func (nothing) Limits() driver.Limits { return driver.Limits{} }
