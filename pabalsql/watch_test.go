package pabalsql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// openWatched makes a database with Pabal's tables, one of its own, and a store of it.
func openWatched(t testing.TB) (*sql.DB, *Store) {
	t.Helper()
	db, err := OpenSQLite(filepath.Join(t.TempDir(), "test.db"), &SQLiteOptions{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`create table t (n integer primary key, text text)`); err != nil {
		t.Fatal(err)
	}
	s, err := New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db, s
}

// fate records an event in tx and returns what becomes of its commit; nil as long as nothing has.
func fate(t testing.TB, s *Store, tx *sql.Tx) *[]driver.CommitState {
	t.Helper()
	var fate []driver.CommitState
	err := s.Record(t.Context(), tx, driver.Recording{Lease: time.Second,
		Events:  []driver.Event{{ID: uuid.New(), Topic: "paid", Type: "paid", Key: "o-1"}},
		Outcome: func(state driver.CommitState) { fate = append(fate, state) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &fate
}

func TestStatementIsClassifiedByItsFirstWord(t *testing.T) {
	names := map[statementKind]string{isOther: "other", isPlain: "plain", isBegin: "begin", isCommit: "commit", isRollback: "rollback"}
	for kind, statements := range map[statementKind][]string{
		isPlain: {
			"select 1", "SELECT 1", " \n\tselect 1 ; ", "select(1)", "select\n1", "insert into t values (1)", "update t set n = 1",
			"delete from t", "replace into t values (1)", "with x as (select 1) select * from x", "values (1)", "savepoint s",
			"release s", "release savepoint s", "RELEASE\tSAVEPOINT s",
		},
		isBegin:  {"begin", "begin immediate", "BEGIN;", "start transaction"},
		isCommit: {"commit", "COMMIT", "commit;", " end ", "commit transaction", "end\ttransaction"},
		isRollback: {
			"rollback", "ROLLBACK;", "rollback transaction", "rollback\nwork",
		},
		isOther: {
			"", ";", "rollback to s", "ROLLBACK TO s", "rollback to savepoint s", "rollback transaction to savepoint s",
			"rollback\nto s", "rollback\tTO\ts", "rollback \r\n to s", "Rollback\nTransaction\nTo s", // the transaction goes on
			"call p()", "do $$ begin commit; end $$", "pragma user_version", "explain select 1", "create table x (n)", "drop table t",
			"attach 'x' as y", "vacuum", "prepare transaction 'x'", "set autocommit = 0", "lock tables t read", "truncate t",
			"insert into t values (1); commit", "select ';'", "-- commit\nselect 1", "/* */ select 1", "selected", "committed",
			"(select 1)",
		},
	} {
		for _, statement := range statements {
			if is := classify(statement); is != kind {
				t.Errorf("%q is taken for %s, not %s", statement, names[is], names[kind])
			}
		}
	}
}

// Only what is known to change rows, and nothing else, keeps a commit proven: whatever else runs between Record and COMMIT has
// the events looked up before they are published (P2).
func TestCommitIsProvenOnlyAfterHarmlessStatements(t *testing.T) {
	exec := func(statements ...string) func(*testing.T, *sql.Tx) {
		return func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			for _, statement := range statements {
				if _, err := tx.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fails := func(statement string, args ...any) func(*testing.T, *sql.Tx) {
		return func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			if _, err := tx.Exec(statement, args...); err == nil {
				t.Fatalf("%q succeeded", statement)
			}
		}
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T, *sql.Tx)
		want driver.CommitState
	}{
		{"nothing", exec(), driver.Proven},
		{"changes of rows", exec("insert into t values (7, 'x')", "update t set text = 'y'", "delete from t",
			"replace into t values (7, '')"), driver.Proven},
		{"a savepoint that is released", exec("savepoint s", "insert into t values (7, '')", "release s"), driver.Proven},
		{"a query", func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			var n int
			if err := tx.QueryRow("with x as (select 1 as n) select n from x").Scan(&n); err != nil {
				t.Fatal(err)
			}
		}, driver.Proven},
		{"a prepared statement", func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			stmt, err := tx.Prepare("insert into t values (?, ?)")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stmt.Exec(7, "x"); err != nil {
				t.Fatal(err)
			}
		}, driver.Proven},
		{"a savepoint that is rolled back", exec("savepoint s", "rollback to s"), driver.Doubtful},
		{"one on two lines", exec("savepoint s", "rollback\nto s"), driver.Doubtful},
		{"one whose name is written out", exec("savepoint s", "rollback transaction to savepoint s", "release s"), driver.Doubtful},
		{"a setting", exec("pragma user_version = 5"), driver.Doubtful},
		{"a new table", exec("create table u (n)"), driver.Doubtful},
		{"several statements in one", exec("insert into t values (7, ''); insert into t values (8, '')"), driver.Doubtful},
		{"a comment before it", exec("/* why */ insert into t values (7, '')"), driver.Doubtful},
		{"a statement that fails", fails("insert into nowhere values (1)"), driver.Doubtful},
		{"a constraint that fails", func(t *testing.T, tx *sql.Tx) {
			exec("insert into t values (7, '')")(t, tx)
			fails("insert into t values (?, '')", 7)(t, tx)
		}, driver.Doubtful},
		{"a prepared statement that fails", func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			stmt, err := tx.Prepare("insert into t values (?, ?)")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = stmt.Exec(7, "x")
			if _, err := stmt.Exec(7, "x"); err == nil {
				t.Fatal("it succeeded")
			}
		}, driver.Doubtful},
		{"a statement that cannot be prepared", func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			if _, err := tx.Prepare("insert into nowhere values (1)"); err == nil {
				t.Fatal("it succeeded")
			}
		}, driver.Doubtful},
		{"a query that fails in its midst", func(t *testing.T, tx *sql.Tx) {
			t.Helper()
			rows, err := tx.Query("select abs(n) from (select 1 as n union all select -9223372036854775807 - 1)")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() { //nolint:revive // to the error
			}
			if err := rows.Err(); err == nil {
				t.Fatal("it succeeded")
			}
			_ = rows.Close()
		}, driver.Doubtful},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, s := openWatched(t)
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := fate(t, s, tx)
			c.do(t, tx)
			if len(*got) > 0 {
				t.Fatalf("the commit was %v before it was sent", *got)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(*got, []driver.CommitState{c.want}) {
				t.Errorf("after %s a commit is %v, not %v", c.name, *got, c.want)
			}
		})
	}
}

// What was before Record is no matter: a savepoint that was rolled back before took nothing of its events with it.
func TestErrorBeforeRecordLeavesTheCommitProven(t *testing.T) {
	db, s := openWatched(t)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("insert into nowhere values (1)"); err == nil {
		t.Fatal("it succeeded")
	}
	first := fate(t, s, tx)
	if _, err := tx.Exec("savepoint s"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("rollback to s"); err != nil {
		t.Fatal(err)
	}
	second := fate(t, s, tx)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if len(*first) != 1 || (*first)[0] != driver.Doubtful || len(*second) != 1 || (*second)[0] != driver.Proven {
		t.Errorf("recorded before the savepoint: %v, not doubtful; after it: %v, not proven", *first, *second)
	}
}

func TestTransactionThatEndsWithoutCommitIsVoid(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *sql.Tx, context.CancelFunc){
		"rollback": func(t *testing.T, tx *sql.Tx, _ context.CancelFunc) {
			if err := tx.Rollback(); err != nil {
				t.Error(err)
			}
		},
		"rollback as text": func(t *testing.T, tx *sql.Tx, _ context.CancelFunc) {
			if _, err := tx.Exec("rollback"); err != nil {
				t.Error(err)
			}
			_ = tx.Rollback()
		},
		"context ends": func(_ *testing.T, tx *sql.Tx, cancel context.CancelFunc) {
			cancel()
			for !errors.Is(tx.Commit(), sql.ErrTxDone) { // the pool rolls back in a goroutine of its own
				continue
			}
			_ = tx.Rollback() // waits for it
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, s := openWatched(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := fate(t, s, tx)
			end(t, tx, cancel)
			for db.Stats().InUse > 0 { // the pool rolls back in a goroutine of its own
				runtime.Gosched()
			}
			if !slices.Equal(*got, []driver.CommitState{driver.Void}) {
				t.Errorf("it is %v, not void", *got)
			}
		})
	}
}

// COMMIT as text ends a transaction like any other: what was recorded is committed.
func TestCommitAsTextIsProven(t *testing.T) {
	db, s := openWatched(t)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := fate(t, s, tx)
	if _, err := tx.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*got, []driver.CommitState{driver.Proven}) {
		t.Errorf("it is %v, not proven", *got)
	}
	if err := s.Record(t.Context(), tx, driver.Recording{Events: make([]driver.Event, 1)}); !errors.Is(err, driver.ErrNoTransaction) {
		t.Errorf("Record after it answers %v", err)
	}
	_ = tx.Rollback()
}

func TestRecordRefusesWhatIsNoWatchedTransaction(t *testing.T) {
	db, s := openWatched(t)
	recording := driver.Recording{
		Events:  []driver.Event{{ID: uuid.New(), Topic: "paid", Type: "paid"}},
		Outcome: func(driver.CommitState) { t.Error("an outcome was told") },
	}
	if err := s.Record(t.Context(), nil, recording); !errors.Is(err, driver.ErrNoTransaction) {
		t.Errorf("nil: %v", err)
	}
	for name, end := range map[string]func(*sql.Tx) error{"committed": (*sql.Tx).Commit, "rolled back": (*sql.Tx).Rollback} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(tx); err != nil {
			t.Fatal(err)
		}
		if err := s.Record(t.Context(), tx, recording); !errors.Is(err, driver.ErrNoTransaction) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "plain.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close() //nolint:errcheck // of a test
	tx, err := plain.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // of a test
	if err := s.Record(t.Context(), tx, recording); !errors.Is(err, driver.ErrUnwatched) {
		t.Errorf("unwatched: %v", err)
	}
	if _, err := tx.Exec("select 1"); err != nil {
		t.Errorf("a refused Record broke the transaction: %v", err)
	}
	unwatched, err := New(plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := unwatched.Open(t.Context(), ""); !errors.Is(err, driver.ErrUnwatched) {
		t.Errorf("a store of an unwatched pool opens: %v", err)
	}
}

// bare is a connector of a driver that has nothing optional, and fails when it is told to.
type bare struct {
	commit error
	sent   []string
}

func (b *bare) Connect(context.Context) (sqldriver.Conn, error) { return &bareConn{b}, nil }
func (b *bare) Driver() sqldriver.Driver                        { return nil }

type bareConn struct{ b *bare }

func (c *bareConn) Prepare(query string) (sqldriver.Stmt, error) { return &bareStmt{c.b, query}, nil }
func (c *bareConn) Close() error                                 { return nil }
func (c *bareConn) Begin() (sqldriver.Tx, error)                 { return bareTx{c.b}, nil }

type bareTx struct{ b *bare }

func (t bareTx) Commit() error   { return t.b.commit }
func (t bareTx) Rollback() error { return nil }

type bareStmt struct {
	b     *bare
	query string
}

func (s *bareStmt) Close() error  { return nil }
func (s *bareStmt) NumInput() int { return strings.Count(s.query, "?") }
func (s *bareStmt) Exec(args []sqldriver.Value) (sqldriver.Result, error) {
	s.b.sent = append(s.b.sent, fmt.Sprint(s.query, args))
	return sqldriver.RowsAffected(1), nil
}
func (s *bareStmt) Query([]sqldriver.Value) (sqldriver.Rows, error) {
	return nil, errors.New("no rows")
}

func TestWatchOfABareDriverDoesWhatDatabaseSQLDoes(t *testing.T) {
	b := &bare{}
	db := sql.OpenDB(Watch(b))
	defer db.Close() //nolint:errcheck // of a test
	if err := db.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}); err == nil {
		t.Error("a read-only transaction was promised")
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var states []driver.CommitState
	c, err := meet(t.Context(), tx)
	if err != nil || !c.record(func(state driver.CommitState) { states = append(states, state) }) {
		t.Fatal("no watched transaction", err)
	}
	if _, err := tx.Exec("insert into t values (?)", 7); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if want := []string{"insert into t values (?)[7]"}; !slices.Equal(b.sent, want) {
		t.Errorf("sent %q, not %q: to meet a connection sends nothing", b.sent, want)
	}
	if !slices.Equal(states, []driver.CommitState{driver.Proven}) {
		t.Errorf("the commit is %v, not proven", states)
	}
}

func TestLostAnswerToCommitIsDoubtful(t *testing.T) {
	for name, lost := range map[string]error{"an error": errors.New("disk I/O error"), "no answer": sqldriver.ErrBadConn} {
		t.Run(name, func(t *testing.T) {
			db := sql.OpenDB(Watch(&bare{commit: lost}))
			defer db.Close() //nolint:errcheck // of a test
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var states []driver.CommitState
			c, err := meet(t.Context(), tx)
			if err != nil || !c.record(func(state driver.CommitState) { states = append(states, state) }) {
				t.Fatal("no watched transaction", err)
			}
			if err := tx.Commit(); !errors.Is(err, lost) {
				t.Errorf("Commit answers %v", err)
			}
			if !slices.Equal(states, []driver.CommitState{driver.Doubtful}) {
				t.Errorf("the commit is %v, not doubtful", states)
			}
		})
	}
}

func TestConnectionThatIsClosedBeforeCommitIsVoid(t *testing.T) {
	inner, err := Watch(&bare{}).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := inner.(*conn)
	if _, err := c.BeginTx(t.Context(), sqldriver.TxOptions{}); err != nil {
		t.Fatal(err)
	}
	var states []driver.CommitState
	if !c.record(func(state driver.CommitState) { states = append(states, state) }) {
		t.Fatal("no transaction is open")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(states, []driver.CommitState{driver.Void}) {
		t.Errorf("it is %v, not void", states)
	}
	if c.record(nil) {
		t.Error("a closed connection still records")
	}
}
