package pabal_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
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
