package pabalpgx

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pabal-go/pabal/driver"
)

// session is where statements run: in the pool, in a pgx.Tx, or in a *sql.Tx. Arguments are of types that every
// pgx.QueryExecMode knows by themselves: text, bytea, numbers, times and arrays of them; ids are arrays of text that the
// statement casts.
type session struct {
	b   *base
	pgx pgxRunner // nil where sql is not
	sql *sql.Tx
}

// pgxRunner is what a pool and a transaction have in common.
type pgxRunner interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// scanner is what scans a row.
type scanner interface{ Scan(dest ...any) error }

// exec runs a statement and says how many rows it changed.
func (s session) exec(ctx context.Context, query string, args ...any) (int, error) {
	if s.sql != nil {
		result, err := s.sql.ExecContext(ctx, s.b.text(query), args...)
		if err != nil {
			return 0, s.b.explain(err)
		}
		n, err := result.RowsAffected()
		return int(n), err
	}
	tag, err := s.pgx.Exec(ctx, s.b.text(query), args...)
	return int(tag.RowsAffected()), s.b.explain(err)
}

// query runs a statement and has scan read each row.
func (s session) query(ctx context.Context, scan func(scanner) error, query string, args ...any) error {
	if s.sql != nil {
		rows, err := s.sql.QueryContext(ctx, s.b.text(query), args...)
		if err != nil {
			return s.b.explain(err)
		}
		defer rows.Close() //nolint:errcheck // rows.Err tells
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return s.b.explain(rows.Err())
	}
	rows, err := s.pgx.Query(ctx, s.b.text(query), args...)
	if err != nil {
		return s.b.explain(err)
	}
	return s.b.explain(readAll(rows, scan))
}

func readAll(rows pgx.Rows, scan func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// statement is one of several that go to the database together.
type statement struct {
	name  string // for the error
	query string
	args  []any
	scan  func(scanner) error // nil: it answers no rows
}

// all runs statements in their order; over pgx, in one round trip.
func (s session) all(ctx context.Context, list []statement) error {
	if s.sql != nil {
		for _, st := range list {
			var err error
			if st.scan == nil {
				_, err = s.exec(ctx, st.query, st.args...)
			} else {
				err = s.query(ctx, st.scan, st.query, st.args...)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", st.name, err)
			}
		}
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, st := range list {
		batch.Queue(s.b.text(st.query), st.args...)
	}
	results := s.pgx.SendBatch(ctx, batch)
	for _, st := range list {
		var err error
		if st.scan == nil {
			_, err = results.Exec()
		} else {
			var rows pgx.Rows
			if rows, err = results.Query(); err == nil {
				err = readAll(rows, st.scan)
			}
		}
		if err != nil {
			_ = results.Close() // it is this error that counts
			return fmt.Errorf("%s: %w", st.name, s.b.explain(err))
		}
	}
	return s.b.explain(results.Close())
}

// errMet ends a statement before it is sent: all that was wanted is its connection.
var errMet = errors.New("pabalpgx: met the connection")

// meeting is the first argument of a statement that runs in a transaction of the caller. pgx hands it the connection
// before anything is sent (pgx.QueryRewriter), through pgx.Tx as through database/sql. Another driver refuses an argument
// of this type, and sends nothing either.
type meeting struct {
	w    *watch
	then func(w *watch) error // nil: errMet
}

// RewriteQuery implements pgx.QueryRewriter.
func (m *meeting) RewriteQuery(_ context.Context, c *pgx.Conn, query string, args []any) (string, []any, error) {
	if m.w = watchOf(c); m.w == nil {
		return "", nil, driver.ErrUnwatched
	}
	if m.then == nil {
		return "", nil, errMet
	}
	return query, args, m.then(m.w)
}

// meet finds the watch of a *sql.Tx. Nothing is sent.
func meet(ctx context.Context, tx *sql.Tx) (*watch, error) {
	if tx == nil {
		return nil, driver.ErrNoTransaction
	}
	m := &meeting{}
	_, err := tx.ExecContext(ctx, "select 1", m)
	if errors.Is(err, errMet) {
		return m.w, nil
	}
	return nil, m.refused(ctx, err)
}

// refused says why a statement with a meeting failed: one of the contract's errors if it was never sent.
func (m *meeting) refused(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, driver.ErrUnwatched), errors.Is(err, driver.ErrNoTransaction):
		return err
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, pgx.ErrTxClosed), errors.Is(err, sqldriver.ErrBadConn):
		return driver.ErrNoTransaction
	case m.w != nil || ctx.Err() != nil:
		return err
	default:
		return fmt.Errorf("%w (%w)", driver.ErrUnwatched, err)
	}
}

// Columns that may be null, over pgx and over database/sql.

type nullTime struct{ t *time.Time }

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (n nullTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	*n.t = time.Time{}
	if v.Valid {
		*n.t = v.Time.UTC()
	}
	return nil
}

// Scan implements sql.Scanner.
func (n nullTime) Scan(v any) error {
	t, ok := v.(time.Time)
	if !ok && v != nil {
		return fmt.Errorf("a time is a %T", v)
	}
	return n.ScanTimestamptz(pgtype.Timestamptz{Time: t, Valid: ok})
}

type nullID struct{ id *uuid.UUID }

// ScanUUID implements pgtype.UUIDScanner.
func (n nullID) ScanUUID(v pgtype.UUID) error {
	*n.id = v.Bytes // zero where it is null
	return nil
}

// Scan implements sql.Scanner.
func (n nullID) Scan(v any) (err error) {
	*n.id = uuid.Nil
	switch v := v.(type) {
	case nil:
	case string:
		*n.id, err = uuid.Parse(v)
	case []byte:
		*n.id, err = uuid.ParseBytes(v)
	default:
		err = fmt.Errorf("an id is a %T", v)
	}
	return err
}

type nullInt struct{ n *int64 }

// ScanInt64 implements pgtype.Int64Scanner.
func (n nullInt) ScanInt64(v pgtype.Int8) error {
	*n.n = v.Int64 // zero where it is null
	return nil
}

// Scan implements sql.Scanner.
func (n nullInt) Scan(v any) error {
	i, ok := v.(int64)
	if !ok && v != nil {
		return fmt.Errorf("a number is a %T", v)
	}
	*n.n = i
	return nil
}

// Arguments. A nil pointer in an array is a null.

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func idOrNull(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	s := id.String()
	return &s
}

func positionOrNull(p int64) *int64 {
	if p == 0 {
		return nil
	}
	return &p
}

// ids lists ids as text.
func ids[R any](list []R, id func(*R) uuid.UUID) []string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = id(&list[i]).String()
	}
	return texts
}

func refIDs(refs []driver.Ref) []string {
	return ids(refs, func(r *driver.Ref) uuid.UUID { return r.ID })
}

func refTimes(refs []driver.Ref) []time.Time {
	times := make([]time.Time, len(refs))
	for i := range refs {
		times[i] = refs[i].RecordedAt
	}
	return times
}
