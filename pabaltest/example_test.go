package pabaltest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

// In a test, t is the *testing.T; an example has none.
func ExampleNew() {
	var t testing.TB = inExample{}
	post := pabaltest.New(t)
	order, settlement := post.Client("order"), post.Client("settlement")
	pabal.Handle(settlement.Consumer("settlement", nil), orderPaid,
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[paid]) error {
			return tx.Put(ctx, "ledger", e.Data.OrderNo, e.Data.Amount)
		})
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, orderPaid.New(paid{"A1", 100}))
	})
	if err != nil {
		t.Fatal(err)
	}
	post.Settle(time.Minute)
	fmt.Println(pabaltest.Recorded(post, orderPaid)[0].Data, post.Get(settlement, "ledger", "A1"))
	// Output: {A1 100} 100
}

type inExample struct{ testing.TB }

func (inExample) Helper()        {}
func (inExample) Cleanup(func()) {}
