// Package pabalpgx keeps Pabal's events and inboxes in PostgreSQL, version 14 or newer, over pgx.
//
// An event is a row of the caller's own transaction, which is a pgx.Tx:
//
//	cfg, err := pgxpool.ParseConfig(url)
//	pool, err := pgxpool.NewWithConfig(ctx, pabalpgx.Watch(cfg))  // Pabal sees every COMMIT and ROLLBACK
//	_, err = pabalpgx.Migrate(ctx, pool, nil)                      // creates the tables, once
//	store, err := pabalpgx.New(pool, nil)
//	client, err := pabal.New(ctx, store, broker, "order", nil)
//
// or a *sql.Tx, for programs on database/sql and whatever is built on it (gorm, ent, bun, sqlc):
//
//	db := stdlib.OpenDBFromPool(pool)
//	store, err := pabalpgx.NewSQL(db, pool, nil)
//
// [Store.InTx] sends events together with COMMIT, in one round trip. Programs in other languages record with the function
// pabal_record of the schema, in a transaction of theirs; `pabal relay` publishes.
//
// Of the pool a store takes one connection for each of the client's tasks that is at work in the database (confirming,
// republishing, writing verdicts, claiming by id, forgetting: each a short transaction, seldom more than two at a time), and one
// for each consumer lane while its handler runs. It keeps no state in a session, listens to nothing and takes no session
// locks, so that it works through a pooler in transaction mode; pgx wants default_query_exec_mode=exec there.
package pabalpgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal/driver"
)

// Options of [New], [NewSQL], [Migrate] and [Script]. Nil and zero values are the good defaults.
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

// Store is a database whose transactions are pgx.Tx. It implements driver.Store and, by Inbox, driver.Inbox.
type Store struct{ base }

// SQLStore is a database whose transactions are *sql.Tx. It implements driver.Store and, by Inbox, driver.Inbox.
type SQLStore struct {
	base
	db *sql.DB
}

var (
	_ driver.Store[pgx.Tx]  = (*Store)(nil)
	_ driver.Store[*sql.Tx] = (*SQLStore)(nil)
)

// base is all of a store that does not touch the caller's transactions.
type base struct {
	pool   *pgxpool.Pool
	prefix string
	texts  *sync.Map // statement → with the prefix in it
	begun  *begun
}

// New makes a store of a watched pool. It sends nothing; pabal.New checks the tables.
func New(pool *pgxpool.Pool, o *Options) (*Store, error) {
	b, err := newBase(pool, o)
	if err != nil {
		return nil, err
	}
	return &Store{b}, nil
}

// NewSQL makes a store for transactions of db, which works over the same database as pool: usually
// stdlib.OpenDBFromPool(pool). Both are watched; the store's own statements run on pool. It sends nothing.
func NewSQL(db *sql.DB, pool *pgxpool.Pool, o *Options) (*SQLStore, error) {
	b, err := newBase(pool, o)
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("pabalpgx: no *sql.DB")
	}
	return &SQLStore{base: b, db: db}, nil
}

func newBase(pool *pgxpool.Pool, o *Options) (base, error) {
	prefix, err := o.prefix()
	if err != nil {
		return base{}, err
	}
	if pool == nil {
		return base{}, errors.New("pabalpgx: no pool")
	}
	return base{pool: pool, prefix: prefix, texts: &sync.Map{}, begun: newBegun()}, nil
}

// Inbox implements driver.Store.
func (s *Store) Inbox() driver.Inbox[pgx.Tx] { return inbox{ledger{s.base}} }

// Inbox implements driver.Store.
func (s *SQLStore) Inbox() driver.Inbox[*sql.Tx] { return sqlInbox{ledger{s.base}, s.db} }

// Open implements driver.Store.
func (s *Store) Open(ctx context.Context, source string) error { return s.open(ctx, source) }

// Open implements driver.Store.
func (s *SQLStore) Open(ctx context.Context, source string) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	_, err = meet(ctx, tx)
	_ = tx.Rollback()
	if err != nil {
		return err
	}
	return s.open(ctx, source)
}

const (
	sqlMeta   = `select version, source from {p}meta where id = 1`
	sqlSource = `update {p}meta set source = $1 where id = 1 and source in ('', $1)`
)

func (b *base) open(ctx context.Context, source string) error {
	c, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if watchOf(c.Conn()) == nil {
		return driver.ErrUnwatched
	}
	version, stored := 0, ""
	err = c.QueryRow(ctx, b.text(sqlMeta)).Scan(&version, &stored)
	switch {
	case err != nil:
		return b.explain(err)
	case version < schemaVersion:
		return fmt.Errorf("%w: tables %s* are of version %d, this program speaks %d: run `pabal migrate`",
			driver.ErrSchema, b.prefix, version, schemaVersion)
	case version > schemaVersion+1: // a migration is one that programs of the version before live with: see internal/rolling
		return fmt.Errorf("%w: tables %s* are of version %d, this program speaks %d and lives with %d: run a newer release",
			driver.ErrSchema, b.prefix, version, schemaVersion, schemaVersion+1)
	case source == "" || source == stored:
		return nil
	case stored != "":
		return fmt.Errorf("%w: the store is of source %q, this client of %q", driver.ErrSource, stored, source)
	}
	tag, err := c.Exec(ctx, b.text(sqlSource), source)
	if err == nil && tag.RowsAffected() == 0 {
		err = fmt.Errorf("%w: another client gave it a name just now", driver.ErrSource)
	}
	return err
}

// text puts the table prefix into a statement.
func (b *base) text(query string) string {
	if t, ok := b.texts.Load(query); ok {
		return t.(string)
	}
	t := strings.ReplaceAll(query, "{p}", b.prefix)
	b.texts.Store(query, t)
	return t
}

// SQLSTATEs (PostgreSQL manual, appendix A).
const (
	undefinedTable       = "42P01"
	undefinedColumn      = "42703"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"
)

func isState(err error, states ...string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	for _, s := range states {
		if e.Code == s {
			return true
		}
	}
	return false
}

// explain makes a missing table an ErrSchema, which names the way out.
func (b *base) explain(err error) error {
	if isState(err, undefinedTable, undefinedColumn) {
		return fmt.Errorf("%w: tables %s* are missing: run `pabal migrate` (%w)", driver.ErrSchema, b.prefix, err)
	}
	return err
}

// begin opens the transactions of the store's own, whatever the database's defaults are. The work lists grow and shrink by
// the minute, and once they have shrunk, the planner takes reading all of what they were for cheaper than a lookup in an
// index of that size, and sorting all that is due for cheaper than reading it in order: both are ruled out.
const (
	sqlBegin   = `begin isolation level read committed`
	sqlByIndex = `set local enable_seqscan = off`
	sqlInOrder = `set local enable_sort = off`
	// Of tables of a few rows, which are never analyzed, the planner thinks that they have a thousand, and compiles what
	// reads several of them for a third of a second each time.
	sqlNoJIT = `set local jit = off`
)

// write runs a transaction of the store's own.
func (b *base) write(ctx context.Context, do func(s session) error) error {
	tx, err := b.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: sqlBegin + "; " + sqlByIndex + "; " + sqlInOrder})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := do(session{b: b, pgx: tx}); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // a connection that fails here is closed
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// once runs one statement, under a setting, in a transaction of the store's own, in one round trip.
func (b *base) once(ctx context.Context, setting string, st statement) error {
	c, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release() // which closes a connection that is still in a transaction
	return session{b: b, pgx: c}.all(ctx, []statement{{name: "begin", query: sqlBegin}, {name: "set", query: setting}, st,
		{name: "commit", query: "commit"}})
}

// own runs statements each in a transaction of its own.
func (b *base) own() session { return session{b: b, pgx: b.pool} }
