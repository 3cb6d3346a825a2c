package tests

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/shop"
)

// silent is a broker of a client that does not run.
type silent struct{ driver.Broker }

func (silent) Limits() driver.Limits { return driver.Limits{} }

// opened opens one service on a database of its own, without running anything.
func opened[S shop.Service](t testing.TB, role string, o shop.Options) (S, *station) {
	t.Helper()
	o.Logger = quiet()
	s := openStation(t, filepath.Join(t.TempDir(), role+".db"), role, silent{}, o)
	t.Cleanup(func() {
		if err := errors.Join(s.service.Close(), s.db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s.service.(S), s
}

// recorded lists the types and payloads of the events that a station recorded.
func (s *station) recorded(t *testing.T) (events []string) {
	t.Helper()
	found, err := s.client.Events(t.Context(), driver.EventFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		events = append(events, f.Event.Type+" "+string(f.Event.Payload))
	}
	return events
}

func (s *station) count(t *testing.T, eventType string) (n int) {
	t.Helper()
	for _, e := range s.recorded(t) {
		if strings.HasPrefix(e, eventType+" ") {
			n++
		}
	}
	return n
}

// inTx runs a handler as Pabal would.
func (s *station) inTx(t testing.TB, handle func(tx *sql.Tx) error) {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(handle(tx), tx.Commit()); err != nil {
		t.Fatal(err)
	}
}

// problem is the name of the problem that err is, "" for none.
func problem(t *testing.T, err error) string {
	t.Helper()
	var p *shop.Problem
	if err != nil && !errors.As(err, &p) {
		t.Fatal(err)
	}
	if p == nil {
		return ""
	}
	return strings.TrimPrefix(p.Type, "/problems/")
}

func placement(member string, products ...string) (p shop.Placement) {
	p.MemberID = member
	for _, id := range products {
		p.Lines = append(p.Lines, struct {
			ProductID string `json:"productId"`
			Quantity  int64  `json:"quantity"`
		}{id, 2})
	}
	return p
}

// openOrders opens an order service that knows prices.
func openOrders(t testing.TB) (*shop.Orders, *station) {
	orders, s := opened[*shop.Orders](t, "order", shop.Options{})
	s.inTx(t, func(tx *sql.Tx) error {
		return orders.Priced(t.Context(), tx, received(
			shop.PriceChanged{ProductID: "tea", SellerID: "a", Price: shop.Money{Amount: 1, Currency: "KRW"}},
			shop.PriceChanged{ProductID: "tea", SellerID: "a", Price: shop.Money{Amount: 100, Currency: "KRW"}},
			shop.PriceChanged{ProductID: "cup", SellerID: "a", Price: shop.Money{Amount: 50, Currency: "KRW"}},
			shop.PriceChanged{ProductID: "pot", SellerID: "b", Price: shop.Money{Amount: 70, Currency: "KRW"}},
			shop.PriceChanged{ProductID: "jar", SellerID: "a", Price: shop.Money{Amount: 70, Currency: "USD"}},
		))
	})
	return orders, s
}

// together calls f n times at once.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

func TestSameKeyPlacesOneOrder(t *testing.T) {
	orders, s := openOrders(t)
	const n = 12
	placed, errs := make([]*shop.Order, n), make([]error, n)
	together(n, func(i int) { placed[i], errs[i] = orders.Place(t.Context(), placement("m", "tea", "cup"), "k1") })
	for i := range n {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if placed[i].No != placed[0].No {
			t.Errorf("one key, two orders: %s and %s", placed[0].No, placed[i].No)
		}
	}
	first := placed[0]
	if first.Total != (shop.Money{Amount: 300, Currency: "KRW"}) || first.SellerID != "a" || len(first.No) != 20 {
		t.Errorf("order is %+v", *first)
	}
	pay(t, orders, first)
	again, err := orders.Place(t.Context(), placement("m", "tea", "cup"), "k1")
	if err != nil || fmt.Sprint(*again) != fmt.Sprint(*first) {
		t.Errorf("the same request answers %+v, %v, not %+v", again, err, *first)
	}
	if _, err := orders.Place(t.Context(), placement("m", "tea"), "k1"); problem(t, err) != "idempotency-key-reused" {
		t.Errorf("another request with the key: %v", err)
	}
	if n := s.count(t, "order-placed"); n != 1 {
		t.Errorf("%d events order-placed, not 1", n)
	}
}

func pay(t *testing.T, orders *shop.Orders, o *shop.Order) {
	t.Helper()
	if _, err := orders.Pay(t.Context(), o.No, shop.Payment{ID: "p", Amount: o.Total}); err != nil {
		t.Fatal(err)
	}
}

func place(t *testing.T, orders *shop.Orders) *shop.Order {
	t.Helper()
	o, err := orders.Place(t.Context(), placement("m", "tea"), "")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOrdersAreRefused(t *testing.T) {
	orders, s := openOrders(t)
	paid, cancelled, placed := place(t, orders), place(t, orders), place(t, orders)
	pay(t, orders, paid)
	if _, err := orders.Cancel(t.Context(), cancelled.No, shop.Cancellation{}); err != nil {
		t.Fatal(err)
	}
	before := len(s.recorded(t))
	total := placed.Total
	few := placement("m", "tea")
	few.Lines[0].Quantity = 0
	for _, c := range []struct {
		name, want string
		do         func() (*shop.Order, error)
	}{
		{"unknown product", "unknown-product", func() (*shop.Order, error) { return orders.Place(t.Context(), placement("m", "sock"), "") }},
		{"two sellers", "invalid", func() (*shop.Order, error) { return orders.Place(t.Context(), placement("m", "tea", "pot"), "") }},
		{"two currencies", "invalid", func() (*shop.Order, error) { return orders.Place(t.Context(), placement("m", "tea", "jar"), "") }},
		{"no lines", "invalid", func() (*shop.Order, error) { return orders.Place(t.Context(), placement("m"), "") }},
		{"no member", "invalid", func() (*shop.Order, error) { return orders.Place(t.Context(), placement("", "tea"), "") }},
		{"none of it", "invalid", func() (*shop.Order, error) { return orders.Place(t.Context(), few, "") }},
		{"pay nothing", "not-found", func() (*shop.Order, error) { return orders.Pay(t.Context(), "x", shop.Payment{ID: "p", Amount: total}) }},
		{"pay twice", "order-state", func() (*shop.Order, error) {
			return orders.Pay(t.Context(), paid.No, shop.Payment{ID: "q", Amount: total})
		}},
		{"same payment", "", func() (*shop.Order, error) {
			return orders.Pay(t.Context(), paid.No, shop.Payment{ID: "p", Amount: total})
		}},
		{"pay a cancelled one", "order-state", func() (*shop.Order, error) {
			return orders.Pay(t.Context(), cancelled.No, shop.Payment{ID: "p", Amount: total})
		}},
		{"pay too little", "invalid", func() (*shop.Order, error) {
			return orders.Pay(t.Context(), placed.No, shop.Payment{ID: "p", Amount: shop.Money{Amount: 1, Currency: "KRW"}})
		}},
		{"cancel twice", "", func() (*shop.Order, error) {
			return orders.Cancel(t.Context(), cancelled.No, shop.Cancellation{Reason: "x"})
		}},
	} {
		o, err := c.do()
		if got := problem(t, err); got != c.want || err == nil && o == nil {
			t.Errorf("%s: problem %q (%v), not %q", c.name, got, err, c.want)
		}
	}
	if after := len(s.recorded(t)); after != before {
		t.Errorf("what was refused or repeated recorded %d events", after-before)
	}
}

func TestOneOfManyPaymentsWins(t *testing.T) {
	orders, s := openOrders(t)
	o := place(t, orders)
	const n = 8
	errs := make([]error, n)
	together(n, func(i int) {
		_, errs[i] = orders.Pay(t.Context(), o.No, shop.Payment{ID: fmt.Sprintf("p%d", i), Amount: o.Total})
	})
	won := 0
	for _, err := range errs {
		switch problem(t, err) {
		case "":
			won++
		case "order-state":
		default:
			t.Error(err)
		}
	}
	if n := s.count(t, "order-pay-done"); won != 1 || n != 1 {
		t.Errorf("%d payments won, %d events", won, n)
	}
}

func TestPaymentAndCancellationAgreeWhoWasFirst(t *testing.T) {
	orders, s := openOrders(t)
	for range 20 {
		o := place(t, orders)
		var paid error
		var cancelled *shop.Order
		together(2, func(i int) {
			if i == 0 {
				_, paid = orders.Pay(t.Context(), o.No, shop.Payment{ID: "p", Amount: o.Total})
			} else if c, err := orders.Cancel(t.Context(), o.No, shop.Cancellation{}); err == nil {
				cancelled = c
			}
		})
		if cancelled == nil {
			t.Fatal("not cancelled")
		}
		if (problem(t, paid) == "") != (cancelled.PaidAt != nil) {
			t.Errorf("payment %v, cancelled order paid at %v", paid, cancelled.PaidAt)
		}
		events := s.recorded(t)
		last := events[len(events)-1]
		if want := fmt.Sprintf(`"paid":%t`, cancelled.PaidAt != nil); !strings.Contains(last, o.No) || !strings.Contains(last, want) {
			t.Errorf("last event is %s, want it to say %s", last, want)
		}
	}
}

func TestListsGoOnWhereTheyEnded(t *testing.T) {
	orders, _ := openOrders(t)
	want := map[string]bool{}
	for range 7 {
		want[place(t, orders).No] = true
	}
	before := ""
	for len(want) > 0 {
		list, err := orders.List(t.Context(), "m", before, 3)
		if err != nil || len(list) == 0 {
			t.Fatalf("%d orders are in no page: %v", len(want), err)
		}
		for _, o := range list {
			if !want[o.No] {
				t.Errorf("order %s is listed twice", o.No)
			}
			delete(want, o.No)
			before = o.No
		}
	}
	if other, err := orders.List(t.Context(), "n", "", 3); err != nil || len(other) != 0 {
		t.Errorf("another member's orders: %v, %v", other, err)
	}
}

func TestProfileThatStaysIsNoEvent(t *testing.T) {
	members, s := opened[*shop.Members](t, "member", shop.Options{})
	p := shop.Profile{Name: "Minji", Email: "minji@example.com"}
	const n = 6
	created := make([]bool, n)
	together(n, func(i int) {
		var err error
		if _, created[i], err = members.ChangeProfile(t.Context(), "m1", p); err != nil {
			t.Error(err)
		}
	})
	if got := strings.Count(fmt.Sprint(created), "true"); got != 1 {
		t.Errorf("created %d times", got)
	}
	p.Name = "Minseo"
	if m, isNew, err := members.ChangeProfile(t.Context(), "m1", p); err != nil || isNew || m.Name != "Minseo" {
		t.Errorf("changed to %+v, %v, %v", m, isNew, err)
	}
	if n := s.count(t, "member-profile-changed"); n != 2 {
		t.Errorf("%d events, not 2", n)
	}
	for _, bad := range []shop.Profile{{}, {Name: "x"}, {Name: "x", Email: "no"}, {Name: "x\ny", Email: "a@b"},
		{Name: "x", Email: "A <a@b>"}} {
		if _, _, err := members.ChangeProfile(t.Context(), "m2", bad); problem(t, err) != "invalid" {
			t.Errorf("profile %+v: %v", bad, err)
		}
	}
}

func TestSameRestockAlertTwiceIsOne(t *testing.T) {
	products, s := opened[*shop.Products](t, "product", shop.Options{})
	ctx := t.Context()
	price := shop.Pricing{SellerID: "a", Name: "Tea", Price: shop.Money{Amount: 100, Currency: "KRW"}}
	for range 2 {
		if _, _, err := products.ChangePrice(ctx, "tea", price); err != nil {
			t.Fatal(err)
		}
	}
	price.SellerID = "b"
	if _, _, err := products.ChangePrice(ctx, "tea", price); problem(t, err) != "other-seller" {
		t.Errorf("another seller's price: %v", err)
	}
	created := make([]bool, 6)
	together(len(created), func(i int) {
		var err error
		if _, created[i], err = products.RequestAlert(ctx, "tea", shop.AlertRequest{MemberID: "m"}); err != nil {
			t.Error(err)
		}
	})
	if got := strings.Count(fmt.Sprint(created), "true"); got != 1 {
		t.Errorf("created %d alerts", got)
	}
	if p, err := products.Restock(ctx, "tea", shop.Restocking{Quantity: 5}); err != nil || p.Stock != 5 || p.Waiting != 0 {
		t.Errorf("restocked: %+v, %v", p, err)
	}
	if _, again, err := products.RequestAlert(ctx, "tea", shop.AlertRequest{MemberID: "m"}); err != nil || !again {
		t.Errorf("after a restock: %v, %v", again, err)
	}
	_, none := products.Restock(ctx, "sock", shop.Restocking{Quantity: 5})
	_, _, nobody := products.RequestAlert(ctx, "sock", shop.AlertRequest{MemberID: "m"})
	if problem(t, none) != "not-found" || problem(t, nobody) != "not-found" {
		t.Errorf("unknown product: %v, %v", none, nobody)
	}
	for event, want := range map[string]int{"product-price-changed": 1, "restock-alert-requested": 2, "product-restocked": 1} {
		if n := s.count(t, event); n != want {
			t.Errorf("%d events %s, not %d", n, event, want)
		}
	}
}

func TestMigrateIsSafeToRepeat(t *testing.T) {
	for _, role := range shop.Roles() {
		file := filepath.Join(t.TempDir(), role+".db")
		pools := make([]*sql.DB, 4) // as many processes
		for i := range pools {
			pools[i] = openDatabase(t, file)
			defer func() { _ = pools[i].Close() }()
		}
		together(len(pools), func(i int) {
			if _, to, err := shop.Migrate(t.Context(), pools[i], on.dialect, role); err != nil || to != 1 {
				t.Errorf("migrate %s: version %d, %v", role, to, err)
			}
		})
		db := pools[0]
		if from, to, err := shop.Migrate(t.Context(), db, on.dialect, role); err != nil || from != 1 || to != 1 {
			t.Errorf("migrate %s again: from %d to %d, %v", role, from, to, err)
		}
		if _, err := db.ExecContext(t.Context(), "update shop_schema set version = 9"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := shop.Migrate(t.Context(), db, on.dialect, role); err == nil || !strings.Contains(err.Error(), "newer program") {
			t.Errorf("migrate a newer schema of %s: %v", role, err)
		}
	}
	db := openDatabase(t, filepath.Join(t.TempDir(), "x.db"))
	defer func() { _ = db.Close() }()
	if _, err := shop.Open(t.Context(), "order", db, nil, &shop.Options{Dialect: on.dialect}); err == nil || !strings.Contains(err.Error(), "pabal migrate") {
		t.Errorf("open without tables: %v", err)
	}
	if _, _, err := shop.Migrate(t.Context(), db, "../x", "order"); err == nil {
		t.Error("a dialect that is a path was taken")
	}
}
