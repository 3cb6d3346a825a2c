package pabalsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Migrate creates Pabal's tables, or brings them to the version that this package speaks. It is safe to call twice, and from
// several processes at once; tables of a newer version are left alone. On SQLite it is one transaction. On MySQL and MariaDB
// a statement that changes a table ends the transaction: one that is interrupted goes on when Migrate is called again, and
// until then [New]'s stores do not open.
func Migrate(ctx context.Context, db *sql.DB, o *Options) (Migration, error) {
	s, err := New(db, o)
	if err != nil {
		return Migration{}, err
	}
	var m Migration
	err = s.write(ctx, func(tx *sql.Tx) error {
		unlock, err := s.lockSchema(ctx, tx)
		if err != nil {
			return err
		}
		defer unlock()
		m, err = s.migrate(ctx, tx)
		return err
	})
	if err != nil {
		return Migration{}, fmt.Errorf("migrate tables %s*: %w", s.prefix, err)
	}
	return m, nil
}

// lockSchema keeps other processes from migrating the same tables, where a transaction does not.
func (s *Store) lockSchema(ctx context.Context, tx *sql.Tx) (unlock func(), err error) {
	text, err := s.statement("lock schema")
	if err != nil || text == "" {
		return func() {}, err
	}
	var got sql.NullBool
	if err := tx.QueryRowContext(ctx, text).Scan(&got); err != nil {
		return nil, err
	}
	if !got.Bool {
		return nil, errors.New("another process has been migrating them for a minute")
	}
	return func() { // also when ctx is over; a connection that is gone has released it
		_ = s.query(context.WithoutCancel(ctx), tx, func(*sql.Rows) error { return nil }, "unlock schema")
	}, nil
}

func (s *Store) migrate(ctx context.Context, tx *sql.Tx) (m Migration, err error) {
	if m.From, err = s.version(ctx, tx); err != nil {
		return m, err
	}
	for m.To = m.From; m.To < schemaVersion; m.To++ {
		script, err := s.script(m.To + 1)
		if err != nil {
			return m, err
		}
		for _, statement := range split(script) {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return m, fmt.Errorf("schema version %d: %w", m.To+1, err)
			}
		}
	}
	return m, nil
}

// version reads the version of the tables; 0 without any, or where their making was interrupted.
func (s *Store) version(ctx context.Context, tx *sql.Tx) (version int, err error) {
	var n int
	err = s.query(ctx, tx, func(r *sql.Rows) error { return r.Scan(&n) }, "has table", s.prefix+"meta")
	if err != nil || n == 0 {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, s.text(`select version from {p}meta where id = 1`)).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil // the row comes last
	}
	return version, err
}

// split cuts a script into statements, which end with the delimiter at the end of a line: ";", or what a line "delimiter x"
// says from there on, as the databases' own clients read it.
func split(script string) (statements []string) {
	delimiter, statement := ";", ""
	for line := range strings.Lines(script) {
		trimmed := strings.TrimSpace(line)
		if d, ok := strings.CutPrefix(trimmed, "delimiter "); ok {
			delimiter = d
			continue
		}
		if statement == "" && (trimmed == "" || strings.HasPrefix(trimmed, "--")) {
			continue
		}
		statement += line
		if text, ends := strings.CutSuffix(strings.TrimSpace(statement), delimiter); ends {
			statements, statement = append(statements, strings.TrimSpace(text)), ""
		}
	}
	return statements
}

func (s *Store) script(version int) (string, error) {
	b, err := schemas.ReadFile(fmt.Sprintf("schema/%s/%03d.sql", s.dialect.name, version))
	return s.text(string(b)), err
}

// Script returns the SQL that Migrate would run on an empty database of the given kind (sqlite, mysql or mariadb), for goose,
// Flyway, Liquibase or Atlas.
func Script(database string, o *Options) (string, error) {
	prefix, err := o.prefix()
	if err != nil {
		return "", err
	}
	d, known := dialects[database]
	if !known {
		return "", fmt.Errorf("database %q: one of %v", database, slices.Sorted(maps.Keys(dialects)))
	}
	s := &Store{dialect: d, prefix: prefix}
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
