package pabalsql_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

func openEmptyMariaDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := pabalsql.OpenMySQL(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// shapeOf lists what a database has: columns, indexes, routines and views.
func shapeOf(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	for _, query := range []string{
		"select concat_ws(' ', table_name, column_name, column_type, is_nullable, column_default, extra) from information_schema.columns " +
			"where table_schema = database() order by table_name, ordinal_position",
		"select concat_ws(' ', table_name, index_name, seq_in_index, column_name) from information_schema.statistics " +
			"where table_schema = database() order by table_name, index_name, seq_in_index",
		"select concat_ws(' ', routine_name, md5(routine_definition)) from information_schema.routines " +
			"where routine_schema = database() order by routine_name",
		"select concat_ws(' ', table_name, md5(replace(view_definition, database(), ''))) from information_schema.views where table_schema = database()",
	} {
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var one string
			if err := rows.Scan(&one); err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestMigrateOnMariaDB(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	var made []string
	t.Run("once, and says what it did", func(t *testing.T) {
		db := openEmptyMariaDB(t, m.Database(t, ""))
		if m := migrate(t, db, nil); m.From != 0 || m.To != 1 || m.String() != "created the tables, version 1" {
			t.Errorf("first: %+v, %s", m, m)
		}
		made = shapeOf(t, db)
		if m := migrate(t, db, nil); m.From != 1 || m.To != 1 {
			t.Errorf("second: %+v", m)
		}
		if again := shapeOf(t, db); !slices.Equal(again, made) {
			t.Errorf("a second Migrate changed the schema to %q", again)
		}
		migrate(t, db, &pabalsql.Options{TablePrefix: "relay_"})
	})
	t.Run("from many processes at once", func(t *testing.T) {
		dsn := m.Database(t, "")
		var all sync.WaitGroup
		var mu sync.Mutex
		created := 0
		for range 6 {
			db := openEmptyMariaDB(t, dsn)
			all.Go(func() {
				did, err := pabalsql.Migrate(t.Context(), db, nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || did.To != 1 {
					t.Errorf("%+v, %v", did, err)
				}
				if did.From == 0 {
					created++
				}
			})
		}
		all.Wait()
		if created != 1 {
			t.Errorf("%d processes created the tables", created)
		}
	})
	t.Run("interrupted after each statement", func(t *testing.T) {
		script, err := pabalsql.Script("mysql", nil)
		if err != nil {
			t.Fatal(err)
		}
		statements := pabalsql.Split(script)
		for n := 1; n < len(statements); n++ {
			db := openEmptyMariaDB(t, m.Database(t, ""))
			for _, statement := range statements[:n] {
				if _, err := db.Exec(statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			s, err := pabalsql.New(db, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Open(t.Context(), "order"); !errors.Is(err, driver.ErrSchema) {
				t.Errorf("after %d statements a store opens: %v", n, err)
			}
			if m := migrate(t, db, nil); m.From != 0 || m.To != 1 {
				t.Errorf("after %d statements: %+v", n, m)
			}
			if is := shapeOf(t, db); !slices.Equal(is, made) {
				t.Errorf("after %d statements Migrate made %q", n, is)
			}
		}
	})
	t.Run("newer tables are left alone", func(t *testing.T) {
		db := openEmptyMariaDB(t, m.Database(t, ""))
		migrate(t, db, nil)
		if _, err := db.Exec("update pabal_meta set version = 99"); err != nil {
			t.Fatal(err)
		}
		if m := migrate(t, db, nil); m.From != 99 || m.To != 99 {
			t.Errorf("%+v", m)
		}
		s, err := pabalsql.New(db, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), "order"); !errors.Is(err, driver.ErrSchema) || !strings.Contains(fmt.Sprint(err), "version 99") {
			t.Errorf("a store opens on them: %v", err)
		}
	})
	t.Run("the lock is given back", func(t *testing.T) {
		dsn := m.Database(t, "")
		db := openEmptyMariaDB(t, dsn)
		if _, err := db.Exec("create view pabal_meta as select 1 as one"); err != nil {
			t.Fatal(err)
		}
		if _, err := pabalsql.Migrate(t.Context(), db, nil); err == nil {
			t.Fatal("it succeeded over a view of the same name")
		}
		if _, err := db.Exec("drop view pabal_meta"); err != nil {
			t.Fatal(err)
		}
		migrate(t, openEmptyMariaDB(t, dsn), nil) // another connection: it would wait a minute
	})
}
