package tests

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/pabaltest"
)

type bill struct {
	No     string `json:"no"`
	Amount int    `json:"amount"`
}

var billPaid = pabal.Define("bill-paid", pabal.Key(func(b bill) string { return b.No }))

// What package pabaltest asserts against a database of one's own holds on each kind of database: what was recorded, in its order and past a
// page, what was confirmed, what was handled, and nothing of what rolled back.
func TestAssertionsOnRealDatabases(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	onMariaDB := func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
		db, err := pabalsql.OpenMySQL(m.DSN(newMariaDB(t, m, file), ""), nil)
		return migrated(t, db, err)
	}
	for name, open := range map[string]func(testing.TB, string) (*sql.DB, driver.Store[*sql.Tx]){
		"SQLite": onSQLite.open, "MariaDB": onMariaDB, "PostgreSQL": openPostgres,
	} {
		t.Run(name, func(t *testing.T) { assertionsHold(t, open) })
	}
}

func assertionsHold(t *testing.T, open func(testing.TB, string) (*sql.DB, driver.Store[*sql.Tx])) {
	broker, dir := pabaltest.NewBroker(), t.TempDir()
	client := func(source string) (*sql.DB, *pabal.Client[*sql.Tx]) {
		db, store := open(t, filepath.Join(dir, source+".db"))
		t.Cleanup(func() { _ = db.Close() })
		c, err := pabal.New(t.Context(), store, broker, source, nil)
		if err != nil {
			t.Fatal(err)
		}
		return db, c
	}
	db, order := client("order")
	_, settlement := client("settlement")
	var settled atomic.Int64
	pabal.HandleBatch(settlement.Consumer("settlement", nil), billPaid, func(_ context.Context, _ *sql.Tx, batch []pabal.Received[bill]) error {
		for _, e := range batch {
			settled.Add(int64(e.Data.Amount))
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, c := range []*pabal.Client[*sql.Tx]{order, settlement} {
		go func() { ended <- c.Run(ctx) }()
	}
	defer func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	if err := settlement.Ready(ctx); err != nil { // what is published before its queue is subscribed never reaches it
		t.Fatal(err)
	}
	const many = 1005 // more than a page
	for n := range many / 5 {
		for _, commits := range []bool{false, true} {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				if err := order.Record(ctx, tx, billPaid.New(bill{fmt.Sprint("B", i), n*5 + i})); err != nil {
					t.Fatal(err)
				}
			}
			end := tx.Rollback
			if commits {
				end = tx.Commit
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
		}
	}
	events := pabaltest.RecordedIn(t, order.Operator, billPaid)
	if len(events) != many {
		t.Fatalf("%d events are recorded", len(events))
	}
	for i, e := range events {
		if e.Data.Amount != i || e.Source != "order" || e.Key != e.Data.No {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	for len(events) > 0 {
		some := events[:min(len(events), 1000)]
		pabaltest.AwaitConfirmed(t, time.Minute, order.Operator, some...)
		pabaltest.AwaitHandled(t, time.Minute, settlement.Operator, "settlement", some...)
		events = events[len(some):]
	}
	if want := int64(many * (many - 1) / 2); settled.Load() != want {
		t.Errorf("settled %d, want %d", settled.Load(), want)
	}
}
