package pabalpgx_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/rolling"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var databases atomic.Int64

// newDatabase makes an empty database for one test, and answers its URL.
func newDatabase(t testing.TB) string {
	t.Helper()
	server := servers.SharedPostgres()
	name := fmt.Sprintf("pabal_test_%d_%d", os.Getpid(), databases.Add(1))
	admin := must(pgx.Connect(t.Context(), server.URL))(t)
	defer admin.Close(context.Background()) //nolint:errcheck // nothing is left to be said
	must(admin.Exec(t.Context(), "create database "+name))(t)
	t.Cleanup(func() {
		ctx := context.Background()
		admin, err := pgx.Connect(ctx, server.URL)
		if err == nil {
			_, err = admin.Exec(ctx, "drop database "+name+" with (force)")
			_ = admin.Close(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return server.Database(name)
}

// connect opens a watched pool.
func connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg := must(pgxpool.ParseConfig(url))(t)
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = 40
	}
	pool := must(pgxpool.NewWithConfig(t.Context(), pabalpgx.Watch(cfg)))(t)
	t.Cleanup(func() {
		if t.Failed() { // Close waits for what a failed test holds open
			go pool.Close()
			return
		}
		pool.Close()
	})
	return pool
}

// open makes a database with Pabal's tables.
func open(t testing.TB) (pool *pgxpool.Pool, url string) {
	t.Helper()
	url = newDatabase(t)
	pool = connect(t, url)
	must(pabalpgx.Migrate(t.Context(), pool, nil))(t)
	return pool, url
}

// effects makes the table in which the suite counts.
func effects(t *testing.T, pool *pgxpool.Pool) func() int {
	must(pool.Exec(t.Context(), `create table effect (n integer)`))(t)
	return func() (n int) {
		if err := pool.QueryRow(t.Context(), `select count(*) from effect`).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
}

// fail has a statement fail in such a way that the transaction can still be committed: in PostgreSQL, behind a savepoint.
func fail(t *testing.T, exec func(text string) error) {
	if exec("savepoint f") != nil || exec("insert into nowhere values (1)") == nil || exec("rollback to f") != nil {
		t.Error("the statement did not fail as it should")
	}
}

// modes are the ways in which pgx sends a statement; poolers in transaction mode want another one than the default.
var modes = []string{"cache_statement", "cache_describe", "exec", "simple_protocol"}

func TestPgxConformance(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, storetest.Harness[pgx.Tx]{Open: func(t *testing.T) storetest.Database[pgx.Tx] { return pgxDatabase(t, mode) }})
		})
	}
}

func TestPgxConformanceMisbehaving(t *testing.T) {
	t.Parallel()
	storetest.RunMisbehaving(t, storetest.Harness[pgx.Tx]{Open: func(t *testing.T) storetest.Database[pgx.Tx] { return pgxDatabase(t, modes[0]) }}, 1)
}

var (
	differentialFirst = flag.Uint64("differential.first", 0, "the first of the new seeds of the differential test; 0: by chance")
	differentialSeeds = flag.Uint64("differential.seeds", 1, "how many new seeds the differential test runs")
)

// TestStoresAnswerAsTheSimulatedOneDoes holds the database that the promises are checked on against PostgreSQL.
func TestStoresAnswerAsTheSimulatedOneDoes(t *testing.T) {
	t.Parallel()
	var seeds []uint64
	first := *differentialFirst
	if first == 0 {
		first = rand.Uint64() >> 1
	}
	for n := range *differentialSeeds {
		seeds = append(seeds, first+n)
	}
	for mode, seeds := range map[string][]uint64{modes[0]: append([]uint64{1}, seeds...), modes[3]: seeds} {
		t.Run("pgx, "+mode, func(t *testing.T) {
			t.Parallel()
			h := storetest.Harness[pgx.Tx]{Open: func(t *testing.T) storetest.Database[pgx.Tx] { return pgxDatabase(t, mode) }}
			for _, seed := range seeds {
				storetest.Differential(t, h, seed, 400)
			}
		})
	}
	t.Run("database/sql", func(t *testing.T) {
		t.Parallel()
		h := storetest.Harness[*sql.Tx]{Open: func(t *testing.T) storetest.Database[*sql.Tx] { return sqlDatabase(t, modes[2]) }}
		for _, seed := range seeds {
			storetest.Differential(t, h, seed, 400)
		}
	})
}

// What a migration may bring, an old program does not see: columns that are null or have a default, indexes, tables.
func TestPgxConformanceOnTablesOfTheNextVersion(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Harness[pgx.Tx]{Open: func(t *testing.T) storetest.Database[pgx.Tx] {
		pool, url := open(t)
		script := "create table {p}future (id integer not null primary key);\ncreate index {p}topic_future on {p}topic (proven_at);\n"
		for _, table := range []string{"meta", "event", "pending", "topic", "counter", "redelivery", "inbox", "cursor", "consumer"} {
			script += "alter table {p}" + table + " add column future text;\n" +
				"alter table {p}" + table + " add column further integer not null default 7;\n"
		}
		script += fmt.Sprintf("update {p}meta set version = %d where id = 1;", pabalpgx.SchemaVersion+1)
		if wrong := rolling.Refused(script, pabalpgx.SchemaVersion+1); len(wrong) > 0 {
			t.Fatalf("such a migration is refused: %q", wrong)
		}
		must(pool.Exec(t.Context(), strings.ReplaceAll(script, "{p}", "pabal_")))(t)
		return pgxDatabaseAt(t, url, modes[0])
	}})
}

func pgxDatabase(t *testing.T, mode string) storetest.Database[pgx.Tx] {
	_, url := open(t)
	return pgxDatabaseAt(t, url, mode)
}

func pgxDatabaseAt(t *testing.T, url, mode string) storetest.Database[pgx.Tx] {
	pool := connect(t, url+"&default_query_exec_mode="+mode)
	exec := func(x pgx.Tx, sql string) error { _, err := x.Exec(t.Context(), sql); return err }
	return storetest.Database[pgx.Tx]{
		Connect: func(t *testing.T) driver.Store[pgx.Tx] { return must(pabalpgx.New(pool, nil))(t) },
		Begin:   pool.Begin,
		Commit: func(x pgx.Tx) error {
			err := x.Commit(t.Context())
			if err == pgx.ErrTxCommitRollback { //nolint:errorlint // PostgreSQL's answer to the COMMIT of a failed transaction
				return nil
			}
			return err
		},
		Rollback: func(x pgx.Tx) error { return x.Rollback(t.Context()) },
		Nil:      func() pgx.Tx { return nil },
		Unwatched: func(ctx context.Context) (pgx.Tx, error) {
			plain := must(pgxpool.New(t.Context(), url))(t)
			t.Cleanup(plain.Close)
			return plain.Begin(ctx)
		},
		Savepoint:  func(x pgx.Tx) error { return exec(x, "savepoint s") },
		RollbackTo: func(x pgx.Tx) error { return exec(x, "rollback to s") },
		Fail:       func(x pgx.Tx) { fail(t, func(text string) error { return exec(x, text) }) },
		Write:      func(x pgx.Tx) error { return exec(x, "insert into effect values (1)") },
		Effects:    effects(t, pool),
	}
}

func TestSQLConformance(t *testing.T) {
	for _, mode := range modes[2:] { // the first two differ from "exec" only in what they remember
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, storetest.Harness[*sql.Tx]{Open: func(t *testing.T) storetest.Database[*sql.Tx] { return sqlDatabase(t, mode) }})
		})
	}
}

func sqlDatabase(t *testing.T, mode string) storetest.Database[*sql.Tx] {
	_, url := open(t)
	pool := connect(t, url+"&default_query_exec_mode="+mode)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { _ = db.Close() })
	exec := func(x *sql.Tx, text string) error { _, err := x.ExecContext(t.Context(), text); return err }
	return storetest.Database[*sql.Tx]{
		Connect: func(t *testing.T) driver.Store[*sql.Tx] { return must(pabalpgx.NewSQL(db, pool, nil))(t) },
		Begin:   func(ctx context.Context) (*sql.Tx, error) { return db.BeginTx(ctx, nil) },
		Commit: func(x *sql.Tx) error {
			err := x.Commit()
			if err == pgx.ErrTxCommitRollback { //nolint:errorlint // PostgreSQL's answer to the COMMIT of a failed transaction
				return nil
			}
			return err
		},
		Rollback: (*sql.Tx).Rollback,
		Nil:      func() *sql.Tx { return nil },
		Unwatched: func(ctx context.Context) (*sql.Tx, error) {
			plain := must(sql.Open("pgx", url))(t)
			t.Cleanup(func() { _ = plain.Close() })
			return plain.BeginTx(ctx, nil)
		},
		Savepoint:  func(x *sql.Tx) error { return exec(x, "savepoint s") },
		RollbackTo: func(x *sql.Tx) error { return exec(x, "rollback to s") },
		Fail:       func(x *sql.Tx) { fail(t, func(text string) error { return exec(x, text) }) },
		Write:      func(x *sql.Tx) error { return exec(x, "insert into effect values (1)") },
		Effects:    effects(t, pool),
	}
}
