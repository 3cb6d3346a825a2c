package pabal_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabaltest"
)

// TestBatchOfManyKeysKeepsTheOrderOfEach: one transaction moves the cursors of all of them.
func TestBatchOfManyKeysKeepsTheOrderOfEach(t *testing.T) {
	p := newProtocol(t)
	client := p.Client("billing")
	most := 0
	seen := map[string][]int{}
	consumer := client.Consumer("billing", &pabal.ConsumerOptions{Concurrency: 1})
	pabal.HandleBatch(consumer, OrderPaid, func(_ context.Context, _ pabaltest.Tx, es []pabal.Received[Paid]) error {
		keys := map[string]bool{}
		for _, e := range es {
			keys[e.Key] = true
			seen[e.Key] = append(seen[e.Key], e.Data.Amount)
		}
		most = max(most, len(keys))
		return nil
	})
	const keys, each = 20, 3
	var events []pabal.Event
	for n := range each {
		for key := range keys {
			events = append(events, pay(fmt.Sprintf("A%d", key), n))
		}
	}
	p.record(events...)
	p.Settle(time.Minute)
	if most < keys {
		t.Errorf("a batch had %d keys at most, of %d", most, keys)
	}
	for key := range keys {
		if got := seen[fmt.Sprintf("A%d", key)]; !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("A%d: %v", key, got)
		}
	}
	if rows, err := client.Received(t.Context(), "billing", driver.RowFilter{Limit: 10}); err != nil || len(rows) != 0 {
		t.Errorf("%v, kept %q", err, kept(rows))
	}
}

// TestFewMessagesInFlightAreEnough: a broker may leave fewer messages to a consumer than would be received at a time.
func TestFewMessagesInFlightAreEnough(t *testing.T) {
	const events = 30
	for _, inFlight := range []int{1, 2, 12} {
		s := sim.New(1, sim.Faults{})
		process := s.Process("order")
		w := process.World()
		store := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)
		limits := driver.Limits{Message: 1 << 20, Hold: 30 * time.Second, Wait: 5 * time.Second, InFlight: inFlight}
		broker := sim.NewBrokerServer(w, sim.BrokerOptions{Limits: limits}).Connect(w, sim.Direct)
		client, err := pabal.New(t.Context(), store, broker, "order", &pabal.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		handled := 0
		pabal.Handle(client.Consumer("settlement", nil), OrderPaid, func(context.Context, *sim.Tx, pabal.Received[Paid]) error {
			handled++
			return nil
		})
		process.Go("run", func(world.World) { _ = client.Run(t.Context()) })
		process.Go("record", func(w world.World) {
			_ = w.Sleep(t.Context(), time.Second)
			for n := range events {
				tx, err := store.Begin(t.Context())
				if err == nil {
					err = client.Record(t.Context(), tx, pay("A1", n))
				}
				if err != nil || tx.Commit(t.Context()) != nil {
					t.Error(err)
				}
			}
		})
		_ = s.Run(time.Minute, func() bool { return handled == events })
		if s.Close(); handled != events {
			t.Errorf("with %d messages in flight at most, %d of %d events are handled", inFlight, handled, events)
		}
	}
}

// TestSuccessorThatRollsBackABatchHasFailedAlone: the batch is of what was received and of what was held behind it.
func TestSuccessorThatRollsBackABatchHasFailedAlone(t *testing.T) {
	p := newProtocol(t)
	client := p.ClientWith("settlement", &p.options)
	pabal.HandleBatch(client.Consumer("settlement", &pabal.ConsumerOptions{Tries: 3}), OrderPaid,
		func(ctx context.Context, tx pabaltest.Tx, es []pabal.Received[Paid]) error {
			for _, e := range es {
				if err := tx.Put(ctx, "effect", e.ID.String(), 1); err != nil {
					return err
				}
				if e.Data.Amount == 2 {
					tx.Rollback(ctx)
					return nil // and says that all is well
				}
			}
			return nil
		})
	b := p.intercept(pay("A1", 1), pay("A1", 2))
	p.deliver(b[1], b[0])
	p.Pass(time.Minute)
	rows := p.received(client)
	if len(rows) != 1 || rows[0].State != driver.Parked || rows[0].ID != p.events()[1].Event.ID || p.effects(client) != 1 {
		t.Errorf("%d effects, kept %q", p.effects(client), kept(rows))
	}
}
