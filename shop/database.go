package shop

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The SQL of a dialect is a folder with two files per role. <role>.schema.sql holds the versions of its tables, each under a
// line "-- version: n"; <role>.sql holds its statements, each under a line "-- name: x". In a statement a placeholder or a
// tuple of placeholders that is followed by "..." is repeated for every row of a batch:
//
//	insert into t (a, b) values (?, ?)...        insert into t (a, b) values ($1, $2)...
//	select a from t where a in (?...)            select a from t where a in ($1...)
//
//go:embed sql
var dialects embed.FS

const defaultDialect = "sqlite"

// sections cuts a file into the texts under its lines "-- <word>: <name>".
func sections(dialect, file, word string) (names []string, texts map[string]string, err error) {
	if dialect == "" {
		dialect = defaultDialect
	}
	if dialect != strings.Trim(dialect, "./\\") || strings.ContainsAny(dialect, "/\\") {
		return nil, nil, fmt.Errorf("dialect %q is not a name", dialect)
	}
	data, err := dialects.ReadFile("sql/" + dialect + "/" + file)
	if err != nil {
		return nil, nil, fmt.Errorf("shop has no SQL for dialect %q: %w", dialect, err)
	}
	texts = map[string]string{}
	name := ""
	for line := range strings.Lines(string(data)) {
		if s, ok := strings.CutPrefix(line, "-- "+word+": "); ok {
			name = strings.TrimSpace(s)
			names = append(names, name)
		} else if !strings.HasPrefix(line, "--") && name != "" {
			texts[name] += line
		}
	}
	return names, texts, nil
}

// Migrate brings the tables of a role to the version that this program speaks, in one transaction, and returns the versions
// before and after. Doing it again, or from two processes at once, is safe.
func Migrate(ctx context.Context, db *sql.DB, dialect, role string) (from, to int, err error) {
	names, texts, err := sections(dialect, role+".schema.sql", "version")
	if err != nil {
		return 0, 0, err
	}
	d, err := openDatabase(ctx, db, dialect, "schema")
	if err != nil {
		return 0, 0, err
	}
	defer d.Close()
	err = d.inTx(ctx, func(tx *sql.Tx) error {
		if err := d.row(ctx, tx, "version", role).Scan(&from); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if to = len(names); from > to {
			return fmt.Errorf("schema of %s is version %d, this program knows %d: use a newer program", role, from, to)
		}
		for _, name := range names[from:] {
			for statement := range strings.SplitSeq(texts[name], ";\n") {
				if statement = strings.TrimSpace(statement); statement == "" {
					continue
				}
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("version %s: %w", name, err)
				}
			}
		}
		if from == to {
			return nil
		}
		_, err := d.exec(ctx, tx, "set_version", role, to)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("migrate tables of %s: %w", role, err)
	}
	return from, to, nil
}

// database is a role's database with its statements, prepared.
type database struct {
	db      *sql.DB
	queries map[string]*query
}

type query struct {
	text string
	stmt *sql.Stmt // for one row
}

func openDatabase(ctx context.Context, db *sql.DB, dialect, role string) (*database, error) {
	names, texts, err := sections(dialect, role+".sql", "name")
	if err != nil {
		return nil, err
	}
	d := &database{db: db, queries: map[string]*query{}}
	for _, name := range names {
		q := &query{text: strings.TrimSuffix(strings.TrimSpace(texts[name]), ";")}
		if name == "prepare" { // what the other statements of the file need; the schema table, say
			_, err = db.ExecContext(ctx, q.text)
		} else {
			q.stmt, err = db.PrepareContext(ctx, repeat(q.text, 1))
			d.queries[name] = q
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("prepare %s of %s (are its tables there? pabal migrate): %w", name, role, err), d.Close())
		}
	}
	return d, nil
}

// Close closes the prepared statements.
func (d *database) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.queries)) {
		if stmt := d.queries[name].stmt; stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// inTx runs f in a transaction: all that a use case writes, its events included, or nothing.
func (d *database) inTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// query runs a statement for n rows (1 but where it has "..."), in tx, or outside any transaction if that is nil.
func (d *database) query(ctx context.Context, tx *sql.Tx, name string, n int, args []any) (*sql.Rows, error) {
	q, err := d.named(name, n)
	if err != nil {
		return nil, err
	}
	var rows *sql.Rows
	switch {
	case n == 1 && tx == nil:
		rows, err = q.stmt.QueryContext(ctx, args...)
	case n == 1:
		rows, err = tx.StmtContext(ctx, q.stmt).QueryContext(ctx, args...)
	case tx == nil:
		rows, err = d.db.QueryContext(ctx, repeat(q.text, n), args...)
	default:
		rows, err = tx.QueryContext(ctx, repeat(q.text, n), args...)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rows, nil
}

// execMany runs a statement for n rows in tx and returns how many it changed.
func (d *database) execMany(ctx context.Context, tx *sql.Tx, name string, n int, args []any) (int64, error) {
	q, err := d.named(name, n)
	if err != nil {
		return 0, err
	}
	var r sql.Result
	if n == 1 {
		r, err = tx.StmtContext(ctx, q.stmt).ExecContext(ctx, args...)
	} else {
		r, err = tx.ExecContext(ctx, repeat(q.text, n), args...)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return r.RowsAffected()
}

// execRows runs a statement in tx for all rows, of width arguments each, after the arguments that come once. No rows, no
// statement.
func (d *database) execRows(ctx context.Context, tx *sql.Tx, name string, rows []any, width int, once ...any) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := d.execMany(ctx, tx, name, len(rows)/width, append(once, rows...))
	return err
}

func (d *database) exec(ctx context.Context, tx *sql.Tx, name string, args ...any) (int64, error) {
	return d.execMany(ctx, tx, name, 1, args)
}

func (d *database) named(name string, n int) (*query, error) {
	q := d.queries[name]
	if q == nil || n < 1 {
		return nil, fmt.Errorf("no statement %s for %d rows", name, n)
	}
	return q, nil
}

// scanner is what scans a row: *sql.Rows, or the answer of row.
type scanner interface{ Scan(dest ...any) error }

// row runs a statement that answers one row; Scan answers sql.ErrNoRows without one.
func (d *database) row(ctx context.Context, tx *sql.Tx, name string, args ...any) scanner {
	rows, err := d.query(ctx, tx, name, 1, args)
	return &single{rows, err}
}

type single struct {
	rows *sql.Rows
	err  error
}

func (s *single) Scan(dest ...any) error {
	if s.err != nil {
		return s.err
	}
	defer func() { _ = s.rows.Close() }() // its error, if any, is that of Err
	if !s.rows.Next() {
		if err := s.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := s.rows.Scan(dest...); err != nil {
		return err
	}
	return s.rows.Close()
}

// collect scans all rows of a statement.
func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error, if any, is that of Err
	all := []T{}                        // not nil: in JSON an empty list
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

var numbered = regexp.MustCompile(`\$(\d+)`)

// repeat writes a statement for n rows.
func repeat(text string, n int) string {
	head, tail, found := strings.Cut(text, "...")
	if !found {
		return text
	}
	start := strings.LastIndexAny(head, "?$")
	if strings.HasSuffix(head, ")") {
		start = strings.LastIndexByte(head, '(')
	}
	if start < 0 {
		return text
	}
	unit := head[start:]
	width := strings.Count(unit, "$")
	var b strings.Builder
	b.WriteString(head)
	for i := 1; i < n; i++ {
		b.WriteString(", ")
		if width == 0 {
			b.WriteString(unit)
			continue
		}
		b.WriteString(numbered.ReplaceAllStringFunc(unit, func(s string) string {
			k, _ := strconv.Atoi(s[1:]) // digits only
			return "$" + strconv.Itoa(k+i*width)
		}))
	}
	b.WriteString(tail)
	return b.String()
}
