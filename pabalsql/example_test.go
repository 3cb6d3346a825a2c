package pabalsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	sqlitedriver "modernc.org/sqlite"

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

// The user, the host and the database of an address; what endangers a promise is set right, or refused by name.
func ExampleOpenMySQL() {
	db, err := pabalsql.OpenMySQL("mysql://shop:secret@127.0.0.1:3306/shop_order", nil)
	if err != nil {
		return // nothing answers there
	}
	defer db.Close() //nolint:errcheck // of an example
	store, err := pabalsql.New(db, nil)
	fmt.Println(store != nil, err)
}
