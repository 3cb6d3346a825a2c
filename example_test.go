package pabal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabaltest"
)

// The examples run in pabaltest's world: databases, a broker and time in memory. With a real database the transaction is its
// own (*sql.Tx, pgx.Tx), the store is of pabalsql or pabalpgx, and a service calls client.Run(ctx).

type Paid struct {
	OrderNo string `json:"orderNo"`
	Amount  int    `json:"amount"`
}

var OrderPaid = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))

// example stands in for the *testing.T that an example does not have.
type example struct{ testing.TB }

func (example) Helper()                           {}
func (example) Cleanup(func())                    {}
func (example) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (example) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }

// An event is recorded in the transaction that makes it true; another service handles it in a transaction of its own.
func Example() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order, settlement := post.Client("order"), post.Client("settlement")
	pabal.Handle(settlement.Consumer("settlement", nil), OrderPaid,
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
			fmt.Println("settling", e.Data.OrderNo, e.Data.Amount)
			return tx.Insert(ctx, "ledger", e.Data.OrderNo, e.Data.Amount) // commits together with the inbox row
		})
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		if err := tx.Put(ctx, "orders", "A1", "paid"); err != nil {
			return err
		}
		return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", 12000}))
	})
	fmt.Println("committed:", err)
	post.Settle(time.Minute)
	fmt.Println("ledger:", post.Get(settlement, "ledger", "A1"))
	// Output:
	// committed: <nil>
	// settling A1 12000
	// ledger: 12000
}

func ExampleDefine() {
	// Not ordered: there is nothing that such events must keep order with.
	viewed := pabal.Define[Paid]("order-viewed")
	// Ordered by order number.
	paid := pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))
	// Ordered together with order-pay-done, for it shares that topic.
	cancelled := pabal.Define("order-cancelled", pabal.Key(func(p Paid) string { return p.OrderNo })).On(paid.Topic()).Version("2")
	fmt.Println(viewed.Topic(), paid.Topic(), cancelled.Name(), cancelled.Topic())
	// Output: order-viewed order-pay-done order-cancelled order-pay-done
}

// A legacy system reads the topic and expects its own JSON. The type that it reads is bare until that system has moved; what a
// service on Pabal does with it is the same.
func ExampleType_Bare() {
	legacy := pabal.Define[Paid]("legacy-pay-done").On("order-pay-done").Bare()
	post := pabaltest.New(example{})
	order := post.Client("order")
	post.Answer(func(m pabaltest.Message) pabaltest.Answer {
		fmt.Println("on the wire:", string(m.Body))
		return pabaltest.Accept
	})
	pabal.Handle(order.Consumer("settlement", nil), legacy, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("settling", e.Data.OrderNo, "of source", e.Source)
		return nil
	})
	_ = post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, legacy.New(Paid{"A1", 100}))
	})
	post.Settle(time.Minute)
	// Output:
	// on the wire: {"orderNo":"A1","amount":100}
	// settling A1 of source order
}

func ExampleType_Decode() {
	paid, err := OrderPaid.Decode([]byte(`{"orderNo":"A1","amount":12000}`))
	fmt.Println(paid.Amount, err)
	// Output: 12000 <nil>
}

func ExampleEvent_With() {
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("paid through", e.Headers["channel"])
		return nil
	})
	_ = post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, OrderPaid.New(Paid{"A1", 1}).With("channel", "app"))
	})
	post.Settle(time.Minute)
	// Output: paid through app
}

// What is too large, or no transaction, is found before anything is sent.
func ExampleClient_Record() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	_ = post.InTx(order, func(tx pabaltest.Tx) error {
		var limit *pabal.LimitError
		err := order.Record(ctx, tx, OrderPaid.New(Paid{OrderNo: fmt.Sprintf("%0300d", 1)}))
		fmt.Println(errors.As(err, &limit), err)
		return nil
	})
	err := order.Record(ctx, nil, OrderPaid.New(Paid{"A1", 1}))
	fmt.Println(errors.Is(err, pabal.ErrNoTransaction), err)
	// Output:
	// true record: key of order-pay-done: 300 bytes, at most 255 (use a digest of it)
	// true record order-pay-done: not an open transaction
}

// inMemory stands for the caller's store and broker, in real time.
func inMemory() (*sim.Store, driver.Broker) {
	w := world.Real()
	return sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct), pabaltest.NewBroker()
}

// A service: New names the option that is out of bounds, Run goes on until its context ends, and drains.
func ExampleNew() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	store, broker := inMemory()
	client, err := pabal.New(ctx, store, broker, "order", &pabal.Options{
		RepublishAfter: 10 * time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	pabal.Handle(client.Consumer("audit", &pabal.ConsumerOptions{Concurrency: 2, Timeout: time.Minute}), OrderPaid,
		func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
			fmt.Println("handling", e.Data.OrderNo)
			stop() // as SIGTERM would
			return nil
		})
	go func() {
		if err := client.Ready(ctx); err != nil { // queues are subscribed: take requests
			return
		}
		tx, err := store.Begin(ctx)
		if err != nil {
			return
		}
		if err := client.Record(ctx, tx, OrderPaid.New(Paid{"A1", 1})); err != nil {
			return
		}
		_ = tx.Commit(ctx)
	}()
	fmt.Println(client.Run(ctx))
	// Output:
	// handling A1
	// <nil>
}

// A handler that fails is tried again; its key waits, others go on.
func ExampleHandle() {
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("mail", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("try", e.Attempt, "of", e.Key)
		if e.Attempt < 3 {
			return errors.New("mailbox full")
		}
		return nil
	})
	_ = post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, OrderPaid.New(Paid{"A1", 1}))
	})
	post.Settle(time.Minute)
	// Output:
	// try 1 of A1
	// try 2 of A1
	// try 3 of A1
}

// Many events in one transaction.
func ExampleHandleBatch() {
	post := pabaltest.New(example{})
	order := post.Client("order")
	consumer := order.Consumer("statistics", &pabal.ConsumerOptions{Concurrency: 1, Batch: 100})
	pabal.HandleBatch(consumer, OrderPaid, func(_ context.Context, _ pabaltest.Tx, events []pabal.Received[Paid]) error {
		sum := 0
		for _, e := range events {
			sum += e.Data.Amount
		}
		fmt.Println(len(events), "events,", sum, "in all")
		return nil
	})
	_ = post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, OrderPaid.New(Paid{"A1", 1}), OrderPaid.New(Paid{"A1", 2}), OrderPaid.New(Paid{"A1", 3}))
	})
	post.Settle(time.Minute)
	// Output: 3 events, 6 in all
}

// A W3C trace goes with the events from the recording context to the handler's.
func ExampleWithTraceparent() {
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(ctx context.Context, _ pabaltest.Tx, _ pabal.Received[Paid]) error {
		fmt.Println(pabal.Traceparent(ctx))
		return nil
	})
	ctx := pabal.WithTraceparent(context.Background(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", 1})) })
	post.Settle(time.Minute)
	// Output: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
}

// Status tells what is wrong, with the command that mends it; the methods do what the commands do.
func ExampleOperator_Status() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	broken := true
	pabal.Handle(order.Consumer("audit", &pabal.ConsumerOptions{Tries: 1}), OrderPaid,
		func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error {
			if broken {
				return errors.New("no such column: amount")
			}
			fmt.Println("handled")
			return nil
		})
	_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", 1})) })
	post.Settle(time.Minute)
	status, _ := order.Status(ctx)
	for i := range status.Inbox {
		row := &status.Inbox[i]
		fmt.Println(row.State, row.Reason, row.LastError)
		broken = false
		n, err := order.RetryReceived(ctx, "audit", row.ID)
		fmt.Println("retried", n, err)
	}
	post.Settle(time.Minute)
	// Output:
	// parked failed failed: no such column: amount
	// retried 1 <nil>
	// handled
}

// Recorded events once more: here to handlers that shall run again.
func ExampleOperator_Redeliver() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("handled", e.Data.Amount)
		return nil
	})
	for n := range 2 {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", n})) })
	}
	post.Settle(time.Minute)
	_, err := order.Redeliver(ctx, pabal.Redelivery{Topic: OrderPaid.Topic(), Key: "A1", Consumer: "audit", Again: true, By: "kim"})
	fmt.Println("ordered:", err)
	post.Pass(time.Minute)
	// Output:
	// handled 0
	// handled 1
	// ordered: <nil>
	// handled 0
	// handled 1
}

// For programs that only look after a store: the command line, a dashboard.
func ExampleOperate() {
	ctx := context.Background()
	store, broker := inMemory()
	if _, err := pabal.New(ctx, store, broker, "order", nil); err != nil { // which named the store
		panic(err)
	}
	o, err := pabal.Operate(ctx, store)
	if err != nil {
		panic(err)
	}
	status, err := o.Status(ctx)
	fmt.Println(status.Source, status.Healthy, err)
	fmt.Println(status.Queues()) // where to look for messages that the broker has put aside
	// Output:
	// order true <nil>
	// [event-record-order order]
}

// What a store has recorded, page by page.
func ExampleOperator_Events() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	for n := range 3 {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", n})) })
	}
	post.Settle(time.Minute)
	filter := driver.EventFilter{Key: "A1", Limit: 2}
	for {
		found, err := order.Events(ctx, filter)
		if err != nil {
			panic(err)
		}
		for _, f := range found {
			paid, _ := OrderPaid.Decode(f.Event.Payload)
			fmt.Println(paid.Amount, "confirmed:", f.Pending == nil)
		}
		if len(found) < filter.Limit {
			return
		}
		filter.After = found[len(found)-1].Event.Ref()
	}
	// Output:
	// 0 confirmed: true
	// 1 confirmed: true
	// 2 confirmed: true
}

// The broker has refused two events for ever. One goes again, for the reason is mended; of the other consumers hear nothing.
func ExampleOperator_Retry() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("handled", e.Key)
		return nil
	})
	post.AnswerNext(pabaltest.Never, pabaltest.Never)
	for _, no := range []string{"A1", "A2"} {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{no, 1})) })
	}
	post.Settle(time.Minute)
	parked, err := order.Events(ctx, driver.EventFilter{State: driver.ParkedOnly, Limit: 10})
	fmt.Println(len(parked), "parked", err)
	fmt.Println(order.Retry(ctx, parked[0].Event.ID))
	fmt.Println(order.Skip(ctx, parked[1].Event.ID))
	post.Settle(time.Minute)
	// Output:
	// 2 parked <nil>
	// 1 <nil>
	// 1 <nil>
	// handled A1
}

// A consumer's queue has lost an event; nothing can bring it back, and the later ones of its key shall go on.
func ExampleOperator_SkipReceived() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		fmt.Println("handled", e.Data.Amount)
		return nil
	})
	record := func(n int) {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", n})) })
	}
	record(0)
	post.Settle(time.Minute)
	post.Unsubscribe("audit", OrderPaid.Topic())
	record(1)
	post.Pass(time.Second)
	post.Subscribe("audit", OrderPaid.Topic())
	record(2)
	post.Pass(time.Minute)

	held, _ := order.Received(ctx, "audit", driver.RowFilter{State: driver.Held, Limit: 10})
	missing := held[0].Prev.ID
	for _, why := range order.Explain("audit", held) {
		fmt.Println("held, for its predecessor is missing:", strings.Contains(why.What, missing.String()+" is missing"))
	}
	fmt.Println(order.SkipReceived(ctx, "audit", missing))
	post.Settle(time.Minute)
	// Output:
	// handled 0
	// held, for its predecessor is missing: true
	// 1 <nil>
	// handled 2
}

// What a redelivery would send, before it is ordered.
func ExampleOperator_Matching() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	for n := range 3 {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", n})) })
	}
	count, sample, err := order.Matching(ctx, pabal.Redelivery{Topic: OrderPaid.Topic(), Key: "A1"}, 1)
	fmt.Println(count, "events, the first of", sample[0].Event.Key, err)
	// Output: 3 events, the first of A1 <nil>
}

// The order service's database was restored from a backup: keys begin new runs, above what consumers may have seen.
func ExampleOperator_Restored() {
	ctx := context.Background()
	post := pabaltest.New(example{})
	order := post.Client("order")
	record := func(n int) {
		_ = post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(ctx, tx, OrderPaid.New(Paid{"A1", n})) })
	}
	record(0)
	record(1)
	post.Settle(time.Minute)
	fmt.Println(order.Restored(ctx))
	record(2)
	post.Settle(time.Minute)
	events := pabaltest.Recorded(post, OrderPaid)
	fmt.Println(events[1].Position-events[0].Position, events[2].Position-events[1].Position > 1)
	// Output:
	// <nil>
	// 1 true
}

// What a company's administrators make at the broker, or `pabal topology apply --file` does.
func ExampleClient_Topology() {
	post := pabaltest.New(example{})
	order := post.Client("order")
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error { return nil })
	text, err := json.Marshal(order.Topology(OrderPaid))
	fmt.Println(string(text), err)
	// Output: {"topics":[{"name":"order-pay-done","ordered":true}],"queues":[{"name":"event-record-order","topics":["order-pay-done"]},{"name":"audit","topics":["order-pay-done"]}]} <nil>
}

// An endpoint for readiness says why it is not ready.
func ExampleClient_Reachable() {
	w := world.Real()
	store := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)    // or of pabalpgx, pabalsql
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct) // or of pabalnats, pabalsns
	client, err := pabal.New(context.Background(), store, broker, "order", nil)
	if err != nil {
		panic(err)
	}
	readyz := func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		if err := client.Reachable(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}
	answer := httptest.NewRecorder()
	readyz(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Print(answer.Code, " ", answer.Body) // client.Run has not made the record queue yet
	// Output:
	// 503 broker: missing at the broker: queue event-record-order (create them, or let Pabal do it: Options.FixedTopology false)
}
