package pabalsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// A database file for an application and for Pabal. The tables are made once, by the program or by `pabal migrate`.
func ExampleOpenSQLite() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of an example
	db, err := pabalsql.OpenSQLite(filepath.Join(dir, "order.db"), nil)
	if err != nil {
		panic(err)
	}
	defer db.Close() //nolint:errcheck // of an example
	for range 2 {
		done, err := pabalsql.Migrate(context.Background(), db, nil)
		fmt.Println(done, err)
	}
	store, err := pabalsql.New(db, nil) // for pabal.New
	fmt.Println(store != nil, err)
	// Output:
	// created the tables, version 1 <nil>
	// nothing to do: the tables are of version 1 <nil>
	// true <nil>
}

// A pool of one's own is watched by wrapping its connector; everything that the driver can do is kept.
func ExampleWatch() {
	connector, err := sqlitedriver.NewConnector("file::memory:?_txlock=immediate")
	if err != nil {
		panic(err)
	}
	db := sql.OpenDB(pabalsql.Watch(connector))
	defer db.Close() //nolint:errcheck // of an example
	fmt.Println(db.Ping())
	// Output: <nil>
}

// For goose, Flyway, Liquibase or Atlas.
func ExampleScript() {
	script, err := pabalsql.Script("sqlite", &pabalsql.Options{TablePrefix: "events_"})
	fmt.Println(strings.Contains(script, "create table events_event "), err)
	// Output: true <nil>
}

// silent is the broker of a client that does not run; here nothing is published.
type silent struct{ driver.Broker }

func (silent) Limits() driver.Limits { return driver.Limits{} }

// What an audit compares with the books: events by type. It is for SQLite as well.
func ExampleStore_Tallies() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of an example
	db, err := pabalsql.OpenSQLite(filepath.Join(dir, "order.db"), nil)
	if err != nil {
		panic(err)
	}
	defer db.Close() //nolint:errcheck // of an example
	store, err := recordOne(ctx, db)
	if err != nil {
		panic(err)
	}
	fmt.Println(store.Tallies(ctx))
	// Output: map[order-viewed:{1 0}] <nil>
}

// recordOne makes the tables of a database, and records an event there.
func recordOne(ctx context.Context, db *sql.DB) (*pabalsql.Store, error) {
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return nil, err
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return nil, err
	}
	client, err := pabal.New(ctx, store, silent{}, "order", nil)
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	if err := client.Record(ctx, tx, pabal.Define[string]("order-viewed").New("A1")); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return store, tx.Commit()
}

// example is the testing.TB of an example, with what a server needs of one.
type example struct {
	testing.TB
	cleanups []func()
}

func (*example) Helper()                           {}
func (e *example) Cleanup(f func())                { e.cleanups = append(e.cleanups, f) }
func (*example) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (*example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (*example) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (e *example) end() {
	for _, f := range slices.Backward(e.cleanups) {
		f()
	}
}

// The address of a database, as a URL or as the driver writes it; what endangers a promise is set right, or refused by name.
func ExampleOpenMySQL() {
	var t example
	defer t.end()
	server := servers.StartMariaDB(&t, &servers.MariaDBOptions{Volatile: true})
	address := server.Database(&t, "") // such as mysql://shop:secret@127.0.0.1:3306/shop_order

	db, err := pabalsql.OpenMySQL(address, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close() //nolint:errcheck // of an example
	store, err := recordOne(context.Background(), db)
	if err != nil {
		panic(err)
	}
	fmt.Println(store.Tallies(context.Background()))
	// Output: map[order-viewed:{1 0}] <nil>
}
