package pabal_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabaltest"
)

var legacyPaid = pabal.Define[Paid]("legacy-pay-done").On("order-pay-done").Bare()

func TestBareEventIsHandledRetriedAndConfirmed(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	var tries []int
	pabal.Handle(order.Consumer("audit", nil), legacyPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		tries = append(tries, e.Attempt)
		if e.Data.OrderNo != "A1" || e.Source != "order" || e.Topic != "order-pay-done" || e.RecordedAt.IsZero() {
			t.Errorf("received %+v", e)
		}
		if e.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, legacyPaid.New(Paid{"A1", 7})) })
	if err != nil {
		t.Fatal(err)
	}
	post.Settle(time.Minute) // fails if it is not confirmed
	if len(tries) != 3 || tries[2] != 3 {
		t.Errorf("tried %v", tries)
	}
}

func TestBareTypesRefuseWhatTheirMessagesCannotCarry(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	binary := pabal.Define[[]byte]("legacy-file").Bare()
	for name, c := range map[string]struct {
		event pabal.Event
		want  string
	}{
		"a key":      {pabal.Define("a", pabal.Key(func(Paid) string { return "k" })).Bare().New(Paid{}), "can have no Key"},
		"a version":  {pabal.Define[Paid]("a").Version("2").Bare().New(Paid{}), "no place for a Version"},
		"headers":    {legacyPaid.New(Paid{}).With("a", "b"), "no place for them"},
		"binary":     {binary.New([]byte{1, 2}), "UTF-8 text"},
		"a nonchar":  {binary.New([]byte("\uffff")), "UTF-8 text"},
		"no payload": {binary.New(nil), "is empty"},
	} {
		err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, c.event) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// confirmsNever is a store whose confirmations are lost for as long as lost says so.
type confirmsNever struct {
	*sim.Store
	lost bool
}

func (s *confirmsNever) Confirm(ctx context.Context, refs []driver.Ref) ([]driver.Confirmation, error) {
	if s.lost {
		return nil, errors.New("connection lost")
	}
	return s.Store.Confirm(ctx, refs)
}

// TestBareEventThatWasHalfSkippedIsNeverPublished: no message of it could say that it is a skip, so that who retries it ends the skip.
func TestBareEventThatWasHalfSkippedIsNeverPublished(t *testing.T) {
	s := sim.New(1, sim.Faults{})
	defer s.Close()
	process := s.Process("order")
	store := &confirmsNever{Store: sim.NewDatabase(process.World(), sim.DatabaseOptions{}).Connect(process.World(), sim.Direct), lost: true}
	broker := sim.NewBrokerServer(process.World(), sim.BrokerOptions{})
	done := false
	process.Go("test", func(w world.World) {
		defer func() { done = true }()
		client, err := pabal.New(t.Context(), store, broker.Connect(process.World(), sim.Direct), "order",
			&pabal.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Error(err)
			return
		}
		tx, err := store.Begin(t.Context())
		if err == nil {
			err = errors.Join(client.Record(t.Context(), tx, legacyPaid.New(Paid{"A1", 7})), tx.Commit(t.Context()))
		}
		if err != nil {
			t.Error(err)
			return
		}
		all := driver.EventFilter{Limit: 10}
		found, err := client.Events(t.Context(), all)
		if err != nil || len(found) != 1 {
			t.Errorf("%+v, %v", found, err)
			return
		}
		if n, err := client.Skip(t.Context(), found[0].Event.ID); n != 1 || err == nil {
			t.Errorf("skipped %d, %v", n, err)
		}
		if found, err = client.Events(t.Context(), all); err != nil || found[0].Pending == nil || !found[0].Pending.Parked() {
			t.Errorf("%+v, %v", found, err)
		}
		store.lost = false
		if n, err := client.Retry(t.Context(), found[0].Event.ID); n != 1 || err != nil {
			t.Errorf("retried %d, %v", n, err)
		}
		if found, err = client.Events(t.Context(), all); err != nil || found[0].Pending != nil {
			t.Errorf("not settled: %+v, %v", found, err)
		}
	})
	_ = s.Run(time.Minute, func() bool { return done })
	if n := broker.Accepted(); n > 0 || !done {
		t.Errorf("published %d times", n)
	}
}
