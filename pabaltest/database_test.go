package pabaltest_test

import (
	"context"
	"errors"
	"fmt"
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

// real is a service in real time, on a database that stands for the reader's own.
type real struct {
	store  *sim.Store
	client *pabaltest.Client
}

func openReal(broker driver.Broker, source string) *real {
	w := world.Real()
	r := &real{store: sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)}
	var err error
	r.client, err = pabal.New(context.Background(), r.store, broker, source, &pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	return r
}

// run runs the client, once its handlers are registered, until the function that it returns is called.
func (r *real) run() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.client.Run(ctx) }()
	if err := r.client.Ready(ctx); err != nil {
		panic(err)
	}
	return func() {
		stop()
		if err := <-ended; err != nil {
			panic(err)
		}
	}
}

func (r *real) record(events ...pabal.Event) error {
	ctx := context.Background()
	tx, err := r.store.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // after Commit it does nothing
	if err := r.client.Record(ctx, tx, events...); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// On databases of your own, in real time: the broker is in memory, and nothing sleeps.
func ExampleAwaitHandled() {
	var t testing.TB = inExample{}
	broker := pabaltest.NewBroker()
	order, settlement := openReal(broker, "order"), openReal(broker, "settlement")
	pabal.Handle(settlement.client.Consumer("settlement", nil), orderPaid,
		func(_ context.Context, _ pabaltest.Tx, e pabal.Received[paid]) error {
			fmt.Println("settling", e.Data.OrderNo)
			return nil
		})
	defer settlement.run()()
	defer order.run()()

	if err := order.record(orderPaid.New(paid{"A1", 100})); err != nil {
		t.Fatal(err)
	}
	events := pabaltest.RecordedIn(t, order.client.Operator, orderPaid)
	fmt.Println(len(events), "event of", events[0].Key)
	pabaltest.AwaitConfirmed(t, time.Minute, order.client.Operator, events...)
	pabaltest.AwaitHandled(t, time.Minute, settlement.client.Operator, "settlement", events...)
	// Unordered output:
	// settling A1
	// 1 event of A1
}

// A handler is a function: a test may call it by hand, with what it would get.
func ExampleReceive() {
	var t testing.TB = inExample{}
	settle := func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[paid]) error {
		return tx.Put(ctx, "ledger", e.Key, e.Data.Amount)
	}
	post := pabaltest.New(t)
	settlement := post.Client("settlement")
	event := pabaltest.Receive(t, "order", orderPaid, paid{"A1", 100})[0]
	err := post.InTx(settlement, func(tx pabaltest.Tx) error { return settle(context.Background(), tx, event) })
	fmt.Println(event.Source, event.Type, err, post.Get(settlement, "ledger", "A1"))
	// Output: order order-pay-done <nil> 100
}

func TestReceiveMakesWhatAHandlerGets(t *testing.T) {
	type secret struct {
		No     string `json:"no"`
		hidden int
	}
	kept := pabal.Define("kept", pabal.Key(func(s secret) string { return s.No })).On("shared").Version("2")
	before := time.Now().Add(-time.Second)
	events := pabaltest.Receive(t, "order", kept, secret{"A1", 7}, secret{"A2", 7}, secret{"A1", 8})
	if len(events) != 3 {
		t.Fatalf("%+v", events)
	}
	first, second, third := events[0], events[1], events[2]
	if first.Source != "order" || first.Type != "kept" || first.Topic != "shared" || first.Version != "2" || first.Attempt != 1 {
		t.Errorf("%+v", first)
	}
	if first.Data.No != "A1" || first.Data.hidden != 0 {
		t.Errorf("the payload was not encoded on its way: %+v", first.Data)
	}
	if first.Key != "A1" || second.Key != "A2" || third.Position != first.Position+1 || !third.RecordedAt.After(first.RecordedAt) {
		t.Errorf("not one after the other: %+v", events)
	}
	if first.RecordedAt.Before(before) {
		t.Errorf("recorded at %v", first.RecordedAt)
	}
	other := pabaltest.Receive(t, "order", kept, secret{"A1", 7})
	if first.ID == other[0].ID || first.ID == second.ID {
		t.Error("two events have one id")
	}
}

func TestReceiveHoldsLimits(t *testing.T) {
	is := complained(t, func(c *complaint) { pabaltest.Receive(c, "order", orderPaid, paid{strings.Repeat("1", 300), 1}) })
	if !strings.Contains(is, "key of order-pay-done: 300 bytes") {
		t.Errorf("it says %q", is)
	}
}

func TestRecordedInReturnsAllInOrder(t *testing.T) {
	const many = 1005 // more than a page
	order := openReal(pabaltest.NewBroker(), "order")
	other := pabal.Define[paid]("order-viewed").On(orderPaid.Topic())
	for n := range many / 5 {
		var events []pabal.Event
		for i := range 5 {
			events = append(events, orderPaid.New(paid{fmt.Sprint("A", i), n*5 + i}).With("n", fmt.Sprint(n)))
		}
		if err := order.record(append(events, other.New(paid{"A1", -1}))...); err != nil {
			t.Fatal(err)
		}
	}
	events := pabaltest.RecordedIn(t, order.client.Operator, orderPaid)
	if len(events) != many {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events {
		if e.Data.Amount != i || e.Source != "order" || e.Headers["n"] != fmt.Sprint(i/5) {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

func TestRecordedTellsHeaders(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(t.Context(), tx, orderPaid.New(paid{"A1", 1}).With("channel", "app"))
	})
	if is := pabaltest.Recorded(post, orderPaid); err != nil || is[0].Headers["channel"] != "app" {
		t.Errorf("%v, %+v", err, is)
	}
}

// complained runs f, which shall fail, and answers what it said.
func complained(t *testing.T, f func(c *complaint)) string {
	t.Helper()
	c := &complaint{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(c) {
				panic(p)
			}
		}()
		f(c)
	}()
	if c.text == "" {
		t.Error("it did not fail")
	}
	return c.text
}

func TestAwaitSaysWhatIsOwed(t *testing.T) {
	broker := pabaltest.NewBroker()
	order, settlement := openReal(broker, "order"), openReal(broker, "settlement")
	handler := func(_ context.Context, _ pabaltest.Tx, e pabal.Received[paid]) error {
		return errors.New("no account for " + e.Data.OrderNo)
	}
	pabal.Handle(settlement.client.Consumer("patient", &pabal.ConsumerOptions{Tries: 100}), orderPaid, handler)
	pabal.Handle(settlement.client.Consumer("impatient", &pabal.ConsumerOptions{Tries: 1}), orderPaid, handler)
	stop := settlement.run()
	defer func() { stop() }()
	if err := order.record(orderPaid.New(paid{"A1", 1})); err != nil {
		t.Fatal(err)
	}
	events := pabaltest.RecordedIn(t, order.client.Operator, orderPaid)
	await := func(most time.Duration, consumer string) func(c *complaint) {
		return func(c *complaint) { pabaltest.AwaitHandled(c, most, settlement.client.Operator, consumer, events...) }
	}
	if is := complained(t, await(time.Millisecond, "patient")); !strings.HasPrefix(is, "1ms have passed, and event ") ||
		!strings.HasSuffix(is, "has not come to patient") {
		t.Errorf("of what was not published: %q", is)
	}
	is := complained(t, func(c *complaint) {
		pabaltest.AwaitConfirmed(c, time.Millisecond, order.client.Operator, events...)
	})
	if !strings.Contains(is, "is not confirmed") {
		t.Errorf("of what was not published: %q", is)
	}

	defer order.run()()
	pabaltest.AwaitConfirmed(t, time.Minute, order.client.Operator, events...)
	if is := complained(t, await(time.Hour, "impatient")); !strings.Contains(is, "is parked: failed failed: no account for A1") {
		t.Errorf("of what is parked: %q", is)
	}
	for held := 0; held == 0; time.Sleep(time.Millisecond) { // it has failed once
		rows, err := settlement.client.Received(t.Context(), "patient", driver.RowFilter{State: driver.Held, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			held += rows[i].Failures
		}
	}
	if is := complained(t, await(time.Millisecond, "patient")); !strings.Contains(is, "no account for A1") {
		t.Errorf("of what is held: %q", is)
	}
	is = complained(t, func(c *complaint) {
		pabaltest.AwaitConfirmed(c, time.Millisecond, settlement.client.Operator, events...)
	})
	if !strings.Contains(is, "is not in the store") {
		t.Errorf("of another store's event: %q", is)
	}
}

func TestAwaitConfirmedFailsOnAParkedEvent(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	post.AnswerNext(pabaltest.Never)
	_ = pay(post, order, "A1")
	post.Settle(time.Minute)
	is := complained(t, func(c *complaint) {
		pabaltest.AwaitConfirmed(c, time.Hour, order.Operator, pabaltest.Recorded(post, orderPaid)...)
	})
	if !strings.Contains(is, "is parked: refused by the broker: the test says: never") {
		t.Errorf("it says %q", is)
	}
}
