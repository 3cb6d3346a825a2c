package tests

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/shop"
)

// received makes events as handlers get them.
func received[T any](data ...T) (events []pabal.Received[T]) {
	for _, d := range data {
		events = append(events, pabal.Received[T]{ID: uuid.Must(uuid.NewV7()), Attempt: 1, Data: d})
	}
	return events
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func won(amount int64) shop.Money { return shop.Money{Amount: amount, Currency: "KRW"} }

func paid(no, seller string, amount int64) shop.Paid {
	return shop.Paid{OrderNo: no, MemberID: "m", SellerID: seller, Total: won(amount), PaymentID: "p", PaidAt: noon}
}

func refunded(no, seller string, amount int64) shop.Cancelled {
	return shop.Cancelled{OrderNo: no, MemberID: "m", SellerID: seller, Total: won(amount), Paid: true, CancelledAt: noon}
}

func TestLedgerEndsRightInWhateverOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		settlements, s := opened[*shop.Settlements](t, "settlement", shop.Options{})
		var steps []func(tx *sql.Tx) error
		var net, gross int64
		for i := range 12 {
			no, amount := fmt.Sprintf("o%02d", i), 1+random.Int64N(1000)
			payments, reversals := received(paid(no, "a", amount)), received(refunded(no, "a", amount))
			gross += amount
			steps = append(steps, func(tx *sql.Tx) error { return settlements.Paid(t.Context(), tx, payments) })
			if i%3 == 0 {
				steps = append(steps, func(tx *sql.Tx) error { return settlements.Cancelled(t.Context(), tx, reversals) })
			} else {
				net += amount
			}
			if i%4 == 0 { // an operator's redelivery
				again := slices.Clone(payments)
				again[0].Job = uuid.New()
				steps = append(steps, func(tx *sql.Tx) error { return settlements.Paid(t.Context(), tx, again) })
			}
		}
		random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		for _, step := range steps {
			s.inTx(t, step)
		}
		days, err := settlements.Day(t.Context(), "a", "2026-03-01")
		if err != nil || len(days) != 1 {
			t.Fatalf("settlement: %+v, %v", days, err)
		}
		want := shop.Settlement{SellerID: "a", Day: "2026-03-01", Payments: 12, Reversals: 4, Paid: won(gross),
			Reversed: won(net - gross), Net: won(net)}
		if days[0] != want {
			t.Errorf("settled %+v, not %+v", days[0], want)
		}
	}
}

func TestBatchOfPaymentsIsBookedBySellerAndDay(t *testing.T) {
	settlements, s := opened[*shop.Settlements](t, "settlement", shop.Options{})
	late := paid("o3", "a", 7)
	late.PaidAt = noon.Add(12 * time.Hour)
	dollars := paid("o4", "a", 5)
	dollars.Total.Currency = "USD"
	s.inTx(t, func(tx *sql.Tx) error {
		return settlements.Paid(t.Context(), tx, received(paid("o1", "a", 10), paid("o2", "b", 20), late, dollars,
			paid("o5", "a", 30)))
	})
	s.inTx(t, func(tx *sql.Tx) error { // an order that was never paid has no reversal
		unpaid := refunded("o6", "a", 3)
		unpaid.Paid = false
		return settlements.Cancelled(t.Context(), tx, received(unpaid))
	})
	for _, c := range []struct{ seller, day, want string }{
		{"a", "2026-03-01", "40 KRW, 0.05 USD"}, {"b", "2026-03-01", "20 KRW"}, {"a", "2026-03-02", "7 KRW"}, {"c", "2026-03-01", ""},
	} {
		days, err := settlements.Day(t.Context(), c.seller, c.day)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range days {
			got = append(got, d.Net.String())
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("seller %s, %s: %v, not %s", c.seller, c.day, got, c.want)
		}
	}
	if _, err := settlements.Day(t.Context(), "a", "1.3.2026"); problem(t, err) != "invalid" {
		t.Errorf("not a day: %v", err)
	}
	if entries, err := settlements.Ledger(t.Context(), "o2"); err != nil || len(entries) != 1 || entries[0].Amount != won(20) {
		t.Errorf("ledger of o2: %+v, %v", entries, err)
	}
	if _, err := settlements.Ledger(t.Context(), "o6"); problem(t, err) != "not-found" {
		t.Errorf("ledger of o6: %v", err)
	}
}

func TestEachWhoAskedHearsOfARestockOnce(t *testing.T) {
	notifications, s := opened[*shop.Notifications](t, "notification", shop.Options{})
	ctx := t.Context()
	ask := func(members ...string) []pabal.Received[shop.AlertRequested] {
		var asked []shop.AlertRequested
		for _, m := range members {
			asked = append(asked, shop.AlertRequested{ProductID: "tea", MemberID: m, RequestedAt: noon})
		}
		return received(asked...)
	}
	restock := func(quantity int64) {
		s.inTx(t, func(tx *sql.Tx) error {
			return notifications.Restocked(ctx, tx, received(shop.Restocked{ProductID: "tea", Name: "Tea", Quantity: quantity}))
		})
	}
	first := ask("m1", "m2", "m1")
	s.inTx(t, func(tx *sql.Tx) error { return notifications.AlertRequested(ctx, tx, first) })
	restock(5)
	restock(6) // nobody waits
	s.inTx(t, func(tx *sql.Tx) error { return notifications.AlertRequested(ctx, tx, ask("m2")) })
	s.inTx(t, func(tx *sql.Tx) error { return notifications.AlertRequested(ctx, tx, first[:1]) }) // redelivered
	restock(7)
	for member, want := range map[string]int{"m1": 1, "m2": 2} {
		messages, err := notifications.List(ctx, member, "", "", 10)
		if err != nil || len(messages) != want {
			t.Errorf("%s hears %d times, not %d (%v): %+v", member, len(messages), want, err, messages)
		}
	}
	about, err := notifications.List(ctx, "", "tea", "", 10)
	if err != nil || len(about) != 3 || about[len(about)-1].Body != "Tea is back: 5 pieces arrived." {
		t.Errorf("messages about tea: %+v, %v", about, err)
	}
}

// TestReconcileFindsEveryDifference breaks the books in each way in turn.
func TestReconcileFindsEveryDifference(t *testing.T) {
	for _, c := range []struct{ role, statement, want string }{
		{"", "", ""},
		{"settlement", "delete from ledger where kind = 'payment'", "payments in the ledger: 0, not 2"},
		{"settlement", "update ledger set amount = amount + 1 where kind = 'reversal'", "not payment of 200 KRW for a and reversal"},
		{"settlement", "update ledger set handled = 2 where kind = 'reversal'", "its reversal was handled 2 times"},
		{"settlement", "update settlement set paid = paid - 1", "the ledger's sum is 200 KRW"},
		{"settlement", "delete from settlement", "not settled, the ledger's sum is 200 KRW"},
		{"settlement", "update ledger set order_no = 'X' where kind = 'reversal'", "order X: unknown to the order service"},
		{"notification", "delete from message where kind = 'cancelled'", "messages about cancellations: 0, not 1"},
		{"notification", "update message set handled = 2 where kind = 'paid'", "its event paid was handled 2 times"},
		{"order", "update orders set status = 'paid', paid_at = 1 where status = 'placed'", "payments in the ledger: 2, not 3"},
		{"order", "update orders set amount = amount + 1", "ledger has payment of 200 KRW for a, not payment of 201 KRW"},
		{"order", notConfirmed(), "events order-pay-done confirmed: 0, not 2"},
	} {
		v := closedVillage(t)
		if c.role != "" {
			if _, err := v.stations[c.role].db.ExecContext(t.Context(), c.statement); err != nil {
				t.Fatalf("%s: %v", c.statement, err)
			}
		}
		r, err := shop.Reconcile(t.Context(), v.books(time.Nanosecond))
		if err != nil {
			t.Fatal(err)
		}
		found := strings.Join(r.Differences, "\n")
		if c.want == "" && found != "" || !strings.Contains(found, c.want) {
			t.Errorf("%s\nwant: %s\nfound: %s", c.statement, c.want, found)
		}
	}
}

// allConfirmed and notConfirmed are statements that say of all events when they were confirmed, or that they were not.
func allConfirmed() string {
	if on.dialect == "postgres" {
		return "insert into pabal_published (recorded_at, id, published_at) select recorded_at, id, recorded_at from pabal_event"
	}
	return "update pabal_event set published_at = recorded_at"
}

func notConfirmed() string {
	if on.dialect == "postgres" {
		return "delete from pabal_published"
	}
	return "update pabal_event set published_at = null"
}

// closedVillage has books that agree: three orders, one placed, one paid, one refunded, all events handled and confirmed.
func closedVillage(t *testing.T) *village {
	t.Helper()
	v := &village{stations: map[string]*station{}}
	dir := t.TempDir()
	for _, role := range shop.Roles() {
		v.stations[role] = openStation(t, filepath.Join(dir, role+".db"), role, silent{}, shop.Options{Logger: quiet()})
		t.Cleanup(func() { _ = v.stations[role].db.Close() })
	}
	ctx := t.Context()
	order, settlement, notification := v.stations["order"], v.stations["settlement"], v.stations["notification"]
	orders, settlements := order.service.(*shop.Orders), settlement.service.(*shop.Settlements)
	notifications := notification.service.(*shop.Notifications)
	order.inTx(t, func(tx *sql.Tx) error {
		return orders.Priced(ctx, tx, received(shop.PriceChanged{ProductID: "tea", SellerID: "a", Price: won(100)}))
	})
	place(t, orders)
	for _, cancel := range []bool{false, true} {
		o := place(t, orders)
		pay(t, orders, o)
		payments := received(paid(o.No, "a", 200))
		settlement.inTx(t, func(tx *sql.Tx) error { return settlements.Paid(ctx, tx, payments) })
		notification.inTx(t, func(tx *sql.Tx) error { return notifications.Paid(ctx, tx, payments) })
		if !cancel {
			continue
		}
		if _, err := orders.Cancel(ctx, o.No, shop.Cancellation{}); err != nil {
			t.Fatal(err)
		}
		reversals := received(refunded(o.No, "a", 200))
		settlement.inTx(t, func(tx *sql.Tx) error { return settlements.Cancelled(ctx, tx, reversals) })
		notification.inTx(t, func(tx *sql.Tx) error { return notifications.Cancelled(ctx, tx, reversals) })
	}
	for _, statement := range []string{"delete from pabal_pending", allConfirmed()} {
		if _, err := order.db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	return v
}
