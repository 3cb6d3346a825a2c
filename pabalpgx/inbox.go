package pabalpgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
)

const (
	rowColumns = `i.id, i.source, i.topic, i.key, i.job, i.type, i.position, i.prev_id, i.prev_position, i.prev_at, i.recorded_at, i.sent_at,
		i.state, i.reason, i.next_at, i.failures, i.started, i.last_error, i.body, i.received_at`
	cursorColumns = `c.begun, c.began, c.last_id, c.last_position, c.last_at, c.over_id, c.over_position, c.over_at, c.moved_at`
)

// begun remembers the transactions of Inbox.Begin, by their handle.
type begun struct {
	mu   sync.Mutex
	open map[any]*opened
}

// opened is a transaction of Inbox.Begin.
type opened struct {
	watch *watch
	state *transaction // nil: it has not begun
	conn  pooled
}

// pooled is a connection that is out of its pool.
type pooled interface {
	Release()
	Hijack() *pgx.Conn
}

func newBegun() *begun { return &begun{open: map[any]*opened{}} }

func (g *begun) put(tx any, o *opened) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[tx] = o
}

func (g *begun) take(tx any) *opened {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.open[tx]
	delete(g.open, tx)
	return o
}

// over says how the transaction ended that its handler ended by itself; false while it is open.
func (o *opened) over() (error, bool) {
	if o.state == nil {
		return nil, false
	}
	how, ended := o.watch.ending(o.state)
	switch {
	case !ended:
		return nil, false
	case how == driver.SawCommit:
		return nil, true
	case how == driver.SawCommitLost:
		return errors.New("the handler's COMMIT failed or was not answered"), true
	default:
		return driver.ErrNoTransaction, true
	}
}

// ledger is the half of an inbox that does not touch the handler's transactions.
type ledger struct{ b base }

// inbox implements driver.Inbox for pgx.Tx.
type inbox struct{ ledger }

// Begin implements driver.Inbox. The database begins with the first statement.
func (i inbox) Begin(ctx context.Context) (pgx.Tx, error) {
	c, err := i.b.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	o := &opened{watch: watchOf(c.Conn()), conn: c}
	if o.watch == nil {
		c.Release()
		return nil, driver.ErrUnwatched
	}
	tx := &opening{ctx: context.WithoutCancel(ctx), conn: c.Conn(), began: func() { o.state = o.watch.current() }}
	i.b.begun.put(tx, o)
	return tx, nil
}

// End implements driver.Inbox.
func (i inbox) End(ctx context.Context, tx pgx.Tx, how driver.Ending) error {
	if tx == nil {
		return driver.ErrNoTransaction
	}
	o := i.b.begun.take(tx)
	if o == nil {
		return driver.ErrNoTransaction
	}
	if how == driver.Abandon {
		// The handler may be using the connection at this moment: it is taken from the pool without a look at it, and cut.
		o.conn.Hijack()
		_ = o.watch.close()
		return nil
	}
	defer o.conn.Release()
	if how == driver.Rollback {
		_ = tx.Rollback(ctx) // what fails here costs the connection, and the transaction with it
		return nil
	}
	if err, over := o.over(); over {
		return err
	}
	return committed(tx.Commit(ctx))
}

func committed(err error) error {
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Load implements driver.Inbox.
func (i inbox) Load(ctx context.Context, tx pgx.Tx, l driver.Load) (driver.Loaded, error) {
	return load(ctx, session{b: &i.b, pgx: tx}, l)
}

// Save implements driver.Inbox.
func (i inbox) Save(ctx context.Context, tx pgx.Tx, s driver.Save) error {
	return save(ctx, session{b: &i.b, pgx: tx}, s)
}

// sqlInbox implements driver.Inbox for *sql.Tx.
type sqlInbox struct {
	ledger
	db *sql.DB
}

// Begin implements driver.Inbox. The transaction does not end with ctx, as those of database/sql do otherwise.
func (i sqlInbox) Begin(ctx context.Context) (*sql.Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := i.db.Conn(ctx) // the wait for a connection ends with ctx
	if err != nil {
		return nil, err
	}
	whole := context.WithoutCancel(ctx)
	tx, err := c.BeginTx(whole, nil)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	o := &opened{conn: sqlPooled{c}}
	if o.watch, err = meet(whole, tx); err != nil {
		_ = tx.Rollback()
		_ = c.Close()
		return nil, err
	}
	o.state = o.watch.current()
	i.b.begun.put(tx, o)
	return tx, nil
}

// sqlPooled gives a connection back to its *sql.DB, which notices when it is cut.
type sqlPooled struct{ c *sql.Conn }

func (p sqlPooled) Release() { _ = p.c.Close() }

func (p sqlPooled) Hijack() *pgx.Conn { return nil }

// End implements driver.Inbox.
func (i sqlInbox) End(ctx context.Context, tx *sql.Tx, how driver.Ending) error {
	if tx == nil {
		return driver.ErrNoTransaction
	}
	o := i.b.begun.take(tx)
	if o == nil {
		return driver.ErrNoTransaction
	}
	if how == driver.Commit {
		defer o.conn.Release()
		if err, over := o.over(); over {
			_ = tx.Rollback() // gives the connection back when the handler committed by text
			return err
		}
		return committed(tx.Commit())
	}
	if how == driver.Abandon {
		_ = o.watch.close()
	}
	// Rollback waits for a statement of the handler's that is still running; nobody can commit any more, for database/sql
	// refuses a Commit behind a Rollback.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tx.Rollback()
		o.conn.Release()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Load implements driver.Inbox.
func (i sqlInbox) Load(ctx context.Context, tx *sql.Tx, l driver.Load) (driver.Loaded, error) {
	return load(ctx, session{b: &i.b, sql: tx}, l)
}

// Save implements driver.Inbox.
func (i sqlInbox) Save(ctx context.Context, tx *sql.Tx, s driver.Save) error {
	return save(ctx, session{b: &i.b, sql: tx}, s)
}

// Conflict implements driver.Inbox.
func (ledger) Conflict(err error) bool { return isState(err, serializationFailure, deadlockDetected) }
