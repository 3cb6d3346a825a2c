package pabalpgx_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabalpgx"
)

type order struct{ No string }

var orderPaid = pabal.Define("order-pay-done", pabal.Key(func(o order) string { return o.No }))

// emptyDatabase stands for a program's own; inMemory for its broker.
func emptyDatabase() (url string) {
	server := servers.SharedPostgres()
	name := fmt.Sprintf("pabal_example_%d_%d", os.Getpid(), databases.Add(1))
	admin, err := pgx.Connect(context.Background(), server.URL)
	check(err)
	_, err = admin.Exec(context.Background(), "create database "+name)
	check(err)
	check(admin.Close(context.Background()))
	return server.Database(name)
}

func inMemory() driver.Broker {
	w := world.Real()
	return sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

var quietly = &pabal.Options{Logger: slog.New(slog.DiscardHandler)}

// An order is paid: the event is recorded in the transaction that makes it so, and a consumer hears of it.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	cfg, err := pgxpool.ParseConfig(emptyDatabase())
	check(err)
	pool, err := pgxpool.NewWithConfig(ctx, pabalpgx.Watch(cfg))
	check(err)
	defer pool.Close()
	migration, err := pabalpgx.Migrate(ctx, pool, nil)
	check(err)
	fmt.Println(migration)

	store, err := pabalpgx.New(pool, nil)
	check(err)
	client, err := pabal.New(ctx, store, inMemory(), "order", quietly)
	check(err)
	settled := make(chan string, 1)
	settlement := client.Consumer("settlement", nil)
	pabal.Handle(settlement, orderPaid, func(ctx context.Context, tx pgx.Tx, e pabal.Received[order]) error {
		_, err := tx.Exec(ctx, `select 1`) // the ledger entry, say: it commits together with the inbox
		settled <- e.Data.No
		return err
	})
	done := make(chan error, 1)
	running, end := context.WithCancel(ctx)
	go func() { done <- client.Run(running) }()
	check(client.Ready(ctx))

	tx, err := pool.Begin(ctx)
	check(err)
	check(client.Record(ctx, tx, orderPaid.New(order{No: "A1"})))
	check(tx.Commit(ctx)) // published; nothing else to call
	fmt.Println("settled:", <-settled)
	end()
	check(<-done)
	// Output:
	// created the tables, version 1
	// settled: A1
}

// Over database/sql the transaction is a *sql.Tx.
func ExampleNewSQL() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(emptyDatabase())
	check(err)
	pool, err := pgxpool.NewWithConfig(ctx, pabalpgx.Watch(cfg))
	check(err)
	defer pool.Close()
	_, err = pabalpgx.Migrate(ctx, pool, nil)
	check(err)

	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // the pool does it
	store, err := pabalpgx.NewSQL(db, pool, nil)
	check(err)
	client, err := pabal.New(ctx, store, inMemory(), "order", quietly)
	check(err)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	check(err)
	check(client.Record(ctx, tx, orderPaid.New(order{No: "A1"})))
	check(tx.Commit())
	events, err := client.Events(ctx, driver.EventFilter{Limit: 10})
	check(err)
	fmt.Println(events[0].Event.Type, events[0].Event.Key)
	// Output: order-pay-done A1
}

// The last statement, the events and COMMIT go to the database together.
func ExampleStore_InTx() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(emptyDatabase())
	check(err)
	pool, err := pgxpool.NewWithConfig(ctx, pabalpgx.Watch(cfg))
	check(err)
	defer pool.Close()
	_, err = pabalpgx.Migrate(ctx, pool, nil)
	check(err)
	_, err = pool.Exec(ctx, `create table orders (no text primary key, status text)`)
	check(err)
	store, err := pabalpgx.New(pool, nil)
	check(err)
	client, err := pabal.New(ctx, store, inMemory(), "order", quietly)
	check(err)

	err = store.InTx(ctx, client, func(tx *pabalpgx.Tx) error {
		tx.Queue(`insert into orders values ($1, 'paid')`, "A1")
		tx.Record(orderPaid.New(order{No: "A1"}))
		return nil
	})
	check(err)
	var status string
	check(pool.QueryRow(ctx, `select status from orders join pabal_event on key = no`).Scan(&status))
	fmt.Println(status)
	// Output: paid
}

// A serializable transaction is run again, whole, when it could not be serialized: the events of the attempt that failed are not there.
func ExampleStore_InTxWith() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(emptyDatabase())
	check(err)
	pool, err := pgxpool.NewWithConfig(ctx, pabalpgx.Watch(cfg))
	check(err)
	defer pool.Close()
	_, err = pabalpgx.Migrate(ctx, pool, nil)
	check(err)
	_, err = pool.Exec(ctx, `create table orders (no text primary key, status text); insert into orders values ('A1', 'new')`)
	check(err)
	store, err := pabalpgx.New(pool, nil)
	check(err)
	client, err := pabal.New(ctx, store, inMemory(), "order", quietly)
	check(err)

	pay := func(tx *pabalpgx.Tx) error {
		tx.Record(orderPaid.New(order{No: "A1"}))
		_, err := tx.Exec(ctx, `update orders set status = 'paid' where no = 'A1' and status = 'new'`)
		return err
	}
	var refused *pgconn.PgError
	for try := 1; ; try++ {
		err = store.InTxWith(ctx, client, pgx.TxOptions{IsoLevel: pgx.Serializable}, pay)
		if !errors.As(err, &refused) || refused.Code != "40001" || try == 5 {
			break
		}
	}
	check(err)
	var status string
	check(pool.QueryRow(ctx, `select status from orders join pabal_event on key = no`).Scan(&status))
	fmt.Println(status)
	// Output: paid
}

// A program in any language records with one statement in its own transaction; `pabal relay` publishes.
func Example_function() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(emptyDatabase())
	check(err)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	check(err)
	defer pool.Close()
	_, err = pabalpgx.Migrate(ctx, pool, nil)
	check(err)

	_, err = pool.Exec(ctx, `select pabal_record('order-pay-done', 'order-pay-done', 'A1', '{"No": "A1"}')`)
	check(err)
	var no, message, published string
	check(pool.QueryRow(ctx, `select "orderNo", message, published from pabal_event_record`).Scan(&no, &message, &published))
	fmt.Println(no, message, published)
	// Output: A1 {"No": "A1"} N
}

// For goose, Flyway, Liquibase or Atlas.
func ExampleScript() {
	script, err := pabalpgx.Script(&pabalpgx.Options{TablePrefix: "events_"})
	fmt.Println(strings.Contains(script, "create table events_event "), err)
	// Output: true <nil>
}
