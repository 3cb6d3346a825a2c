package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/pabaltest"
)

// settle is the handler under test.
func settle(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
	if e.Data.Amount <= 0 {
		return errors.New("nothing was paid")
	}
	_, err := tx.ExecContext(ctx, "insert into ledger (order_no, amount) values (?, ?)", e.Data.OrderNo, e.Data.Amount)
	return err
}

// books is a new database with a ledger.
func books(t *testing.T) *sql.DB {
	t.Helper()
	db, err := pabalsql.OpenSQLite(filepath.Join(t.TempDir(), "books.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Exec("create table ledger (order_no text primary key, amount integer not null)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestHandlerByHand(t *testing.T) {
	db := books(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is kept
	events := pabaltest.Receive(t, "order", OrderPaid, Paid{"A1", 100}, Paid{"A2", 0})
	if err := settle(t.Context(), tx, events[0]); err != nil {
		t.Error(err)
	}
	if err := settle(t.Context(), tx, events[1]); err == nil {
		t.Error("nothing was paid, and it was settled")
	}
}

// serve runs a client on a database until the test ends.
func serve(t *testing.T, db *sql.DB, broker driver.Broker, source string, register func(*pabal.Client[*sql.Tx])) *pabal.Client[*sql.Tx] {
	t.Helper()
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pabal.New(t.Context(), store, broker, source, &pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	register(client)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := client.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestServiceOnItsDatabase(t *testing.T) {
	db, broker := books(t), pabaltest.NewBroker()
	client := serve(t, db, broker, "order", func(c *pabal.Client[*sql.Tx]) {
		pabal.Handle(c.Consumer("settlement", nil), OrderPaid, settle)
	})

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := client.Record(t.Context(), tx, OrderPaid.New(Paid{"A1", 100})); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}

	events := pabaltest.RecordedIn(t, client.Operator, OrderPaid)
	if len(events) != 1 || events[0].Data.Amount != 100 {
		t.Fatalf("recorded %+v", events)
	}
	pabaltest.AwaitConfirmed(t, time.Minute, client.Operator, events...)
	pabaltest.AwaitHandled(t, time.Minute, client.Operator, "settlement", events...)
	var amount int
	if err := db.QueryRow("select amount from ledger where order_no = 'A1'").Scan(&amount); err != nil || amount != 100 {
		t.Errorf("the ledger says %d, %v", amount, err)
	}
}

// A world in memory: for what goes wrong, and for what takes long.
func TestPaymentSurvivesAnEveningWithoutBroker(t *testing.T) {
	post := pabaltest.New(t)
	order, settlement := post.Client("order"), post.Client("settlement")
	pabal.Handle(settlement.Consumer("settlement", nil), OrderPaid,
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
			return tx.Insert(ctx, "ledger", e.Data.OrderNo, e.Data.Amount)
		})
	pay := func(no string) {
		t.Helper()
		err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, OrderPaid.New(Paid{no, 100})) })
		if err != nil {
			t.Fatal(err)
		}
	}

	post.AnswerNext(pabaltest.Again) // the next publish fails
	pay("A1")
	post.Settle(time.Minute) // time passes until nothing is owed, and costs nothing

	post.BrokerAway(3 * time.Hour)
	pay("A2")
	post.Pass(3 * time.Hour)
	if booked := post.Get(settlement, "ledger", "A2"); booked != nil {
		t.Errorf("booked %v without a broker", booked)
	}
	post.Settle(10 * time.Minute)
	if booked := post.Get(settlement, "ledger", "A2"); booked != 100 {
		t.Errorf("booked %v", booked)
	}

	if events := pabaltest.Recorded(post, OrderPaid); len(events) != 2 {
		t.Errorf("recorded %+v", events)
	}
	if status, err := settlement.Status(t.Context()); err != nil || !status.Healthy {
		t.Errorf("%+v, %v", status, err)
	}
}

// The same message twice, put into the queue by hand.
func TestSecondCopyHasNoEffect(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	handled := 0
	pabal.Handle(order.Consumer("settlement", nil), OrderPaid, func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error {
		handled++
		return nil
	})
	var copied []byte
	post.Answer(func(m pabaltest.Message) pabaltest.Answer {
		copied = m.Body
		return pabaltest.Accept
	})
	err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, OrderPaid.New(Paid{"A1", 100})) })
	if err != nil {
		t.Fatal(err)
	}
	post.Settle(time.Minute)
	post.Send("settlement", copied)
	post.Settle(time.Minute)
	if handled != 1 || post.Delivered("settlement") != 2 {
		t.Errorf("handled %d times, of %d deliveries", handled, post.Delivered("settlement"))
	}
}

// What schemas.md says of a type that a consumer learns late: it was passed over, and comes with --again.
func TestTypeThatAConsumerLearnsLate(t *testing.T) {
	post := pabaltest.New(t)
	order, before := post.Client("order"), post.Client("books")
	pabal.Handle(before.Consumer("books", nil), OrderPlaced, func(context.Context, pabaltest.Tx, pabal.Received[Placed]) error { return nil })
	err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, OrderPaid.New(Paid{"A1", 100})) })
	if err != nil {
		t.Fatal(err)
	}
	post.Settle(time.Minute)
	if err := post.Stop(before); err != nil {
		t.Fatal(err)
	}

	after := post.Client("books")
	var handled []string
	pabal.Handle(after.Consumer("books", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		handled = append(handled, e.Key)
		return nil
	})
	for _, again := range []bool{false, true} {
		_, err := order.Redeliver(t.Context(), pabal.Redelivery{Topic: OrderPaid.Topic(), Consumer: "books", Again: again})
		if err != nil {
			t.Fatal(err)
		}
		post.Pass(time.Minute)
		if got := strings.Join(handled, " "); got != map[bool]string{false: "", true: "A1"}[again] {
			t.Errorf("again %v: handled %q", again, got)
		}
	}
}

// What schemas.md says of a payload that a handler's program cannot read: it is parked as a failure, and goes once that can.
func TestPayloadThatDoesNotDecodeWaits(t *testing.T) {
	type strange struct {
		OrderNo string `json:"orderNo"`
		Amount  string `json:"amount"` // text, where Paid has a number
	}
	orderPaid := pabal.Define("order-pay-done", pabal.Key(func(p strange) string { return p.OrderNo })).On("order")
	post := pabaltest.New(t)
	order := post.Client("order")
	consumer := order.Consumer("settlement", &pabal.ConsumerOptions{Tries: 2})
	pabal.Handle(consumer, OrderPaid, func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error { return nil })
	err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, orderPaid.New(strange{"A1", "100"})) })
	if err != nil {
		t.Fatal(err)
	}
	post.Settle(time.Minute)
	rows, err := order.Received(t.Context(), "settlement", driver.RowFilter{State: driver.Parked, Limit: 10})
	if err != nil || len(rows) != 1 || !strings.Contains(rows[0].LastError, "payload of order-pay-done does not decode") {
		t.Errorf("%+v, %v", rows, err)
	}
}
