package pabal_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
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
