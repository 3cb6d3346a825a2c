// Command first records one event and handles it: docs/guide/first-event.md explains each line. It needs no server.
//
//	go run ./examples/first
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

// Paid is the payload.
type Paid struct {
	OrderNo string `json:"orderNo"`
	Amount  int    `json:"amount"`
}

// OrderPaid is the type of the event: its name, and the key that it is about.
var OrderPaid = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))

func main() {
	dir, err := os.MkdirTemp("", "pabal-first-")
	if err == nil {
		err = run(context.Background(), dir)
	}
	if err != nil {
		log.Fatal(err)
	}
	_ = os.RemoveAll(dir)
}

func run(ctx context.Context, dir string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	db, err := pabalsql.OpenSQLite(filepath.Join(dir, "order.db"), nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // the program ends
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return err
	}
	if _, err := db.Exec("create table ledger (order_no text not null, amount integer not null)"); err != nil {
		return err
	}

	broker, err := pabalnats.Open(filepath.Join(dir, "nats"), nil) // JetStream in this process
	if err != nil {
		return err
	}
	defer broker.Close() //nolint:errcheck // the program ends
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return err
	}
	client, err := pabal.New(ctx, store, broker, "order", nil)
	if err != nil {
		return err
	}

	settlement := client.Consumer("settlement", nil)
	pabal.Handle(settlement, OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		fmt.Println("settling", e.Data.OrderNo)
		defer stop() // the program has seen what it waited for; a service goes on
		_, err := tx.ExecContext(ctx, "insert into ledger values (?, ?)", e.Data.OrderNo, e.Data.Amount)
		return err
	})

	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }() // publishes, confirms, consumes, until ctx ends
	if err := client.Ready(ctx); err != nil {
		return err
	}

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := client.Record(ctx, tx, OrderPaid.New(Paid{OrderNo: "A1", Amount: 12000})); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil { // published; nothing else to call
		return err
	}

	if err := <-ended; err != nil {
		return err
	}
	var amount int
	if err := db.QueryRow("select amount from ledger where order_no = 'A1'").Scan(&amount); err != nil {
		return err
	}
	fmt.Println("the ledger says", amount)
	return nil
}
