package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/shop"
)

// prices changes the prices of some products beside a load, each to the next higher one, and has the order service's database write
// down each price that the service is told, in the transaction of its handler: the order of events, as their consumer saw it.
type prices struct {
	street   *street
	database string // of the order service, on PostgreSQL
	watched  bool
	answered map[string]int64 // the last price of each product that was answered
}

const (
	priced     = 8
	priceEvery = 50 * time.Millisecond
)

// The row's lock lets one transaction after the other pass for a product, so that n grows in the order of their commits.
var watchPrices = []string{
	"create table told (n bigint generated always as identity, product_id text not null, amount bigint not null)",
	`create function tell() returns trigger language plpgsql as
		'begin insert into told (product_id, amount) values (new.product_id, new.amount); return null; end'`,
	"create trigger tell after insert or update on price for each row execute function tell()",
}

// change makes one change after the other, until it is stopped: what it answers waits for the last of them.
func (p *prices) change() (stop func()) {
	p.street.t.Helper()
	if !p.watched {
		for _, statement := range watchPrices {
			query(p.street.t, p.database, statement)
		}
		p.watched = true
	}
	ctx, cancel := context.WithCancel(p.street.t.Context())
	client := &http.Client{Transport: p.street, Timeout: 10 * time.Second}
	var changing sync.WaitGroup
	changing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			id := fmt.Sprintf("raised-%d", n%priced)
			for next := p.answered[id] + 1; ctx.Err() == nil; {
				if p.set(client, id, next) {
					p.answered[id] = next
					break
				}
				pause(ctx, priceEvery)
			}
			pause(ctx, priceEvery)
		}
	})
	return func() {
		cancel()
		changing.Wait()
	}
}

// set reports whether the price is what it is to be. One whose answer was lost may be set again: that is no event.
func (p *prices) set(client *http.Client, id string, amount int64) bool {
	body, err := json.Marshal(shop.Pricing{SellerID: "raiser", Name: "Tea", Price: shop.Money{Amount: amount, Currency: "KRW"}})
	if err != nil {
		panic(err)
	}
	request, err := http.NewRequest(http.MethodPut, "http://shop/products/"+id+"/price", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	if answer.StatusCode/100 == 4 {
		p.street.t.Errorf("price %d of %s: %s", amount, id, answer.Status)
	}
	return answer.StatusCode/100 == 2
}

// inOrder demands that each product's prices were told in the order of their changes, each once, up to the last. Those that came
// together may have been told as one.
func (p *prices) inOrder(t *testing.T) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), p.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // only read
	rows, err := db.Query(t.Context(), "select product_id, amount from told order by n")
	if err != nil {
		t.Fatal(err)
	}
	last, told, all := map[string]int64{}, 0, int64(0)
	var id string
	var amount int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &amount}, func() error {
		if _, ours := p.answered[id]; ours {
			if amount <= last[id] {
				t.Errorf("the order service was told price %d of %s after %d", amount, id, last[id])
			}
			last[id] = amount
			told++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for id, amount := range p.answered {
		if all += amount; last[id] < amount || last[id] > amount+1 { // the very last change may not have been answered
			t.Errorf("price %d of %s was answered, the last that the order service was told is %d", amount, id, last[id])
		}
	}
	if told == 0 {
		t.Error("no price was told: that proves nothing")
	}
	t.Logf("%d changes of prices, of which the order service was told %d times, in order", all, told)
}
