package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/shop"
)

// A database is named by an address whose scheme says which kind it is. A further kind is an entry of databaseKinds.

// database is an open store.
type database struct {
	db      *sql.DB
	dialect string // of the shop's SQL
	store   driver.Store[*sql.Tx]
	migrate func(ctx context.Context) (fmt.Stringer, error)
	tallies func(ctx context.Context) (map[string]shop.Tally, error)
	close   func()
}

type databaseKind struct {
	scheme string
	form   string // how an address is given
	open   func(address, prefix string) (*database, error)
	look   func(address, prefix string) (*database, error) // as open, for somebody who only reads
	script func(prefix string) (string, error)
}

var databaseKinds = []databaseKind{
	{"sqlite", "sqlite:PATH", openSQLite(nil), openSQLite(&pabalsql.SQLiteOptions{ReadOnly: true}), scriptOf("sqlite")},
	{"mysql", "mysql://USER:PASSWORD@HOST:PORT/NAME", openMySQL, openMySQL, scriptOf("mysql")},
	{"mariadb", "mariadb://USER:PASSWORD@HOST:PORT/NAME", openMySQL, openMySQL, scriptOf("mariadb")},
	{"postgres", "postgres://USER:PASSWORD@HOST:PORT/NAME", openPostgres, openPostgres, func(prefix string) (string, error) {
		return pabalpgx.Script(&pabalpgx.Options{TablePrefix: prefix})
	}},
}

// databaseForms lists what a --db may be.
func databaseForms() string {
	var forms []string
	for _, k := range databaseKinds {
		forms = append(forms, k.form)
	}
	return strings.Join(forms, ", ")
}

// storeFlags name a store.
type storeFlags struct {
	DB     string `name:"db" help:"The database: ${databases}." placeholder:"ADDRESS" env:"PABAL_DB" required:""`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
}

func (f *storeFlags) open() (*database, error) { return openDatabase(f.DB, f.Prefix) }

// operator opens a store and hands its operator to do.
func (f *storeFlags) operator(ctx context.Context, do func(*pabal.Operator) error) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.close()
	o, err := pabal.Operate(ctx, d.store)
	if err != nil {
		return err
	}
	return do(o)
}

func openDatabase(address, prefix string) (*database, error) {
	k, err := kindOf(address)
	if err != nil {
		return nil, err
	}
	return k.open(address, prefix)
}

func kindOf(address string) (*databaseKind, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	for i := range databaseKinds {
		if k := &databaseKinds[i]; k.scheme == scheme && rest != "" {
			return k, nil
		}
	}
	return nil, unknownDatabase(address)
}

// unknownDatabase names of an address only the scheme: the rest may hold a password.
func unknownDatabase(address string) error {
	if scheme, _, is := strings.Cut(address, ":"); is {
		address = scheme + ":…"
	}
	return usage("--db %q: give %s", address, databaseForms())
}

// printSchema returns the SQL that makes the tables in a database of the address's kind; without one, SQLite.
func printSchema(address, prefix string) (string, error) {
	if address == "" {
		address = "sqlite:"
	}
	scheme, _, _ := strings.Cut(address, ":")
	for _, k := range databaseKinds {
		if k.scheme != scheme {
			continue
		}
		script, err := k.script(prefix)
		if err != nil {
			return "", usage("--prefix: %w", err)
		}
		return script, nil
	}
	return "", unknownDatabase(address)
}

func scriptOf(dialect string) func(prefix string) (string, error) {
	return func(prefix string) (string, error) {
		return pabalsql.Script(dialect, &pabalsql.Options{TablePrefix: prefix})
	}
}

func openSQLite(o *pabalsql.SQLiteOptions) func(address, prefix string) (*database, error) {
	return func(address, prefix string) (*database, error) {
		db, err := pabalsql.OpenSQLite(strings.TrimPrefix(address, "sqlite:"), o)
		return openSQL("sqlite", db, err, prefix)
	}
}

func openMySQL(address, prefix string) (*database, error) {
	db, err := pabalsql.OpenMySQL(address, nil)
	return openSQL("mysql", db, err, prefix)
}

func openSQL(dialect string, db *sql.DB, err error, prefix string) (*database, error) {
	if err != nil {
		return nil, usage("--db: %w", err)
	}
	o := &pabalsql.Options{TablePrefix: prefix}
	store, err := pabalsql.New(db, o)
	if err != nil {
		_ = db.Close()
		return nil, usage("--prefix: %w", err)
	}
	return &database{
		db: db, dialect: dialect, store: store, close: func() { _ = db.Close() },
		migrate: func(ctx context.Context) (fmt.Stringer, error) { return pabalsql.Migrate(ctx, db, o) },
		tallies: func(ctx context.Context) (map[string]shop.Tally, error) { return tallied(store.Tallies(ctx)) },
	}, nil
}

// openPostgres connects when the database is first used.
func openPostgres(address, prefix string) (*database, error) {
	cfg, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, usage("--db: %w", err)
	}
	if !strings.Contains(address, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, 16)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), pabalpgx.Watch(cfg)) // the context is that of the first connection
	if err != nil {
		return nil, usage("--db: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	closing := func() {
		_ = db.Close()
		pool.Close()
	}
	o := &pabalpgx.Options{TablePrefix: prefix}
	store, err := pabalpgx.NewSQL(db, pool, o)
	if err != nil {
		closing()
		return nil, usage("--prefix: %w", err)
	}
	return &database{
		db: db, dialect: "postgres", store: store, close: closing,
		migrate: func(ctx context.Context) (fmt.Stringer, error) { return pabalpgx.Migrate(ctx, pool, o) },
		tallies: func(ctx context.Context) (map[string]shop.Tally, error) { return tallied(store.Tallies(ctx)) },
	}, nil
}

// tallied makes the shop's tallies of a driver's, which have the same fields.
func tallied[T ~struct{ Recorded, Confirmed int }](tallies map[string]T, err error) (map[string]shop.Tally, error) {
	counts := make(map[string]shop.Tally, len(tallies))
	for name, t := range tallies {
		counts[name] = shop.Tally(t)
	}
	return counts, err
}
