package pabalsql_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/rolling"
	"github.com/pabal-go/pabal/pabalsql"
)

// openEmpty opens a database file that has no tables of Pabal's, or has been opened before.
func openEmpty(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := pabalsql.OpenSQLite(path, &pabalsql.SQLiteOptions{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func migrate(t *testing.T, db *sql.DB, o *pabalsql.Options) pabalsql.Migration {
	t.Helper()
	m, err := pabalsql.Migrate(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// schemaOf lists what a database has, as the statements that made it.
func schemaOf(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.Query(`select type, name, tbl_name, coalesce(sql, '') from sqlite_master order by type, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var kind, name, table, text string
		if err := rows.Scan(&kind, &name, &table, &text); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %s of %s: %s", kind, name, table, text))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMigrateCreatesOnceAndSaysWhatItDid(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	if m := migrate(t, db, nil); m.From != 0 || m.To != 1 || m.String() != "created the tables, version 1" {
		t.Errorf("first: %+v, %s", m, m)
	}
	made := schemaOf(t, db)
	if _, err := db.Exec("update pabal_meta set source = 'order'"); err != nil {
		t.Fatal(err)
	}
	if m := migrate(t, db, nil); m.From != 1 || m.To != 1 || m.String() != "nothing to do: the tables are of version 1" {
		t.Errorf("second: %+v, %s", m, m)
	}
	if again := schemaOf(t, db); !slices.Equal(again, made) {
		t.Errorf("a second Migrate changed the schema to %q", again)
	}
	var source string
	if err := db.QueryRow("select source from pabal_meta").Scan(&source); err != nil || source != "order" {
		t.Errorf("a second Migrate changed the rows: source is %q, %v", source, err)
	}
}

// Each handle has a connector of its own, and so nothing in common but the file, as two processes have.
func TestMigrateFromManyProcessesAtOnceCreatesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	handles := make([]*sql.DB, 6)
	for i := range handles {
		handles[i] = openEmpty(t, path)
	}
	did := make([]pabalsql.Migration, len(handles))
	var all sync.WaitGroup
	for i, db := range handles {
		all.Go(func() {
			var err error
			if did[i], err = pabalsql.Migrate(t.Context(), db, nil); err != nil {
				t.Errorf("handle %d: %v", i, err)
			}
		})
	}
	all.Wait()
	created := 0
	for _, m := range did {
		if m.From == 0 {
			created++
		}
		if m.To != 1 {
			t.Errorf("version %d afterwards", m.To)
		}
	}
	if created != 1 {
		t.Errorf("%d handles created the tables", created)
	}
}

func TestMigrateLeavesNewerTablesAlone(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	migrate(t, db, nil)
	if _, err := db.Exec("update pabal_meta set version = 99; alter table pabal_event add column shiny text"); err != nil {
		t.Fatal(err)
	}
	before := schemaOf(t, db)
	m := migrate(t, db, nil)
	if want := "nothing done: the tables are of version 99, newer than this program's 1"; m.From != 99 || m.To != 99 || m.String() != want {
		t.Errorf("%+v, %s", m, m)
	}
	if after := schemaOf(t, db); !slices.Equal(before, after) {
		t.Errorf("the schema was changed to %q", after)
	}
	s, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Open(t.Context(), "order")
	says := fmt.Sprint(err)
	if !errors.Is(err, driver.ErrSchema) || !strings.Contains(says, "version 99") || !strings.Contains(says, "run a newer release") {
		t.Errorf("a store opens on them: %v", err)
	}
	var source string
	if err := db.QueryRow("select source from pabal_meta").Scan(&source); err != nil || source != "" {
		t.Errorf("a store that does not know the tables wrote its source %q there, %v", source, err)
	}
}

// While processes are replaced one by one, and after a release that is taken back, an old one works on the next version's tables.
func TestTablesOfTheNextVersionAreOpened(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	migrate(t, db, nil)
	s, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	for version, opens := range map[int]bool{pabalsql.SchemaVersion - 1: false, pabalsql.SchemaVersion + 1: true, pabalsql.SchemaVersion + 2: false} {
		if _, err := db.Exec("update pabal_meta set version = ?", version); err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), "order"); (err == nil) != opens || err != nil && !errors.Is(err, driver.ErrSchema) {
			t.Errorf("tables of version %d: %v", version, err)
		}
	}
}

func TestMigrationsLeaveOldProcessesRunning(t *testing.T) {
	for _, dialect := range []string{"sqlite", "mysql"} {
		wrong, err := rolling.Check(os.DirFS(filepath.Join("schema", dialect)), pabalsql.SchemaVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range wrong {
			t.Errorf("%s/%s", dialect, complaint)
		}
	}
}

func TestMissingTablesNameTheCommand(t *testing.T) {
	s, err := pabalsql.New(openEmpty(t, filepath.Join(t.TempDir(), "test.db")), &pabalsql.Options{TablePrefix: "relay_"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Open(t.Context(), "order")
	if !errors.Is(err, driver.ErrSchema) || !strings.Contains(fmt.Sprint(err), "tables relay_* are missing: run `pabal migrate`") {
		t.Errorf("it answers %v", err)
	}
}

// A prefix goes into statements as it is: only what cannot be anything but a part of a name is one.
func TestPrefixIsALowerCaseName(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	for _, bad := range []string{
		"_", "_x", "1x", "X_", "pabal-", "pabal.", "main.pabal_", "pabal ", " pabal_", "pabal_\n", "pabal_\x00", `pabal"`, "pabal'",
		"pabal`", "pabal;", "pabal--", "pabal/*", "x(id); drop table orders; --", "x as select * from orders; create table y", "[x", "{p}", "$1", "?",
		"päbal_", "ｐabal_", "ſ", strings.Repeat("x", 32),
	} {
		o := &pabalsql.Options{TablePrefix: bad}
		for what, do := range map[string]func() error{
			"New":     func() error { _, err := pabalsql.New(db, o); return err },
			"Migrate": func() error { _, err := pabalsql.Migrate(t.Context(), db, o); return err },
			"Script":  func() error { _, err := pabalsql.Script("sqlite", o); return err },
		} {
			if err := do(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("TablePrefix %q", bad)) {
				t.Errorf("%s takes the prefix %q: %v", what, bad, err)
			}
		}
	}
	if made := schemaOf(t, db); len(made) > 0 {
		t.Errorf("a refused prefix made %q", made)
	}
	for _, good := range []string{"x", "a1_", "order_events_", strings.Repeat("x", 31)} {
		o := &pabalsql.Options{TablePrefix: good}
		migrate(t, db, o)
		s, err := pabalsql.New(db, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), good); err != nil {
			t.Errorf("prefix %q: %v", good, err)
		}
	}
}

// What another tool applies is what Migrate would have made, to the letter, and Migrate knows it.
func TestScriptMakesWhatMigrateMakes(t *testing.T) {
	for _, o := range []*pabalsql.Options{nil, {TablePrefix: "relay_"}} {
		script, err := pabalsql.Script("sqlite", o)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(script, "{p}") {
			t.Error("a prefix is left open")
		}
		file := filepath.Join(t.TempDir(), "script.db")
		plain, err := sql.Open("sqlite", "file:"+file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plain.Exec(script); err != nil {
			t.Fatalf("apply: %v", err)
		}
		migrated := openEmpty(t, filepath.Join(t.TempDir(), "migrated.db"))
		migrate(t, migrated, o)
		if is, want := schemaOf(t, plain), schemaOf(t, migrated); !slices.Equal(is, want) {
			t.Errorf("the script made %q, Migrate %q", is, want)
		}
		if _, err := plain.Exec(script); err == nil {
			t.Error("the script was applied twice")
		}
		if err := plain.Close(); err != nil {
			t.Fatal(err)
		}
		scripted := openEmpty(t, file)
		if m := migrate(t, scripted, o); m.From != 1 || m.To != 1 {
			t.Errorf("after the script Migrate finds %+v", m)
		}
		s, err := pabalsql.New(scripted, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), "order"); err != nil {
			t.Errorf("after the script a store does not open: %v", err)
		}
	}
}

func TestMigrateTouchesNoForeignTable(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	if _, err := db.Exec(`create table event (n integer); create table orders (no text); create index orders_no on orders (no);
		create table pabal (n integer); insert into orders values ('o-1'); insert into event values (7);
		pragma user_version = 42`); err != nil {
		t.Fatal(err)
	}
	before := schemaOf(t, db)
	migrate(t, db, nil)
	migrate(t, db, &pabalsql.Options{TablePrefix: "relay_"})
	var foreign []string
	for _, one := range schemaOf(t, db) {
		if !strings.Contains(one, "pabal_") && !strings.Contains(one, "relay_") {
			foreign = append(foreign, one)
		}
	}
	if !slices.Equal(foreign, before) {
		t.Errorf("what was there is now %q", foreign)
	}
	var orders, events, version int
	err := db.QueryRow("select (select count(*) from orders), (select n from event), user_version from pragma_user_version").
		Scan(&orders, &events, &version)
	if err != nil || orders != 1 || events != 7 || version != 42 {
		t.Errorf("%d orders, event %d, user_version %d, %v", orders, events, version, err)
	}
}

// A migration that fails leaves nothing behind: it is one transaction.
func TestMigrateThatFailsLeavesNothing(t *testing.T) {
	db := openEmpty(t, filepath.Join(t.TempDir(), "test.db"))
	if _, err := db.Exec("create table pabal_cursor (mine text)"); err != nil {
		t.Fatal(err)
	}
	before := schemaOf(t, db)
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err == nil {
		t.Fatal("it succeeded over a table of the same name")
	}
	if after := schemaOf(t, db); !slices.Equal(before, after) {
		t.Errorf("it left %q", after)
	}
	if _, err := db.Exec("drop table pabal_cursor"); err != nil {
		t.Fatal(err)
	}
	migrate(t, db, nil)
}
