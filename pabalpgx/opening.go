package pabalpgx

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// opening is a transaction whose BEGIN travels with the first statement, or batch, in one round trip. Where a statement cannot have
// company, BEGIN goes before it by itself.
type opening struct {
	ctx     context.Context // for the methods that have none
	conn    *pgx.Conn
	options pgx.TxOptions
	began   func() // called when it has begun; nil: nobody asks
	tx      pgx.Tx // nil until it has begun
	err     error  // why it could not begin
}

// begun begins the transaction unless it has.
func (o *opening) begun(ctx context.Context) pgx.Tx {
	if o.tx != nil {
		return o.tx
	}
	tx, err := o.conn.BeginTx(ctx, o.options)
	if err != nil {
		tx, o.err = closedTx(), fmt.Errorf("begin: %w", err)
	}
	o.is(tx)
	return tx
}

func (o *opening) is(tx pgx.Tx) {
	if o.tx = tx; o.began != nil {
		o.began()
	}
}

// closedTx is a transaction that has ended.
func closedTx() pgx.Tx {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	return pgx.FailedBatchResults(b, pgx.ErrTxClosed).Tx()
}

// alone says that BEGIN cannot travel with a statement: it is several, which only the simple protocol takes; or its first
// argument is an option that a batch does not know.
func alone(query string, args []any) bool {
	if len(args) == 0 {
		return strings.Contains(query, ";")
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return true
	default:
		return false
	}
}

// with sends BEGIN and a statement, as withAll does a batch.
func (o *opening) with(ctx context.Context, query string, args []any) pgx.BatchResults {
	b := &pgx.Batch{}
	b.Queue(query, args...)
	return o.withAll(ctx, b)
}

// withAll sends BEGIN and a batch, and reads BEGIN's answer. Nil: nothing was executed, and the transaction has begun by
// itself, or never will; the statements are to be sent as any other. So an error found before anything was executed is within
// the transaction what it is in any, and a meeting finds it open.
func (o *opening) withAll(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	whole := &pgx.Batch{}
	whole.BeginTx(o.options)
	whole.QueuedQueries = append(whole.QueuedQueries, b.QueuedQueries...)
	results := o.conn.SendBatch(ctx, whole)
	_, err := results.Exec()
	if err == nil {
		o.is(results.Tx())
		return results
	}
	_ = results.Close()
	if o.conn.IsClosed() { // why, nobody would tell again
		o.err = fmt.Errorf("begin: %w", err)
		o.is(closedTx())
		return nil
	}
	o.begun(ctx)
	return nil
}

// last sends the statements that end the transaction, whose first is BEGIN where it has not begun.
func (o *opening) last(ctx context.Context, b *pgx.Batch) error {
	switch {
	case o.err != nil:
		return o.err
	case o.tx != nil:
		return o.tx.SendBatch(ctx, b).Close()
	}
	results := o.conn.SendBatch(ctx, b)
	o.tx = results.Tx()
	return results.Close()
}

// Exec implements pgx.Tx.
func (o *opening) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	if o.tx == nil && !alone(query, args) {
		if results := o.with(ctx, query, args); results != nil {
			tag, err := results.Exec()
			if closed := results.Close(); err == nil {
				err = closed
			}
			return tag, err
		}
	}
	tx := o.begun(ctx)
	if o.err != nil {
		return pgconn.CommandTag{}, o.err
	}
	return tx.Exec(ctx, query, args...)
}

// Query implements pgx.Tx.
func (o *opening) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	if o.tx == nil && !alone(query, args) {
		if results := o.with(ctx, query, args); results != nil {
			rows, err := results.Query()
			first := &firstRows{rows, results}
			if err != nil {
				first.Close()
			}
			return first, err
		}
	}
	tx := o.begun(ctx)
	if o.err != nil {
		return pgx.FailedBatchResults(&pgx.Batch{}, o.err).Query() // rows that tell, for whoever looks at their Err only
	}
	return tx.Query(ctx, query, args...)
}

// QueryRow implements pgx.Tx.
func (o *opening) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	if o.tx == nil && !alone(query, args) {
		if results := o.with(ctx, query, args); results != nil {
			return firstRow{results}
		}
	}
	tx := o.begun(ctx)
	if o.err != nil {
		return firstRow{pgx.FailedBatchResults(&pgx.Batch{}, o.err)}
	}
	return tx.QueryRow(ctx, query, args...)
}

// Rollback implements pgx.Tx.
func (o *opening) Rollback(ctx context.Context) error {
	if o.tx == nil {
		return nil
	}
	return o.tx.Rollback(ctx)
}

// Commit implements pgx.Tx.
func (o *opening) Commit(ctx context.Context) error { return o.begun(ctx).Commit(ctx) }

// Begin implements pgx.Tx.
func (o *opening) Begin(ctx context.Context) (pgx.Tx, error) { return o.begun(ctx).Begin(ctx) }

// CopyFrom implements pgx.Tx.
func (o *opening) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	return o.begun(ctx).CopyFrom(ctx, table, columns, rows)
}

// SendBatch implements pgx.Tx.
func (o *opening) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if o.tx == nil && b.Len() > 0 {
		if results := o.withAll(ctx, b); results != nil {
			return results
		}
	}
	tx := o.begun(ctx)
	if o.err != nil {
		return pgx.FailedBatchResults(b, o.err)
	}
	return tx.SendBatch(ctx, b)
}

// Prepare implements pgx.Tx.
func (o *opening) Prepare(ctx context.Context, name, query string) (*pgconn.StatementDescription, error) {
	return o.begun(ctx).Prepare(ctx, name, query)
}

// LargeObjects implements pgx.Tx.
func (o *opening) LargeObjects() pgx.LargeObjects { return o.begun(o.ctx).LargeObjects() }

// Conn implements pgx.Tx: whoever asks for the connection finds the transaction open.
func (o *opening) Conn() *pgx.Conn { return o.begun(o.ctx).Conn() }

// firstRows are what the first statement answers; the connection is free for the next when they are closed.
type firstRows struct {
	pgx.Rows
	results pgx.BatchResults
}

// Next implements pgx.Rows: at the end they are closed.
func (r *firstRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close implements pgx.Rows.
func (r *firstRows) Close() {
	r.Rows.Close()
	_ = r.results.Close() // the statement is the last: what it may tell, Err does
}

// firstRow is the row that the first statement answers.
type firstRow struct{ results pgx.BatchResults }

// Scan implements pgx.Row.
func (r firstRow) Scan(dest ...any) error {
	err := r.results.QueryRow().Scan(dest...)
	if closed := r.results.Close(); err == nil {
		err = closed
	}
	return err
}
