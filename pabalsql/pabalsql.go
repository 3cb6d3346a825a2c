// Package pabalsql keeps Pabal's events and inboxes in a database behind database/sql. It speaks SQLite; a further
// database is a folder of schema files and a dialect, which is SQL and little else.
//
// The pool has to be watched, so that Pabal sees every COMMIT and ROLLBACK on its connections:
//
//	db, err := pabalsql.OpenSQLite("order.db", nil)      // watched already
//	err = pabalsql.Migrate(ctx, db, nil)                 // creates the tables, once
//	store, err := pabalsql.New(db, nil)
//	client, err := pabal.New(ctx, store, broker, "order", nil)
//
// A store takes at most two connections of the pool at a time for itself, and one per consumer lane.
package pabalsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Options of [New] and [Migrate]. Nil and zero values are the good defaults.
type Options struct {
	// TablePrefix goes before the name of every table: a lower-case letter, then up to 30 lower-case letters, digits and
	// '_'. Default "pabal_".
	TablePrefix string
}

var prefixForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

func (o *Options) prefix() (string, error) {
	if o == nil || o.TablePrefix == "" {
		return "pabal_", nil
	}
	if !prefixForm.MatchString(o.TablePrefix) {
		return "", fmt.Errorf("TablePrefix %q: a lower-case letter, then up to 30 lower-case letters, digits and '_'", o.TablePrefix)
	}
	return o.TablePrefix, nil
}

// Store is a database. It implements driver.Store and, by Inbox, driver.Inbox.
type Store struct {
	db      *sql.DB
	dialect *dialect
	prefix  string

	mu         sync.Mutex
	statements map[string]*sql.Stmt
	open       map[*sql.Tx]*transaction // of Inbox.Begin
}

var _ driver.Store[*sql.Tx] = (*Store)(nil)

// New makes a store of a watched pool. It sends nothing; pabal.New checks the tables.
func New(db *sql.DB, o *Options) (*Store, error) {
	prefix, err := o.prefix()
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("pabalsql: no database")
	}
	return &Store{
		db: db, dialect: &sqlite, prefix: prefix, statements: map[string]*sql.Stmt{}, open: map[*sql.Tx]*transaction{},
	}, nil
}

// text puts the table prefix into a statement.
func (s *Store) text(query string) string { return strings.ReplaceAll(query, "{p}", s.prefix) }

// prepared returns a statement that is kept prepared.
func (s *Store) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.Lock()
	stmt := s.statements[query]
	s.mu.Unlock()
	if stmt != nil {
		return stmt, nil
	}
	stmt, err := s.db.PrepareContext(ctx, s.text(query))
	if err != nil {
		return nil, s.explain(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.statements[query]; other != nil {
		_ = stmt.Close()
		return other, nil
	}
	s.statements[query] = stmt
	return stmt, nil
}

// exec runs a prepared statement in a transaction.
func (s *Store) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (int, error) {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
	if err != nil {
		return 0, s.explain(err)
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// query runs a prepared statement, in a transaction unless that is nil, and has scan read each row.
func (s *Store) query(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, query string, args ...any) error {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return err
	}
	if tx != nil {
		stmt = tx.StmtContext(ctx, stmt)
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return s.explain(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return s.explain(rows.Err())
}

// explain makes a missing table an ErrSchema, which names the way out.
func (s *Store) explain(err error) error {
	if err != nil && s.dialect.noTable(err) {
		return fmt.Errorf("%w: tables %s* are missing: run `pabal migrate` (%w)", driver.ErrSchema, s.prefix, err)
	}
	return err
}

// write runs a transaction of the store's own.
func (s *Store) write(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Times are integers: microseconds since 1970, null for the zero time.

func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

func idOf(b []byte) (id uuid.UUID) {
	copy(id[:], b)
	return id
}

func idOrNull(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id[:]
}
