package main

import (
	"context"
	"database/sql"
	"maps"
	"slices"
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

// databases are the kinds of database, by the schemes of their addresses.
var databases = map[string]struct {
	form    string // of its address
	dialect string // of pabalsql.Script, and of the shop's SQL
	open    func(address string) (*sql.DB, error)
}{
	"sqlite": {"sqlite:PATH", "sqlite", func(address string) (*sql.DB, error) {
		return pabalsql.OpenSQLite(strings.TrimPrefix(address, "sqlite:"), nil)
	}},
	"mysql":   {"mysql://USER:PASSWORD@HOST:PORT/NAME", "mysql", openMySQL},
	"mariadb": {"mariadb://USER:PASSWORD@HOST:PORT/NAME", "mysql", openMySQL},
}

func openMySQL(address string) (*sql.DB, error) { return pabalsql.OpenMySQL(address, nil) }

// databaseForms lists what a --db may be.
func databaseForms() string {
	var forms []string
	for _, scheme := range slices.Sorted(maps.Keys(databases)) {
		forms = append(forms, databases[scheme].form)
	}
	return strings.Join(forms, ", ")
}

// storeFlags name a store.
type storeFlags struct {
	DB     string `name:"db" help:"The database: ${databases}." placeholder:"ADDRESS" env:"PABAL_DB" required:""`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
}

func (f *storeFlags) open() (*database, error) { return openDatabase(f.DB, f.Prefix) }

func openDatabase(address, prefix string) (*database, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	kind, known := databases[scheme]
	if !known || rest == "" {
		return nil, usage("--db: give %s", databaseForms()) // not what was given: it may hold a password
	}
	d := &database{dialect: kind.dialect, options: &pabalsql.Options{TablePrefix: prefix}}
	var err error
	if d.db, err = kind.open(address); err != nil {
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
