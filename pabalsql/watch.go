package pabalsql

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/pabal-go/pabal/driver"
)

// Watch wraps a connector so that Pabal sees what becomes of every transaction on its connections, whatever opened it and
// however it ends. Every optional interface of database/sql/driver is kept: where the wrapped connection lacks one, the
// wrapper does what database/sql does without it.
func Watch(c sqldriver.Connector) sqldriver.Connector { return &connector{c} }

type connector struct{ sqldriver.Connector }

func (c *connector) Connect(ctx context.Context) (sqldriver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	w := &conn{Conn: inner, base: inner}
	if u, ok := inner.(interface{ Unwrap() sqldriver.Conn }); ok {
		w.base = u.Unwrap()
	}
	return w, nil
}

func (c *connector) Close() error {
	if closer, ok := c.Connector.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// conn is a watched connection. database/sql uses it from one goroutine at a time, but may close it from another.
type conn struct {
	sqldriver.Conn                // for transactions
	base           sqldriver.Conn // for statements

	mu    sync.Mutex
	watch driver.CommitWatch
	tx    *transaction // the open one, or the last

	prepared prepared // statements of Pabal's own
}

// transaction remembers how it ended.
type transaction struct {
	c     *conn
	ended bool
	how   driver.CommitSignal
}

func (c *conn) see(s driver.CommitSignal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s == driver.SawBegin:
		c.tx = &transaction{c: c}
	case s != driver.SawDoubt && c.tx != nil && !c.tx.ended:
		c.tx.ended, c.tx.how = true, s
	}
	c.watch.See(s)
}

// record notes a Recording; false without an open transaction.
func (c *conn) record(outcome func(driver.CommitState)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watch.Recording(outcome)
}

// meeting is how Record meets the connection of a *sql.Tx: as an argument of a statement that is never sent, for the
// wrapper takes it where arguments are checked. Another connection refuses an argument of this type, and sends nothing
// either.
type meeting struct{ c *conn }

var errMet = errors.New("pabalsql: met the connection")

// meet finds the watched connection of a transaction. Nothing is sent.
func meet(ctx context.Context, tx *sql.Tx) (*conn, error) {
	if tx == nil {
		return nil, driver.ErrNoTransaction
	}
	m := &meeting{}
	_, err := tx.ExecContext(ctx, "select 1", m)
	switch {
	case errors.Is(err, errMet):
		return m.c, nil
	case errors.Is(err, sql.ErrTxDone):
		return nil, driver.ErrNoTransaction
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, sqldriver.ErrBadConn):
		return nil, driver.ErrNoTransaction
	default:
		return nil, driver.ErrUnwatched
	}
}

func (c *conn) CheckNamedValue(v *sqldriver.NamedValue) error {
	if m, ok := v.Value.(*meeting); ok {
		m.c = c
		return errMet
	}
	if checker, ok := c.base.(sqldriver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return sqldriver.ErrSkip
}

// saw tells the watch what a statement was that succeeded or failed.
func (c *conn) saw(query string, err error) {
	if errors.Is(err, sqldriver.ErrSkip) {
		return // not sent: database/sql goes another way
	}
	switch kind := classify(query); {
	case kind == isCommit && err == nil:
		c.see(driver.SawCommit)
	case kind == isCommit:
		c.see(driver.SawCommitLost)
	case kind == isRollback:
		c.see(driver.SawEnd)
	case kind == isBegin && err == nil:
		c.see(driver.SawBegin)
	case kind == isPlain && err == nil:
	default:
		c.see(driver.SawDoubt)
	}
}

type statementKind int

const (
	isOther statementKind = iota // anything may happen in it
	isPlain                      // changes rows, or sets and releases savepoints
	isBegin
	isCommit
	isRollback // of the whole transaction
)

// classify looks at the first word of a statement, and whether others follow it.
func classify(query string) statementKind {
	text := strings.TrimSpace(query)
	text = strings.TrimSpace(strings.TrimSuffix(text, ";"))
	if strings.Contains(text, ";") {
		return isOther // perhaps several statements
	}
	word, rest := text, ""
	if i := strings.IndexAny(text, " \t\r\n("); i > 0 {
		word, rest = text[:i], text[i:]
	}
	switch strings.ToLower(word) {
	case "select", "insert", "update", "delete", "replace", "with", "values", "savepoint", "release":
		return isPlain
	case "begin", "start":
		return isBegin
	case "commit", "end":
		return isCommit
	case "rollback":
		for _, w := range strings.Fields(rest) {
			if strings.EqualFold(w, "to") {
				return isOther
			}
		}
		return isRollback
	default:
		return isOther
	}
}

func (c *conn) BeginTx(ctx context.Context, o sqldriver.TxOptions) (sqldriver.Tx, error) {
	var tx sqldriver.Tx
	var err error
	if b, ok := c.Conn.(sqldriver.ConnBeginTx); ok {
		tx, err = b.BeginTx(ctx, o)
	} else if o.ReadOnly || o.Isolation != 0 {
		return nil, errors.New("sql: driver does not support non-default isolation level or read-only transactions")
	} else {
		tx, err = c.Conn.Begin() //nolint:staticcheck // what database/sql does for such a driver
	}
	if err != nil {
		return nil, err
	}
	c.see(driver.SawBegin)
	return &watchedTx{tx, c}, nil
}

type watchedTx struct {
	sqldriver.Tx
	c *conn
}

func (t *watchedTx) Commit() error {
	err := t.Tx.Commit()
	if err != nil {
		t.c.see(driver.SawCommitLost)
		return err
	}
	t.c.see(driver.SawCommit)
	return nil
}

func (t *watchedTx) Rollback() error {
	err := t.Tx.Rollback()
	t.c.see(driver.SawEnd)
	return err
}

func (c *conn) Close() error {
	c.prepared.close()
	err := c.Conn.Close()
	c.see(driver.SawEnd)
	return err
}

func (c *conn) Ping(ctx context.Context) error {
	if p, ok := c.base.(sqldriver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

func (c *conn) ResetSession(ctx context.Context) error {
	if r, ok := c.base.(sqldriver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *conn) IsValid() bool {
	if v, ok := c.base.(sqldriver.Validator); ok {
		return v.IsValid()
	}
	return true
}

func (c *conn) ExecContext(ctx context.Context, query string, args []sqldriver.NamedValue) (sqldriver.Result, error) {
	if r, err := c.execOwn(ctx, query, args); !errors.Is(err, sqldriver.ErrSkip) {
		return r, err
	}
	e, ok := c.base.(sqldriver.ExecerContext)
	if !ok {
		return nil, sqldriver.ErrSkip
	}
	r, err := e.ExecContext(ctx, query, args)
	c.saw(query, err)
	return r, err
}

func (c *conn) QueryContext(ctx context.Context, query string, args []sqldriver.NamedValue) (sqldriver.Rows, error) {
	if r, err := c.queryOwn(ctx, query, args); !errors.Is(err, sqldriver.ErrSkip) {
		return r, err
	}
	q, ok := c.base.(sqldriver.QueryerContext)
	if !ok {
		return nil, sqldriver.ErrSkip
	}
	r, err := q.QueryContext(ctx, query, args)
	c.saw(query, err)
	if err != nil {
		return nil, err
	}
	return &rows{r, c}, nil
}

func (c *conn) Prepare(query string) (sqldriver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (sqldriver.Stmt, error) {
	var s sqldriver.Stmt
	var err error
	if p, ok := c.base.(sqldriver.ConnPrepareContext); ok {
		s, err = p.PrepareContext(ctx, query)
	} else {
		s, err = c.base.Prepare(query)
	}
	if err != nil {
		c.see(driver.SawDoubt)
		return nil, err
	}
	return &stmt{s, c, query}, nil
}

// stmt is a prepared statement of a watched connection.
type stmt struct {
	sqldriver.Stmt
	c     *conn
	query string
}

func (s *stmt) CheckNamedValue(v *sqldriver.NamedValue) error {
	if checker, ok := s.Stmt.(sqldriver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return s.c.CheckNamedValue(v)
}

func (s *stmt) ColumnConverter(i int) sqldriver.ValueConverter {
	if c, ok := s.Stmt.(sqldriver.ColumnConverter); ok { //nolint:staticcheck // kept for drivers that have it
		return c.ColumnConverter(i)
	}
	return sqldriver.DefaultParameterConverter
}

func (s *stmt) ExecContext(ctx context.Context, args []sqldriver.NamedValue) (r sqldriver.Result, err error) {
	if e, ok := s.Stmt.(sqldriver.StmtExecContext); ok {
		r, err = e.ExecContext(ctx, args)
	} else {
		r, err = s.Exec(values(args)) //nolint:staticcheck // what database/sql does for such a driver
	}
	s.c.saw(s.query, err)
	return r, err
}

func (s *stmt) QueryContext(ctx context.Context, args []sqldriver.NamedValue) (r sqldriver.Rows, err error) {
	if q, ok := s.Stmt.(sqldriver.StmtQueryContext); ok {
		r, err = q.QueryContext(ctx, args)
	} else {
		r, err = s.Query(values(args)) //nolint:staticcheck // what database/sql does for such a driver
	}
	s.c.saw(s.query, err)
	if err != nil {
		return nil, err
	}
	return &rows{r, s.c}, nil
}

func values(args []sqldriver.NamedValue) []sqldriver.Value {
	values := make([]sqldriver.Value, len(args))
	for i, a := range args {
		values[i] = a.Value
	}
	return values
}
