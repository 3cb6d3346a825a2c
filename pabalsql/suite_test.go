package pabalsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/rolling"
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

// What a migration may bring, an old program does not see: columns that are null or have a default, indexes, tables.
func TestSQLiteConformanceOnTablesOfTheNextVersion(t *testing.T) {
	storetest.Run(t, onNextVersion(sqliteHarness()))
}

// onNextVersion changes the tables of a harness's databases as far as a migration may.
func onNextVersion(h storetest.Harness[*sql.Tx]) storetest.Harness[*sql.Tx] {
	plain := h.Open
	h.Open = func(t *testing.T) storetest.Database[*sql.Tx] {
		d := plain(t)
		x, err := d.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range nextVersion() {
			if _, err := x.Exec(strings.ReplaceAll(statement, "{p}", "pabal_")); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Commit(x); err != nil {
			t.Fatal(err)
		}
		return d
	}
	return h
}

// nextVersion is a migration that changes every table as far as one may.
func nextVersion() []string {
	statements := []string{"create table {p}future (id integer not null primary key)", "create index {p}topic_future on {p}topic (proven_at)"}
	for _, table := range []string{"meta", "event", "pending", "topic", "counter", "redelivery", "inbox", "cursor", "consumer"} {
		statements = append(statements, "alter table {p}"+table+" add column future varchar(20)",
			"alter table {p}"+table+" add column further integer not null default 7")
	}
	return append(statements, fmt.Sprintf("update {p}meta set version = %d where id = 1", pabalsql.SchemaVersion+1))
}

// The migration of onNextVersion is one that is allowed.
func TestNextVersionIsAllowed(t *testing.T) {
	if wrong := rolling.Refused(strings.Join(nextVersion(), ";\n")+";", pabalsql.SchemaVersion+1); len(wrong) > 0 {
		t.Errorf("refused: %q", wrong)
	}
}

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
