// Package market_test shows package shop at work: services on SQLite, which hear of each other through a broker in memory.
package market_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/pabaltest"
	"github.com/pabal-go/pabal/shop"
)

// example is the testing.TB of an example.
type example struct{ testing.TB }

func (example) Helper()                           {}
func (example) Cleanup(func())                    {}
func (example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (example) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }

// must panics for an error, for want of a test that could fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) { must(0, err) }

// stall is a service's database, and its client, whose source is the service's role.
type stall struct {
	db     *sql.DB
	client *pabal.Client[*sql.Tx]
}

// market has a stall for each role, in a directory of its own, and what runs there.
type market struct {
	dir    string
	stalls map[string]stall
	stop   context.CancelFunc
	ctx    context.Context //nolint:containedctx // of what runs until the market closes
	tasks  sync.WaitGroup
}

func openMarket(roles ...string) *market {
	m := &market{dir: must(os.MkdirTemp("", "pabal-market-")), stalls: map[string]stall{}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	broker := pabaltest.NewBroker()
	for _, role := range roles {
		db := must(pabalsql.OpenSQLite(filepath.Join(m.dir, role+".db"), nil))
		must(pabalsql.Migrate(m.ctx, db, nil))               // Pabal's tables
		_, _, err := shop.Migrate(m.ctx, db, "sqlite", role) // the service's own
		check(err)
		store := must(pabalsql.New(db, nil))
		quiet := &pabal.Options{Logger: slog.New(slog.DiscardHandler)}
		m.stalls[role] = stall{db, must(pabal.New(m.ctx, store, broker, role, quiet))}
	}
	return m
}

// run runs services, which consume already, each with its client, until the market closes.
func (m *market) run(services map[string]shop.Service) {
	for role, s := range services {
		client := m.stalls[role].client
		m.tasks.Go(func() { check(client.Run(m.ctx)) })
		m.tasks.Go(func() { check(s.Run(m.ctx)) })
	}
	for role := range services {
		check(m.stalls[role].client.Ready(m.ctx)) // its queues are subscribed
	}
}

func (m *market) close() {
	m.stop()
	m.tasks.Wait()
	for _, s := range m.stalls {
		check(s.db.Close())
	}
	check(os.RemoveAll(m.dir))
}

// inTx runs a handler by hand.
func (s stall) inTx(handler func(tx *sql.Tx) error) {
	tx := must(s.db.BeginTx(context.Background(), nil))
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	check(handler(tx))
	check(tx.Commit())
}

// A service's tables are brought to the version that the program speaks; again, there is nothing to do.
func Example_migrate() {
	dir := must(os.MkdirTemp("", "pabal-market-"))
	defer os.RemoveAll(dir) //nolint:errcheck // of an example
	db := must(pabalsql.OpenSQLite(filepath.Join(dir, "order.db"), nil))
	defer db.Close() //nolint:errcheck // of an example
	_, version, err := shop.Migrate(context.Background(), db, "sqlite", "order")
	check(err)
	from, to, err := shop.Migrate(context.Background(), db, "sqlite", "order")
	fmt.Println(version > 0, from == version, to == version, err)
	// Output: true true true <nil>
}

// An order is paid, and three services know it: none has called another.
func Example() {
	ctx := context.Background()
	m := openMarket(shop.Roles()...)
	defer m.close()
	products := must(shop.OpenProducts(ctx, m.stalls["product"].db, m.stalls["product"].client, nil))
	orders := must(shop.OpenOrders(ctx, m.stalls["order"].db, m.stalls["order"].client, nil))
	settlements := must(shop.OpenSettlements(ctx, m.stalls["settlement"].db, nil))
	notifications := must(shop.OpenNotifications(ctx, m.stalls["notification"].db, nil))
	services := map[string]shop.Service{
		"product": products, "order": orders, "settlement": settlements, "notification": notifications,
	}
	for role, s := range services {
		s.Consume(m.stalls[role].client) // before the client runs
	}
	m.run(services)
	operator := func(role string) *pabal.Operator { return m.stalls[role].client.Operator }

	price := shop.Money{Amount: 12000, Currency: "KRW"}
	_, created, err := products.ChangePrice(ctx, "tea", shop.Pricing{SellerID: "s1", Name: "Tea", Price: price})
	fmt.Println("offered:", created, err)
	prices := pabaltest.RecordedIn(example{}, operator("product"), shop.ProductPriceChanged)
	pabaltest.AwaitHandled(example{}, time.Minute, operator("order"), "order", prices...)

	placement := shop.Placement{MemberID: "m1"}
	placement.Lines = append(placement.Lines, struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	}{"tea", 2})
	o := must(orders.Place(ctx, placement, "a key, by which the same request again is the same order"))
	o = must(orders.Pay(ctx, o.No, shop.Payment{ID: "p1", Amount: o.Total}))
	fmt.Println("order:", o.Status, o.Total)

	paid := pabaltest.RecordedIn(example{}, operator("order"), shop.OrderPaid)
	for _, role := range []string{"settlement", "notification"} {
		pabaltest.AwaitHandled(example{}, time.Minute, operator(role), role, paid...)
	}
	entries := must(settlements.Ledger(ctx, o.No))
	fmt.Println("ledger:", entries[0].Kind, entries[0].Amount, entries[0].EventID == paid[0].ID.String())
	for _, day := range must(settlements.Day(ctx, "s1", entries[0].Day)) {
		fmt.Println("seller s1 is owed:", day.Net)
	}
	for _, message := range must(notifications.List(ctx, "m1", "", "", 10)) {
		fmt.Println("message:", message.Kind, message.Subject == o.No)
	}
	// Output:
	// offered: true <nil>
	// order: paid 24000 KRW
	// ledger: payment 24000 KRW true
	// seller s1 is owed: 24000 KRW
	// message: paid true
}

// A shop behind one address, traffic on it, and the books of all services, which agree in the end.
func Example_load() {
	ctx := context.Background()
	m := openMarket(shop.Roles()...)
	defer m.close()
	services := map[string]shop.Service{}
	var all []shop.Service
	for role, s := range m.stalls {
		service := must(shop.Open(ctx, role, s.db, s.client, nil))
		service.Consume(s.client)
		services[role], all = service, append(all, service)
	}
	m.run(services)
	server := httptest.NewServer(shop.Handler(all...))
	defer server.Close()

	traffic := must(shop.Load{URL: server.URL, For: time.Second, Rate: 50}.Run(ctx))
	fmt.Println("paid some:", traffic.Paid > 0, "wrong answers:", traffic.Wrong)

	report := must(shop.Reconcile(ctx, shop.Books{
		Order: m.stalls["order"].db, Notification: m.stalls["notification"].db, Settlement: m.stalls["settlement"].db,
		Owed: m.owed, Events: m.tally,
	}))
	fmt.Println("reconciled:", report.Reconciled(), int64(report.Payments) == traffic.Paid, report.Differences)
	// Output:
	// paid some: true wrong answers: 0
	// reconciled: true true []
}

// owed says what is on its way, or waits for an operator.
func (m *market) owed(ctx context.Context) (string, error) {
	var owed []string
	for role, s := range m.stalls {
		status, err := s.client.Status(ctx)
		if err != nil {
			return "", err
		}
		for _, topic := range status.Topics {
			if n := topic.Waiting + topic.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%d of %s's %s", n, role, topic.Name))
			}
		}
		for _, c := range status.Consumers {
			if n := c.Held + c.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%d at %s", n, c.Consumer))
			}
		}
	}
	return strings.Join(owed, ", "), nil
}

// tally counts the order service's events by type.
func (m *market) tally(ctx context.Context) (map[string]shop.Tally, error) {
	counts := map[string]shop.Tally{}
	filter := driver.EventFilter{Limit: 1000}
	for {
		found, err := m.stalls["order"].client.Events(ctx, filter)
		if err != nil || len(found) == 0 {
			return counts, err
		}
		for i := range found {
			c := counts[found[i].Event.Type]
			c.Recorded++
			if found[i].Pending == nil {
				c.Confirmed++
			}
			counts[found[i].Event.Type] = c
		}
		filter.After = found[len(found)-1].Event.Ref()
	}
}

// unheard takes the place of a client where nobody is to hear of anything.
type unheard struct{}

func (unheard) Record(context.Context, *sql.Tx, ...pabal.Event) error { return nil }

// What is asked of an order that is not in a state for it is refused with a problem, which has a status of HTTP.
func Example_orders() {
	ctx := context.Background()
	m := openMarket("order")
	defer m.close()
	orders := must(shop.OpenOrders(ctx, m.stalls["order"].db, unheard{}, nil))
	prices := pabaltest.Receive(example{}, "product", shop.ProductPriceChanged, shop.LoadPrices()...)
	m.stalls["order"].inTx(func(tx *sql.Tx) error { return orders.Priced(ctx, tx, prices) })

	placement := shop.Placement{MemberID: "m1"}
	placement.Lines = append(placement.Lines, struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	}{prices[3].Data.ProductID, 2})
	o := must(orders.Place(ctx, placement, ""))
	fmt.Println(o.Status, o.Total)
	o = must(orders.Cancel(ctx, o.No, shop.Cancellation{Reason: "thought better of it"}))
	fmt.Println(o.Status, len(must(orders.List(ctx, "m1", "", 10))))

	_, err := orders.Pay(ctx, o.No, shop.Payment{ID: "p1", Amount: o.Total})
	var problem *shop.Problem
	fmt.Println(errors.As(err, &problem), problem.Status, problem.Title)
	fmt.Println(must(orders.Get(ctx, o.No)).PaymentID == "")
	// Output:
	// placed 800 KRW
	// cancelled 1
	// true 409 order is not in a state for that
	// true
}

func Example_members() {
	ctx := context.Background()
	m := openMarket("member")
	defer m.close()
	members := must(shop.OpenMembers(ctx, m.stalls["member"].db, m.stalls["member"].client, nil))
	for range 2 { // the second time nothing changes, and nothing is recorded
		_, created, err := members.ChangeProfile(ctx, "m1", shop.Profile{Name: "Minji", Email: "minji@example.com"})
		fmt.Println(created, err)
	}
	events := pabaltest.RecordedIn(example{}, m.stalls["member"].client.Operator, shop.MemberProfileChanged)
	fmt.Println(len(events), events[0].Data.Email, must(members.Get(ctx, "m1")).Name)
	// Output:
	// true <nil>
	// false <nil>
	// 1 minji@example.com Minji
}

func Example_products() {
	ctx := context.Background()
	m := openMarket("product")
	defer m.close()
	products := must(shop.OpenProducts(ctx, m.stalls["product"].db, m.stalls["product"].client, nil))
	price := shop.Money{Amount: 1250, Currency: "USD"}
	_, _, err := products.ChangePrice(ctx, "tea", shop.Pricing{SellerID: "s1", Name: "Tea", Price: price})
	check(err)
	_, created, err := products.RequestAlert(ctx, "tea", shop.AlertRequest{MemberID: "m1"})
	fmt.Println("asks:", created, err, must(products.Get(ctx, "tea")).Waiting)
	tea := must(products.Restock(ctx, "tea", shop.Restocking{Quantity: 20}))
	fmt.Println("restocked:", tea.Stock, tea.Waiting)
	// Output:
	// asks: true <nil> 1
	// restocked: 20 0
}

// Handlers are called by hand with what they would receive. Here the refund comes before the payment of its order.
func Example_settlements() {
	ctx := context.Background()
	m := openMarket("settlement")
	defer m.close()
	settlements := must(shop.OpenSettlements(ctx, m.stalls["settlement"].db, nil))
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	total := shop.Money{Amount: 1250, Currency: "USD"}
	refunds := pabaltest.Receive(example{}, "order", shop.OrderCancelled,
		shop.Cancelled{OrderNo: "A1", SellerID: "s1", Total: total, Paid: true, CancelledAt: at})
	payments := pabaltest.Receive(example{}, "order", shop.OrderPaid,
		shop.Paid{OrderNo: "A1", SellerID: "s1", Total: total, PaymentID: "p1", PaidAt: at},
		shop.Paid{OrderNo: "A2", SellerID: "s1", Total: total, PaymentID: "p2", PaidAt: at})
	m.stalls["settlement"].inTx(func(tx *sql.Tx) error { return settlements.Cancelled(ctx, tx, refunds) })
	m.stalls["settlement"].inTx(func(tx *sql.Tx) error { return settlements.Paid(ctx, tx, payments) })
	for _, day := range must(settlements.Day(ctx, "s1", "2026-03-01")) {
		fmt.Println(day.Paid, day.Reversed, day.Net)
	}
	// Output: 25.00 USD -12.50 USD 12.50 USD
}

// Handlers write messages; Run delivers them after commit.
func Example_notifications() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	m := openMarket("notification")
	defer m.close()
	said := make(chan string, 4)
	say := func(_ context.Context, message shop.Message) error {
		said <- fmt.Sprintln(message.To.Name, "hears:", message.Kind, message.Subject)
		return nil
	}
	notifications := must(shop.OpenNotifications(ctx, m.stalls["notification"].db, &shop.Options{Delivery: say}))
	defer notifications.Close() //nolint:errcheck // of an example
	m.tasks.Go(func() { check(notifications.Run(m.ctx)) })

	minji := pabaltest.Receive(example{}, "member", shop.MemberProfileChanged,
		shop.ProfileChanged{MemberID: "m1", Name: "Minji", Email: "minji@example.com"})
	asked := pabaltest.Receive(example{}, "product", shop.RestockAlertRequested, shop.AlertRequested{ProductID: "tea", MemberID: "m1"})
	came := pabaltest.Receive(example{}, "product", shop.ProductRestocked, shop.Restocked{ProductID: "tea", Name: "Tea", Quantity: 20})
	gone := pabaltest.Receive(example{}, "order", shop.OrderCancelled, shop.Cancelled{OrderNo: "A1", MemberID: "m1"})
	s := m.stalls["notification"]
	s.inTx(func(tx *sql.Tx) error {
		return errors.Join(notifications.ProfileChanged(ctx, tx, minji), notifications.AlertRequested(ctx, tx, asked))
	})
	s.inTx(func(tx *sql.Tx) error { return notifications.Restocked(ctx, tx, came) })
	fmt.Print(<-said)
	s.inTx(func(tx *sql.Tx) error { return notifications.Cancelled(ctx, tx, gone) })
	fmt.Print(<-said)
	// Output:
	// Minji hears: restocked tea
	// Minji hears: cancelled A1
}
