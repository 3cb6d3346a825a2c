package pabalpgx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// Tx is a transaction of [Store.InTx]: a pgx.Tx that also collects what goes to the database together with its COMMIT. It
// is not safe for concurrent use. InTx commits it or rolls it back: its function does neither.
type Tx struct {
	pgx.Tx
	events []pabal.Event
	riders pgx.Batch
}

// Record collects events, which are recorded with COMMIT. What is wrong with one is InTx's error. In order to know an
// event recorded before the function ends, use Client.Record with this transaction instead.
func (t *Tx) Record(events ...pabal.Event) { t.events = append(t.events, events...) }

// Queue collects a statement that runs right before the events are recorded and COMMIT, in the same round trip: the last
// write of the transaction, say. Its error rolls everything back. What it answers is known too late to roll back for:
// the functions that the returned query can be given are called after COMMIT.
func (t *Tx) Queue(query string, args ...any) *pgx.QueuedQuery { return t.riders.Queue(query, args...) }

// Recorder is what InTx records with: a *pabal.Client[pgx.Tx] of this store.
type Recorder interface {
	Record(ctx context.Context, tx pgx.Tx, events ...pabal.Event) error
}

// InTx runs f in a transaction of the pool, at its default isolation. BEGIN travels with the first statement, and the events
// that f collected with COMMIT: a transaction of one statement and any number of events takes two round trips, one whose only
// statement is queued takes one. The events are published as those of Client.Record.
//
// An error of f rolls back and is returned as it is, as is a panic. An error of COMMIT names the first event. Whatever
// error is returned, the transaction did not commit, unless the connection was lost while COMMIT was on its way: then
// nobody knows, and Pabal publishes the events if they are there.
func (s *Store) InTx(ctx context.Context, client Recorder, f func(tx *Tx) error) error {
	return s.InTxWith(ctx, client, pgx.TxOptions{}, f)
}

// InTxWith is InTx at another isolation level than the pool's default, say. BeginQuery and CommitQuery are to be left empty: InTx
// makes both itself. The error of a transaction that cannot be serialized has SQLSTATE 40001 (PostgreSQL manual, "Transaction
// Isolation") and may come from any statement and from COMMIT; the transaction is then for the caller to run again, whole.
func (s *Store) InTxWith(ctx context.Context, client Recorder, options pgx.TxOptions, f func(tx *Tx) error) (err error) {
	if options.BeginQuery != "" || options.CommitQuery != "" {
		return errors.New("begin: options.BeginQuery and options.CommitQuery: leave them empty, InTxWith begins and commits itself")
	}
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer c.Release()
	inner := &opening{ctx: ctx, conn: c.Conn(), options: options}
	tx := &Tx{Tx: inner}
	committed := false
	defer func() {
		tx.Tx = closedTx() // the connection is somebody else's from now on
		if !committed {
			_ = inner.Rollback(context.WithoutCancel(ctx)) // what fails here costs the connection, and the transaction with it
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if len(tx.events) == 0 {
		err = s.commit(ctx, inner, &tx.riders, nil, nil, "")
	} else {
		last := &lastWords{opening: inner, riders: &tx.riders}
		err = client.Record(ctx, last, tx.events...)
		last.outcome.tell() // only now does the client know what was recorded
	}
	committed = err == nil
	return err
}

// lastWords is a transaction that ends with what is recorded in it: Record sends COMMIT along.
type lastWords struct {
	*opening
	riders  *pgx.Batch
	outcome later
}

// later keeps the outcome of a transaction until its client may be told.
type later struct {
	mu      sync.Mutex
	outcome func(driver.CommitState) // nil: nothing was recorded
	state   driver.CommitState
	seen    bool
	due     bool
}

// see is called when the transaction's end is seen.
func (l *later) see(state driver.CommitState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state, l.seen = state, true; l.due {
		l.outcome(state)
	}
}

// tell passes on what has been seen, or will be.
func (l *later) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.due = true; l.seen {
		l.outcome(l.state)
	}
}

// recordAndCommit records and commits in one round trip. The transaction's end is seen in the midst of it, and told to
// the client when it has what was recorded.
func (s *Store) recordAndCommit(ctx context.Context, last *lastWords, r driver.Recording) error {
	last.outcome.outcome = r.Outcome
	m := &meeting{then: func(w *watch) error { return w.recordAhead(last.outcome.see) }}
	defer func() {
		if m.w != nil {
			m.w.neverBegan()
		}
	}()
	query, args := recording(r, m)
	e := &r.Events[0]
	record := &statement{query: query, args: args, scan: newAnswers(r.Events).scan}
	return s.commit(ctx, last.opening, last.riders, record, m, e.Type+"/"+e.ID.String())
}

// commit sends BEGIN if nothing has been sent before, what rides along, the statement that records, and COMMIT.
func (s *Store) commit(ctx context.Context, tx *opening, riders *pgx.Batch, record *statement, m *meeting, event string) error {
	batch := &pgx.Batch{}
	if tx.tx == nil {
		batch.BeginTx(tx.options)
	}
	batch.QueuedQueries = append(batch.QueuedQueries, riders.QueuedQueries...)
	if record != nil {
		batch.Queue(s.text(record.query), record.args...).Query(func(rows pgx.Rows) error { return readAll(rows, record.scan) })
	}
	committed := false
	batch.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
		committed = tag.String() == "COMMIT"
		return nil
	})
	err := tx.last(ctx, batch)
	switch {
	case err == nil && committed:
		return nil
	case err == nil:
		err = errNotCommitted
	case m != nil:
		err = m.refused(ctx, s.explain(err))
	}
	what := "commit"
	if n := riders.Len(); n > 0 {
		what = fmt.Sprintf("%d statements and commit", n)
	}
	if event != "" {
		what += " with event " + event
	}
	return fmt.Errorf("%s: %w", what, err)
}
