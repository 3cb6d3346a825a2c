package pabaltest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

type paid struct {
	OrderNo string
	Amount  int
}

var orderPaid = pabal.Define("order-pay-done", pabal.Key(func(p paid) string { return p.OrderNo }))

func TestEventReachesItsHandlerInOrderAndOnce(t *testing.T) {
	post := pabaltest.New(t)
	order, settlement := post.Client("order"), post.Client("settlement")
	var amounts []int
	failures := 2
	pabal.Handle(settlement.Consumer("settlement", nil), orderPaid,
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[paid]) error {
			if failures--; failures >= 0 {
				return errors.New("not today")
			}
			amounts = append(amounts, e.Data.Amount)
			return tx.Put(ctx, "ledger", e.ID.String(), e.Data.Amount)
		})
	for n := range 5 {
		err := post.InTx(order, func(tx pabaltest.Tx) error {
			return order.Record(t.Context(), tx, orderPaid.New(paid{"A1", n}))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	post.Settle(time.Minute)
	if fmt.Sprint(amounts) != "[0 1 2 3 4]" {
		t.Errorf("handled %v", amounts)
	}
	events := pabaltest.Recorded(post, orderPaid)
	if len(events) != 5 || events[4].Data.Amount != 4 || events[4].Key != "A1" || events[4].Source != "order" {
		t.Fatalf("recorded %+v", events)
	}
	if got := post.Get(settlement, "ledger", events[3].ID.String()); got != 3 {
		t.Errorf("the ledger says %v", got)
	}
}

func TestRolledBackTransactionRecordsNothing(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	changed := errors.New("changed my mind")
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		return errors.Join(order.Record(t.Context(), tx, orderPaid.New(paid{"A1", 1})), changed)
	})
	post.Settle(time.Minute)
	if !errors.Is(err, changed) || len(pabaltest.Recorded(post, orderPaid)) != 0 {
		t.Errorf("%v; recorded %v", err, pabaltest.Recorded(post, orderPaid))
	}
}

// complaint is a testing.TB that keeps the test going.
type complaint struct {
	testing.TB
	text string
}

func (c *complaint) Fatalf(format string, args ...any) {
	c.text = fmt.Sprintf(format, args...)
	panic(c)
}

func TestSettleSaysWhatIsOwed(t *testing.T) {
	c := &complaint{TB: t}
	post := pabaltest.New(c)
	order := post.Client("order")
	consumer := order.Consumer("audit", &pabal.ConsumerOptions{Tries: 100})
	pabal.Handle(consumer, orderPaid, func(context.Context, pabaltest.Tx, pabal.Received[paid]) error { return errors.New("never") })
	_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, orderPaid.New(paid{"A1", 1})) })
	defer func() {
		if recover() == nil || !strings.Contains(c.text, "audit") || !strings.Contains(c.text, "never") {
			t.Errorf("Settle says %q", c.text)
		}
	}()
	post.Settle(time.Minute)
}

func TestParkedEventsAreNotWaitedFor(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	consumer := order.Consumer("audit", &pabal.ConsumerOptions{Tries: 2})
	pabal.Handle(consumer, orderPaid, func(context.Context, pabaltest.Tx, pabal.Received[paid]) error { return errors.New("never") })
	_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, orderPaid.New(paid{"A1", 1})) })
	post.Settle(time.Minute)
	status, err := order.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(status.Troubles) != 1 || !strings.Contains(status.Troubles[0].What, "is parked: failed") {
		t.Errorf("status says %+v", status.Troubles)
	}
}
