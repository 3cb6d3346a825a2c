package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalsql"
)

// A database is named by an address whose scheme says which kind it is.

// database is an open store.
type database struct {
	db      *sql.DB
	dialect string
	options *pabalsql.Options
	store   *pabalsql.Store
}

// storeFlags name a store.
type storeFlags struct {
	DB     string `name:"db" help:"The database: sqlite:PATH." placeholder:"ADDRESS" env:"PABAL_DB" required:""`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
}

func (f *storeFlags) open() (*database, error) { return openDatabase(f.DB, f.Prefix) }

func openDatabase(address, prefix string) (*database, error) {
	scheme, path, ok := strings.Cut(address, ":")
	if !ok || scheme != "sqlite" || path == "" {
		return nil, usage("--db %q: give sqlite:PATH", address)
	}
	d := &database{dialect: "sqlite", options: &pabalsql.Options{TablePrefix: prefix}}
	var err error
	if d.db, err = pabalsql.OpenSQLite(path, nil); err != nil {
		return nil, usage("--db: %w", err)
	}
	if d.store, err = pabalsql.New(d.db, d.options); err != nil {
		_ = d.db.Close()
		return nil, usage("--prefix: %w", err)
	}
	return d, nil
}

func (d *database) close() { _ = d.db.Close() }

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
