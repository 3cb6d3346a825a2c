package pabalpgx_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// What somebody else holds locked a claim passes over, and takes the rest at once.
func TestClaimSkipsWhatIsLocked(t *testing.T) {
	pool, _ := open(t)
	store := newStore(t, pool)
	list := record(t, pool, store, "", "", "")
	holder := must(pool.Begin(t.Context()))(t)
	defer holder.Rollback(context.Background()) //nolint:errcheck // of a test
	must(holder.Exec(t.Context(), `select from pabal_pending where id = $1 for update`, list[0].ID))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	take := func(_ time.Time, rows []driver.Pending) (decisions []driver.Decision) {
		for _, p := range rows {
			decisions = append(decisions, driver.Decision{Pending: p})
		}
		return decisions
	}
	for _, s := range []driver.Selection{
		{Topic: "paid", Limit: 10, Decide: take},
		{IDs: []driver.Ref{list[0].Ref(), list[1].Ref(), list[2].Ref()}, Decide: take},
	} {
		claimed, err := store.Claim(ctx, s)
		if err != nil || len(claimed) != 2 {
			t.Errorf("claimed %d of the 2 that are free: %v", len(claimed), err)
		}
	}
	var verdicts []driver.Settlement
	for i := range list {
		verdicts = append(verdicts, driver.Settlement{ID: list[i].ID, RecordedAt: list[i].RecordedAt, Park: true})
	}
	if err := store.Settle(ctx, verdicts); err != nil {
		t.Error(err)
	}
	var parked int
	if err := pool.QueryRow(ctx, `select count(*) from pabal_pending where due_at is null`).Scan(&parked); err != nil || parked != 2 {
		t.Errorf("%d of 2 are parked: %v", parked, err)
	}
}

// Counters are locked in one order, whatever the order of the events: transactions that record the same keys do not
// deadlock, neither with keys that are new nor with those that are known.
func TestRecordLocksCountersInOrder(t *testing.T) {
	pool, _ := open(t)
	store := newStore(t, pool)
	for round := range 20 {
		var keys []string
		for i := range 40 {
			keys = append(keys, fmt.Sprintf("%d-%d", round/2, i))
		}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				mine := slices.Clone(keys)
				if i%2 == 1 {
					slices.Reverse(mine)
				}
				var events []driver.Event
				for _, key := range mine {
					events = append(events, driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: "order-paid", Key: key})
				}
				tx, err := pool.Begin(t.Context())
				if err == nil {
					err = store.Record(t.Context(), tx, driver.Recording{Events: events, Outcome: func(driver.CommitState) {}})
				}
				if err == nil {
					err = tx.Commit(t.Context())
				} else if tx != nil {
					_ = tx.Rollback(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
