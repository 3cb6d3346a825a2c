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
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalpgx"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/shop"
)

// A database or a broker is named by an address whose scheme says which kind it is. A further kind is a line here.

// database is an open store.
type database struct {
	db      *sql.DB
	dialect string // of the shop's SQL
	store   driver.Store[*sql.Tx]
	migrate func(ctx context.Context) (fmt.Stringer, error)
	tallies func(ctx context.Context) (map[string]shop.Tally, error)
	closing func()
}

// kinds are the databases that are compiled in, by the scheme of their addresses.
var kinds = []struct {
	scheme string
	form   string // how an address is given
	open   func(address, prefix string) (*database, error)
	script func(prefix string) (string, error)
}{
	{"sqlite", "sqlite:PATH", openSQLite, func(prefix string) (string, error) {
		return pabalsql.Script(&pabalsql.Options{TablePrefix: prefix})
	}},
	{"postgres", "postgres://USER:PASSWORD@HOST:PORT/NAME", openPostgres, func(prefix string) (string, error) {
		return pabalpgx.Script(&pabalpgx.Options{TablePrefix: prefix})
	}},
}

func forms() string {
	list := make([]string, len(kinds))
	for i := range kinds {
		list[i] = kinds[i].form
	}
	return strings.Join(list, " or ")
}

// storeFlags name a store.
type storeFlags struct {
	DB     string `name:"db" help:"The database: sqlite:PATH or postgres://…" placeholder:"ADDRESS" env:"PABAL_DB" required:""`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
}

func (f *storeFlags) open() (*database, error) { return openDatabase(f.DB, f.Prefix) }

func openDatabase(address, prefix string) (*database, error) {
	scheme, path, _ := strings.Cut(address, ":")
	for _, k := range kinds {
		if k.scheme == scheme && path != "" {
			return k.open(address, prefix)
		}
	}
	return nil, usage("--db %q: give %s", address, forms())
}

// printSchema returns the SQL that makes the tables in a database of the address's kind; without one, SQLite.
func printSchema(address, prefix string) (string, error) {
	if address == "" {
		address = "sqlite:"
	}
	scheme, _, _ := strings.Cut(address, ":")
	for _, k := range kinds {
		if k.scheme == scheme {
			script, err := k.script(prefix)
			if err != nil {
				return "", usage("--prefix: %w", err)
			}
			return script, nil
		}
	}
	return "", usage("--db %q: give %s", address, forms())
}

func openSQLite(address, prefix string) (*database, error) {
	o := &pabalsql.Options{TablePrefix: prefix}
	db, err := pabalsql.OpenSQLite(strings.TrimPrefix(address, "sqlite:"), nil)
	if err != nil {
		return nil, usage("--db: %w", err)
	}
	store, err := pabalsql.New(db, o)
	if err != nil {
		_ = db.Close()
		return nil, usage("--prefix: %w", err)
	}
	return &database{
		db: db, dialect: "sqlite", store: store, closing: func() { _ = db.Close() },
		migrate: func(ctx context.Context) (fmt.Stringer, error) { return pabalsql.Migrate(ctx, db, o) },
		tallies: func(ctx context.Context) (map[string]shop.Tally, error) { return tallied(store.Tallies(ctx)) },
	}, nil
}

// openPostgres connects when the database is first used.
func openPostgres(address, prefix string) (*database, error) {
	o := &pabalpgx.Options{TablePrefix: prefix}
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
	store, err := pabalpgx.NewSQL(db, pool, o)
	if err != nil {
		closing()
		return nil, usage("--prefix: %w", err)
	}
	return &database{
		db: db, dialect: "postgres", store: store, closing: closing,
		migrate: func(ctx context.Context) (fmt.Stringer, error) { return pabalpgx.Migrate(ctx, pool, o) },
		tallies: func(ctx context.Context) (map[string]shop.Tally, error) { return tallied(store.Tallies(ctx)) },
	}, nil
}

func tallied[T ~struct{ Recorded, Confirmed int }](tallies map[string]T, err error) (map[string]shop.Tally, error) {
	counts := make(map[string]shop.Tally, len(tallies))
	for name, t := range tallies {
		counts[name] = shop.Tally(t)
	}
	return counts, err
}

func (d *database) close() { d.closing() }

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

// brokerFlags name a broker.
type brokerFlags struct {
	Broker string `help:"The broker: nats://HOST:PORT, or embedded:DIRECTORY for NATS JetStream in this process." placeholder:"ADDRESS" env:"PABAL_BROKER"`
	Fixed  bool   `help:"Create no topics, queues or subscriptions; name what is missing." env:"PABAL_FIXED_TOPOLOGY"`
}

func openBroker(a *app, address string) (driver.Broker, error) {
	o := &pabalnats.Options{Logger: a.log}
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case scheme == "embedded" && rest != "":
		b, err := pabalnats.Open(rest, o)
		if err != nil {
			return nil, usage("--broker: %w", err)
		}
		return b, nil
	case (scheme == "nats" || scheme == "tls") && strings.HasPrefix(rest, "//"):
		b, err := pabalnats.Connect(a.ctx, address, o)
		if err != nil {
			return nil, fmt.Errorf("--broker: %w", err)
		}
		return b, nil
	}
	return nil, usage("--broker %q: give nats://HOST:PORT or embedded:DIRECTORY", address)
}
