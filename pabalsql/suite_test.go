package pabalsql_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/pabalsql"
)

// openSQLite makes a database with Pabal's tables in a directory of the test.
func openSQLite(t testing.TB) *sql.DB {
	t.Helper()
	db, err := pabalsql.OpenSQLite(filepath.Join(t.TempDir(), "test.db"), &pabalsql.SQLiteOptions{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestSQLiteConformance(t *testing.T) { storetest.Run(t, sqliteHarness()) }

func TestSQLiteConformanceMisbehaving(t *testing.T) { storetest.RunMisbehaving(t, sqliteHarness(), 1) }

func sqliteHarness() storetest.Harness[*sql.Tx] {
	return storetest.Harness[*sql.Tx]{SingleWriter: true, Open: func(t *testing.T) storetest.Database[*sql.Tx] {
		db := openSQLite(t)
		if _, err := db.Exec(`create table effect (n integer)`); err != nil {
			t.Fatal(err)
		}
		d := sqlDatabase(t, db)
		d.Unwatched = func(ctx context.Context) (*sql.Tx, error) {
			c, err := sqlitedriver.NewConnector("file:" + filepath.Join(t.TempDir(), "unwatched.db"))
			if err != nil {
				return nil, err
			}
			plain := sql.OpenDB(c)
			t.Cleanup(func() { _ = plain.Close() })
			return plain.BeginTx(ctx, nil)
		}
		return d
	}}
}

// sqlDatabase is the suite's view of a database with Pabal's tables and a table effect; Unwatched is left to its kind.
func sqlDatabase(t *testing.T, db *sql.DB) storetest.Database[*sql.Tx] {
	return storetest.Database[*sql.Tx]{
		Connect: func(t *testing.T) driver.Store[*sql.Tx] {
			s, err := pabalsql.New(db, nil)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Begin:      func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, nil) },
		Commit:     (*sql.Tx).Commit,
		Rollback:   (*sql.Tx).Rollback,
		Nil:        func() *sql.Tx { return nil },
		Savepoint:  func(x *sql.Tx) error { _, err := x.Exec("savepoint s"); return err },
		RollbackTo: func(x *sql.Tx) error { _, err := x.Exec("rollback to s"); return err },
		Fail: func(x *sql.Tx) {
			if _, err := x.Exec("insert into nowhere values (1)"); err == nil {
				t.Error("the statement succeeded")
			}
		},
		Write: func(x *sql.Tx) error { _, err := x.Exec("insert into effect values (1)"); return err },
		Effects: func() (n int) {
			if err := db.QueryRow("select count(*) from effect").Scan(&n); err != nil {
				t.Error(err)
			}
			return n
		},
	}
}
