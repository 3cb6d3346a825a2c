package pabalsql

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"strings"
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

// Migrate creates Pabal's tables, or brings them to the version that this package speaks, in one transaction. It is safe
// to call twice, and from several processes at once; tables of a newer version are left alone.
func Migrate(ctx context.Context, db *sql.DB, o *Options) (Migration, error) {
	s, err := New(db, o)
	if err != nil {
		return Migration{}, err
	}
	var m Migration
	err = s.write(ctx, func(tx *sql.Tx) error {
		if m.From, err = s.version(ctx, tx); err != nil {
			return err
		}
		for m.To = m.From; m.To < schemaVersion; m.To++ {
			script, err := s.script(m.To + 1)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, script); err != nil {
				return fmt.Errorf("schema version %d: %w", m.To+1, err)
			}
		}
		return nil
	})
	if err != nil {
		return Migration{}, fmt.Errorf("migrate tables %s*: %w", s.prefix, err)
	}
	return m, nil
}

// version reads the version of the tables; 0 without any.
func (s *Store) version(ctx context.Context, tx *sql.Tx) (version int, err error) {
	var n int
	err = tx.QueryRowContext(ctx, `select count(*) from sqlite_master where type = 'table' and name = ?`, s.prefix+"meta").Scan(&n)
	if err != nil || n == 0 {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, s.text(`select version from {p}meta where id = 1`)).Scan(&version)
	return version, err
}

func (s *Store) script(version int) (string, error) {
	b, err := schemas.ReadFile(fmt.Sprintf("schema/%s/%03d.sql", s.dialect.name, version))
	return s.text(string(b)), err
}

// Script returns the SQL that Migrate would run on an empty database, for goose, Flyway, Liquibase or Atlas.
func Script(o *Options) (string, error) {
	prefix, err := o.prefix()
	if err != nil {
		return "", err
	}
	s := &Store{dialect: &sqlite, prefix: prefix}
	var scripts []string
	for version := 1; version <= schemaVersion; version++ {
		script, err := s.script(version)
		if err != nil {
			return "", err
		}
		scripts = append(scripts, script)
	}
	return strings.Join(scripts, "\n"), nil
}
