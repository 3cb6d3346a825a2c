// Package pabalsql keeps Pabal's events and inboxes in a database behind database/sql: SQLite, MySQL 8 or MariaDB 10.11 and
// newer. A database is a folder of schema files, a folder of statements, and little else.
//
// The pool has to be watched, so that Pabal sees every COMMIT and ROLLBACK on its connections:
//
//	db, err := pabalsql.OpenSQLite("order.db", nil)      // watched already; or OpenMySQL
//	db := sql.OpenDB(pabalsql.Watch(connector))          // or with a connector of your own
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
	"slices"
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

	mu   sync.Mutex
	open map[*sql.Tx]*transaction // of Inbox.Begin
}

var _ driver.Store[*sql.Tx] = (*Store)(nil)

// New makes a store of a watched pool. It finds out what database it is by the pool's driver and sends nothing, unless that
// is another library's wrapper: then it asks the database. pabal.New checks the tables.
func New(db *sql.DB, o *Options) (*Store, error) {
	prefix, err := o.prefix()
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("pabalsql: no database")
	}
	d, err := dialectOf(db)
	if err != nil {
		return nil, err
	}
	return &Store{db: db, dialect: d, prefix: prefix, open: map[*sql.Tx]*transaction{}}, nil
}

// text puts the table prefix into a statement.
func (s *Store) text(query string) string { return strings.ReplaceAll(query, "{p}", s.prefix) }

// rowsKept is up to how many rows the text of a statement is kept prepared; beyond, it is prepared for that one time.
const rowsKept = 8

// executor is a pool or a transaction.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *Store) on(tx *sql.Tx) executor {
	if tx == nil {
		return s.db
	}
	return tx
}

// exec runs a statement in a transaction and says how many rows it changed.
func (s *Store) exec(ctx context.Context, tx *sql.Tx, name string, args ...any) (int, error) {
	text, err := s.statement(name)
	if err != nil || text == "" {
		return 0, err
	}
	result, err := tx.ExecContext(ctx, own+text, args...)
	if err != nil {
		return 0, s.explain(err)
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// execRows runs a statement for rows: once for all, or once for each, as its text says.
func (s *Store) execRows(ctx context.Context, tx *sql.Tx, name string, rows [][]any) error {
	text, err := s.statement(name)
	if err != nil || text == "" || len(rows) == 0 {
		return err
	}
	if batches(text) {
		_, err := tx.ExecContext(ctx, many(text, len(rows)), slices.Concat(rows...)...)
		return s.explain(err)
	}
	for _, row := range rows {
		if _, err := tx.ExecContext(ctx, own+text, row...); err != nil {
			return s.explain(err)
		}
	}
	return nil
}

// many writes a statement for n rows.
func many(text string, n int) string {
	if n <= rowsKept {
		return own + repeat(text, n)
	}
	return repeat(text, n)
}

// query runs a statement, in a transaction unless that is nil, and has scan read each row.
func (s *Store) query(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, name string, args ...any) error {
	text, err := s.statement(name)
	if err != nil || text == "" {
		return err
	}
	return s.scan(ctx, tx, scan, own+text, args...)
}

// queryRows runs a statement that has a list of rows among its placeholders, and nothing else.
func (s *Store) queryRows(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, name string, rows [][]any) error {
	text, err := s.statement(name)
	if err != nil || text == "" || len(rows) == 0 {
		return err
	}
	return s.scan(ctx, tx, scan, many(text, len(rows)), slices.Concat(rows...)...)
}

func (s *Store) scan(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, text string, args ...any) error {
	rows, err := s.on(tx).QueryContext(ctx, text, args...)
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
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.dialect.isolation})
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

func idOrNull(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id[:]
}
