package pabalsql_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pabal-go/pabal/pabalsql"
)

// A store's audit sees the settings of its own connections: those of a program that opens SQLite in its own way too.
func TestAuditSeesThePoolsOwnSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "order.db")
	audit := func(db *sql.DB, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // of a test
		store, err := pabalsql.New(db, nil)
		if err != nil {
			t.Fatal(err)
		}
		found, err := store.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return ""
		}
		return found[0].What
	}
	open := func(o *pabalsql.SQLiteOptions) (*sql.DB, error) { return pabalsql.OpenSQLite(file, o) }
	if what := audit(open(nil)); what != "" {
		t.Errorf("found %q", what)
	}
	if what := audit(open(&pabalsql.SQLiteOptions{Relaxed: true})); !strings.HasPrefix(what, "synchronous is normal") {
		t.Errorf("relaxed: found %q", what)
	}
	if what := audit(sql.Open("sqlite", file+"?_pragma=synchronous(off)")); !strings.HasPrefix(what, "synchronous is off") {
		t.Errorf("off: found %q", what)
	}
}

// Whoever opens a file for looking at it makes none, and writes nothing.
func TestReadOnlyWritesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "order.db")
	look := &pabalsql.SQLiteOptions{ReadOnly: true}
	if db, err := pabalsql.OpenSQLite(file, look); err == nil {
		_ = db.Close()
		t.Error("a file that is not there was opened")
	}
	if files, _ := filepath.Glob(file + "*"); len(files) > 0 {
		t.Errorf("made %q", files)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "create table t (n integer)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = pabalsql.OpenSQLite(file, look)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a test
	if _, err := db.ExecContext(t.Context(), "insert into t values (1)"); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("an insert: %v", err)
	}
	mode := ""
	if err := db.QueryRowContext(t.Context(), "pragma journal_mode").Scan(&mode); err != nil || mode != "delete" {
		t.Errorf("journal mode %q, %v: it was changed", mode, err)
	}
}
