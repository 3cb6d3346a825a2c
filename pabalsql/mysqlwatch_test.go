package pabalsql

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// openServer makes a database with Pabal's tables, and tables of an application, on a server.
func openServer(t testing.TB, m *servers.MariaDB) (*sql.DB, *Store) {
	t.Helper()
	db, err := OpenMySQL(m.Database(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	must(t, db, "create table t (n int primary key, text varchar(100)) engine = innodb", "insert into t values (1, 'a'), (2, 'b')")
	s, err := New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db, s
}

func must(t testing.TB, x interface {
	Exec(query string, args ...any) (sql.Result, error)
}, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := x.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// ending is a way in which a transaction that recorded an event may end: what Pabal takes it for, and whether its event is
// there. Whatever is there is published: at once where it is proven, after a look where it is doubtful, by the republisher where
// it is void. So a ghost is what would be proven, and is not there.
type ending struct {
	name    string
	end     func(t *testing.T, e *endingTest)
	want    driver.CommitState
	present bool
}

type endingTest struct {
	m    *servers.MariaDB
	db   *sql.DB
	s    *Store
	tx   *sql.Tx // it has recorded an event
	ctx  context.Context
	conn int // its number at the server
}

func (e *endingTest) commit(t *testing.T) {
	t.Helper()
	if err := e.tx.Commit(); err != nil {
		t.Error(err)
	}
}

// opponent is a transaction that has the second row of t locked and waits for the first, which the caller has locked.
// Its result comes through the channel.
func (e *endingTest) opponent(t *testing.T) <-chan error {
	t.Helper()
	other, err := e.db.BeginTx(e.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	// InnoDB rolls back the transaction that changed fewer rows.
	for n := range 50 {
		must(t, other, fmt.Sprintf("insert into t values (%d, 'opponent')", 1000+n))
	}
	must(t, other, "update t set text = 'x' where n = 2")
	var id int
	if err := other.QueryRow("select connection_id()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := other.Exec("update t set text = 'x' where n = 1")
		done <- errors.Join(err, other.Commit())
	}()
	e.until(t, "the opponent waits", fmt.Sprintf(
		"select count(*) from information_schema.innodb_trx where trx_mysql_thread_id = %d and trx_state = 'LOCK WAIT'", id))
	return done
}

// until asks until the answer is not 0, each time after what the server keeps of innodb_trx for 100 ms has been read last.
func (e *endingTest) until(t *testing.T, what, query string) {
	t.Helper()
	ticker := time.NewTicker(150 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; n == 0; <-ticker.C {
		if err := e.db.QueryRowContext(e.ctx, query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (e *endingTest) fails(t *testing.T, number uint16, statement string) {
	t.Helper()
	_, err := e.tx.Exec(statement)
	if !isMySQL(err, number) {
		t.Fatalf("%s: %v, not error %d", statement, err, number)
	}
	if !e.s.Inbox().Conflict(err) {
		t.Errorf("%v is no conflict", err)
	}
}

var endings = []ending{
	{"deadlock whose error is ignored", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "update t set text = 'y' where n = 1")
		other := e.opponent(t)
		e.fails(t, deadlock, "update t set text = 'y' where n = 2")
		e.commit(t) // and the server says that it did
		if err := <-other; err != nil {
			t.Error(err)
		}
	}, driver.Doubtful, false},
	{"deadlock that a procedure swallows", func(t *testing.T, e *endingTest) {
		must(t, e.db, `create procedure swallow() begin declare continue handler for 1213 begin end;
			update t set text = 'y' where n = 2; end`)
		must(t, e.tx, "update t set text = 'y' where n = 1")
		other := e.opponent(t)
		must(t, e.tx, "call swallow()")
		e.commit(t)
		if err := <-other; err != nil {
			t.Error(err)
		}
	}, driver.Doubtful, false},
	{"deadlock in a function that would swallow it", func(t *testing.T, e *endingTest) {
		must(t, e.db, `create function swallow() returns int deterministic modifies sql data begin declare continue handler for 1213 begin end;
			update t set text = 'y' where n = 2; return 1; end`)
		must(t, e.tx, "update t set text = 'y' where n = 1")
		other := e.opponent(t)
		e.fails(t, deadlock, "select swallow()")
		e.commit(t)
		if err := <-other; err != nil {
			t.Error(err)
		}
	}, driver.Doubtful, false},
	{"deadlock in a trigger that would swallow it", func(t *testing.T, e *endingTest) {
		must(t, e.db, "create table u (n int)", `create trigger swallow after insert on u for each row begin
			declare continue handler for 1213 begin end; update t set text = 'y' where n = 2; end`)
		must(t, e.tx, "update t set text = 'y' where n = 1")
		other := e.opponent(t)
		e.fails(t, deadlock, "insert into u values (1)")
		e.commit(t)
		if err := <-other; err != nil {
			t.Error(err)
		}
	}, driver.Doubtful, false},
	{"lock wait timeout whose error is ignored", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "set innodb_lock_wait_timeout = 1")
		other, err := e.db.BeginTx(e.ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		must(t, other, "update t set text = 'x' where n = 2")
		e.fails(t, lockWaitTimeout, "update t set text = 'y' where n = 2")
		e.commit(t)
		if err := other.Rollback(); err != nil {
			t.Error(err)
		}
	}, driver.Doubtful, true},
	{"DDL, then rollback", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "create table shiny (n int)") // commits
		if err := e.tx.Rollback(); err != nil {
			t.Error(err)
		}
	}, driver.Void, true},
	{"DDL, then commit", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "create table shiny (n int)")
		e.commit(t)
	}, driver.Doubtful, true},
	{"DDL that fails, then rollback", func(t *testing.T, e *endingTest) {
		if _, err := e.tx.Exec("create table t (n int)"); err == nil { // there is one: it commits all the same
			t.Fatal("it succeeded")
		}
		if err := e.tx.Rollback(); err != nil {
			t.Error(err)
		}
	}, driver.Void, true},
	{"begin in a transaction, then rollback", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "start transaction") // commits
		if err := e.tx.Rollback(); err != nil {
			t.Error(err)
		}
	}, driver.Void, true},
	{"savepoint after it", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "savepoint s", "insert into t values (7, 'c')", "rollback to savepoint s", "release savepoint s")
		e.commit(t)
	}, driver.Doubtful, true},
	{"savepoint that is released", func(t *testing.T, e *endingTest) {
		must(t, e.tx, "savepoint s", "insert into t values (7, 'c')", "release savepoint s")
		e.commit(t)
	}, driver.Proven, true},
	{"COMMIT as text", func(t *testing.T, e *endingTest) { must(t, e.tx, "COMMIT"); _ = e.tx.Rollback() }, driver.Proven, true},
	{"ROLLBACK as text", func(t *testing.T, e *endingTest) { must(t, e.tx, "rollback work"); _ = e.tx.Rollback() }, driver.Void, false},
	{"XA in a transaction", func(t *testing.T, e *endingTest) {
		if _, err := e.tx.Exec("xa start 'x'"); err == nil { // refused: a transaction is open
			t.Fatal("it succeeded")
		}
		e.commit(t)
	}, driver.Doubtful, true},
	{"connection killed before COMMIT", func(t *testing.T, e *endingTest) {
		must(t, e.db, fmt.Sprintf("kill %d", e.conn))
		if err := e.tx.Commit(); err == nil {
			t.Error("it was committed")
		}
	}, driver.Doubtful, false},
	{"connection killed during COMMIT", func(t *testing.T, e *endingTest) {
		guard, err := e.db.Conn(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer guard.Close()                                                                //nolint:errcheck // of a test
		if _, err := guard.ExecContext(e.ctx, "flush tables with read lock"); err != nil { // commits wait
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- e.tx.Commit() }()
		e.until(t, "the commit waits", fmt.Sprintf(
			"select count(*) from information_schema.processlist where id = %d and info = 'COMMIT'", e.conn))
		must(t, e.db, fmt.Sprintf("kill %d", e.conn))
		if err := <-done; err == nil {
			t.Error("it was committed")
		}
		// KILL closes the connection at once; its thread notices later, and would still commit if it were let go until then.
		e.until(t, "the killed connection has ended", fmt.Sprintf(
			"select count(*) = 0 from information_schema.processlist where id = %d", e.conn))
		if _, err := guard.ExecContext(e.ctx, "unlock tables"); err != nil {
			t.Fatal(err)
		}
	}, driver.Doubtful, false},
}

func TestNoEndingOfATransactionOnMariaDBMakesAGhost(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	for _, c := range endings {
		t.Run(c.name, func(t *testing.T) {
			db, s := openServer(t, m)
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			e := &endingTest{m: m, db: db, s: s, tx: tx, ctx: t.Context()}
			if err := tx.QueryRow("select connection_id()").Scan(&e.conn); err != nil {
				t.Fatal(err)
			}
			got := fate(t, s, tx)
			c.end(t, e)
			if !slices.Equal(*got, []driver.CommitState{c.want}) {
				t.Errorf("the commit is %v, not %v", *got, c.want)
			}
			if events, pending := countRows(t, db); events != pending || (events == 1) != c.present {
				t.Errorf("%d events and %d pending rows; there should be some: %v", events, pending, c.present)
			}
		})
	}
	t.Run("the answer to COMMIT is lost", func(t *testing.T) { commitUnanswered(t, m) })
}

func countRows(t *testing.T, db *sql.DB) (events, pending int) {
	t.Helper()
	err := db.QueryRow("select (select count(*) from pabal_event), (select count(*) from pabal_pending)").Scan(&events, &pending)
	if err != nil {
		t.Fatal(err)
	}
	return events, pending
}

// deaf is a connection that breaks once the server has answered a COMMIT, before the client reads it.
type deaf struct {
	net.Conn
	armed *atomic.Bool
	sent  atomic.Bool
}

func (d *deaf) Write(b []byte) (int, error) {
	if d.armed.Load() && bytes.Contains(b, []byte("COMMIT")) {
		d.sent.Store(true)
	}
	return d.Conn.Write(b)
}

func (d *deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if d.sent.Load() {
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// commitUnanswered loses the answer: the event is there, and nobody can tell by the answer.
func commitUnanswered(t *testing.T, m *servers.MariaDB) {
	db, s := openServer(t, m)
	var name string
	if err := db.QueryRow("select database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	config, err := mysqldriver.ParseDSN(m.DSN(name, ""))
	if err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &deaf{Conn: c, armed: &armed}, err
	}
	c, err := mysqldriver.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	lossy := sql.OpenDB(Watch(c))
	defer lossy.Close() //nolint:errcheck // of a test
	tx, err := lossy.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := fate(t, s, tx)
	armed.Store(true)
	if err := tx.Commit(); err == nil {
		t.Error("an answer came")
	}
	if !slices.Equal(*got, []driver.CommitState{driver.Doubtful}) {
		t.Errorf("the commit is %v, not doubtful", *got)
	}
	var id []byte
	if err := db.QueryRow("select id from pabal_pending").Scan(&id); err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(t.Context(), driver.Selection{IDs: []driver.Ref{{ID: uuid.UUID(id)}},
		Decide: func(_ time.Time, rows []driver.Pending) []driver.Decision {
			return []driver.Decision{{Pending: rows[0]}}
		}})
	if err != nil || len(claimed) != 1 {
		t.Errorf("a doubtful event that is there is not claimed by its id: %v, %v", claimed, err)
	}
}
