package pabalpgx

import (
	"context"
	"embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed schema
var schemas embed.FS

// schemaVersion is the version that this package speaks: the number of its schema files.
const schemaVersion = 1

// Migration says what Migrate did.
type Migration struct {
	From int // the version found; 0: no tables
	To   int // the version now
}

func (m Migration) String() string {
	switch {
	case m.From == m.To && m.To == schemaVersion:
		return fmt.Sprintf("nothing to do: the tables are of version %d", m.To)
	case m.From > schemaVersion:
		return fmt.Sprintf("nothing done: the tables are of version %d, newer than this program's %d", m.From, schemaVersion)
	case m.From == 0:
		return fmt.Sprintf("created the tables, version %d", m.To)
	default:
		return fmt.Sprintf("migrated the tables from version %d to %d", m.From, m.To)
	}
}

// The lock is the transaction's, so that it needs no session; its number is that of the text "pabal", and no one else's
// (PostgreSQL manual, 9.28.10).
const (
	sqlMigrateLock = `select pg_advisory_xact_lock(482701402476)`
	sqlHasMeta     = `select to_regclass($1::text) is not null`
	sqlVersion     = `select version from {p}meta where id = 1`
)

// Migrate creates Pabal's tables in the first schema of the search path, or brings them to the version that this package
// speaks, in one transaction. It is safe to call twice, and from several processes at once: one migrates, the others wait
// for it. Tables of a newer version are left alone. The role needs to own the tables, or to be allowed to create them;
// clients that run as another role cannot make or drop the partitions of {prefix}event by themselves.
func Migrate(ctx context.Context, pool *pgxpool.Pool, o *Options) (Migration, error) {
	b, err := newBase(pool, o)
	if err != nil {
		return Migration{}, err
	}
	var m Migration
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlMigrateLock); err != nil {
			return err
		}
		if m.From, err = b.version(ctx, tx); err != nil {
			return err
		}
		for m.To = m.From; m.To < schemaVersion; m.To++ {
			script, err := b.script(m.To + 1)
			if err != nil {
				return err
			}
			if _, err := tx.Conn().PgConn().Exec(ctx, script).ReadAll(); err != nil {
				return fmt.Errorf("schema version %d: %w", m.To+1, err)
			}
		}
		return nil
	})
	if err != nil {
		return Migration{}, fmt.Errorf("migrate tables %s*: %w", b.prefix, err)
	}
	return m, nil
}

// version reads the version of the tables; 0 without any.
func (b *base) version(ctx context.Context, tx pgx.Tx) (version int, err error) {
	var there bool
	if err = tx.QueryRow(ctx, sqlHasMeta, b.prefix+"meta").Scan(&there); err != nil || !there {
		return 0, err
	}
	err = tx.QueryRow(ctx, b.text(sqlVersion)).Scan(&version)
	return version, err
}

func (b *base) script(version int) (string, error) {
	text, err := schemas.ReadFile(fmt.Sprintf("schema/%03d.sql", version))
	return strings.ReplaceAll(string(text), "{p}", b.prefix), err
}

// Script returns the SQL that Migrate would run on an empty database, for goose, Flyway, Liquibase or Atlas. It holds
// functions in dollar quotes: goose wants it between StatementBegin and StatementEnd.
func Script(o *Options) (string, error) {
	prefix, err := o.prefix()
	if err != nil {
		return "", err
	}
	b := &base{prefix: prefix}
	var scripts []string
	for version := 1; version <= schemaVersion; version++ {
		script, err := b.script(version)
		if err != nil {
			return "", err
		}
		scripts = append(scripts, script)
	}
	return strings.Join(scripts, "\n"), nil
}
