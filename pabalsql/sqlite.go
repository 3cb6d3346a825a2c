package pabalsql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite runs in this process: its clock is the machine's, and finer asked directly than through SQL.
var sqlite = dialect{
	name:       "sqlite",
	statements: readStatements("sqlite"),
	audit:      auditSQLite,
	noTable: func(err error) bool {
		var e *sqlitedriver.Error
		return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_ERROR && missingTable.MatchString(e.Error())
	},
	conflict: func(err error) bool {
		var e *sqlitedriver.Error
		if !errors.As(err, &e) {
			return false
		}
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
	},
}

var missingTable = regexp.MustCompile(`no such (table|view|column)`)

// SQLiteOptions of [OpenSQLite]. Nil and zero values are the good defaults.
type SQLiteOptions struct {
	// BusyTimeout is how long a statement waits for another process to end its transaction. Default 10 s.
	BusyTimeout time.Duration
	// Relaxed gives up the newest commits when the machine (not the process) dies, for speed: synchronous=NORMAL.
	Relaxed bool
	// ReadOnly opens a file that is there, for looking at it: no setting of the file is changed, and every write fails. Beside a
	// write-ahead log the files of the log may be created, empty.
	ReadOnly bool
}

// OpenSQLite opens, or creates, a database file for an application and for Pabal: write-ahead log, synchronous=FULL (a
// commit that was answered survives a power cut), transactions that take the write lock when they begin (BEGIN
// IMMEDIATE), a busy timeout, foreign keys. The pool is watched. Transactions of this process wait for each other in
// the order in which they came, not by polling as SQLite does between processes.
func OpenSQLite(path string, o *SQLiteOptions) (*sql.DB, error) {
	options := SQLiteOptions{}
	if o != nil {
		options = *o
	}
	if options.BusyTimeout == 0 {
		options.BusyTimeout = 10 * time.Second
	}
	synchronous := "FULL"
	if options.Relaxed {
		synchronous = "NORMAL"
	}
	busy := fmt.Sprintf("busy_timeout(%d)", options.BusyTimeout.Milliseconds())
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		busy, "journal_mode(WAL)", "synchronous(" + synchronous + ")", "foreign_keys(1)", "journal_size_limit(67108864)",
	}}
	if options.ReadOnly {
		query = url.Values{"mode": {"ro"}, "_pragma": {busy}}
	}
	connector, err := sqlitedriver.NewConnector((&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open SQLite database %s: %w", path, err)
	}
	db := sql.OpenDB(Watch(&oneWriter{Connector: connector, turn: make(chan struct{}, 1)}))
	db.SetMaxIdleConns(16)
	if err := db.Ping(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open SQLite database %s: %w", path, err)
	}
	return db, nil
}

// oneWriter lets the writing transactions of this process take turns.
type oneWriter struct {
	sqldriver.Connector
	turn chan struct{}
}

func (w *oneWriter) Connect(ctx context.Context) (sqldriver.Conn, error) {
	c, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &turnConn{Conn: c, w: w}, nil
}

// turnConn hides the methods of the connection that it does not know; conn, around it, asks for them by Unwrap.
type turnConn struct {
	sqldriver.Conn
	w *oneWriter
}

func (c *turnConn) Unwrap() sqldriver.Conn { return c.Conn }

func (c *turnConn) BeginTx(ctx context.Context, o sqldriver.TxOptions) (sqldriver.Tx, error) {
	inner := c.Conn.(sqldriver.ConnBeginTx)
	if o.ReadOnly {
		return inner.BeginTx(ctx, o)
	}
	waiting := ctx
	if w, ok := ctx.Value(waitKey{}).(context.Context); ok {
		waiting = w
	}
	select {
	case c.w.turn <- struct{}{}:
	case <-waiting.Done():
		return nil, waiting.Err()
	}
	tx, err := inner.BeginTx(ctx, o)
	if err != nil {
		<-c.w.turn
		return nil, err
	}
	return &turnTx{Tx: tx, w: c.w}, nil
}

// waitKey is for transactions that outlive the context of their BEGIN: its value is the context in which to wait.
type waitKey struct{}

type turnTx struct {
	sqldriver.Tx
	w *oneWriter
}

func (t *turnTx) Commit() error {
	defer t.end()
	err := t.Tx.Commit()
	if err != nil {
		_ = t.Tx.Rollback() // SQLite keeps a transaction open whose COMMIT failed; the pool thinks that it is over
	}
	return err
}

func (t *turnTx) Rollback() error {
	defer t.end()
	return t.Tx.Rollback()
}

func (t *turnTx) end() { <-t.w.turn }
