package pabalpgx_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/rolling"
	"github.com/pabal-go/pabal/pabalpgx"
)

func TestMigrate(t *testing.T) {
	pool := connect(t, newDatabase(t))
	store := must(pabalpgx.New(pool, nil))(t)
	if err := store.Open(t.Context(), "order"); !errors.Is(err, driver.ErrSchema) || !strings.Contains(err.Error(), "pabal migrate") {
		t.Errorf("without tables Open answers %v", err)
	}
	said := make([]string, 4)
	var wg sync.WaitGroup
	for i := range said { // several processes at once
		wg.Go(func() {
			m, err := pabalpgx.Migrate(t.Context(), pool, nil)
			if err != nil {
				t.Error(err)
			}
			said[i] = m.String()
		})
	}
	wg.Wait()
	created := 0
	for _, s := range said {
		if s == "created the tables, version 1" {
			created++
		} else if s != "nothing to do: the tables are of version 1" {
			t.Errorf("Migrate said %q", s)
		}
	}
	if created != 1 {
		t.Errorf("created %d times: %q", created, said)
	}
	must(pool.Exec(t.Context(), `update pabal_meta set version = 9`))(t)
	if m := must(pabalpgx.Migrate(t.Context(), pool, nil))(t); m.String() != "nothing done: the tables are of version 9, newer than this program's 1" {
		t.Errorf("a newer version: %s", m)
	}
	if err := store.Open(t.Context(), "order"); !errors.Is(err, driver.ErrSchema) {
		t.Errorf("a newer version: Open answers %v", err)
	}
}

// While processes are replaced one by one, and after a release that is taken back, an old one works on the next version's tables.
func TestTablesOfTheNextVersionAreOpened(t *testing.T) {
	pool, _ := open(t)
	store := must(pabalpgx.New(pool, nil))(t)
	for version, opens := range map[int]bool{pabalpgx.SchemaVersion - 1: false, pabalpgx.SchemaVersion + 1: true, pabalpgx.SchemaVersion + 2: false} {
		must(pool.Exec(t.Context(), `update pabal_meta set version = $1`, version))(t)
		if err := store.Open(t.Context(), "order"); (err == nil) != opens || err != nil && !errors.Is(err, driver.ErrSchema) {
			t.Errorf("tables of version %d: %v", version, err)
		}
	}
}

func TestMigrationsLeaveOldProcessesRunning(t *testing.T) {
	for _, complaint := range must(rolling.Check(os.DirFS("schema"), pabalpgx.SchemaVersion))(t) {
		t.Error(complaint)
	}
}

func TestScriptMakesTheSameTables(t *testing.T) {
	pool := connect(t, newDatabase(t))
	script := must(pabalpgx.Script(&pabalpgx.Options{TablePrefix: "shop_"}))(t)
	if strings.Contains(script, "{p}") {
		t.Error("the prefix is missing somewhere")
	}
	must(pool.Exec(t.Context(), script))(t)
	store := must(pabalpgx.New(pool, &pabalpgx.Options{TablePrefix: "shop_"}))(t)
	if err := store.Open(t.Context(), "order"); err != nil {
		t.Error(err)
	}
	m := must(pabalpgx.Migrate(t.Context(), pool, &pabalpgx.Options{TablePrefix: "shop_"}))(t)
	if m != (pabalpgx.Migration{From: 1, To: 1}) {
		t.Errorf("Migrate did something: %s", m)
	}
}

func TestTablePrefixIsValidated(t *testing.T) {
	for _, prefix := range []string{"Pabal_", "1_", "a b", `a"`, "a;", strings.Repeat("a", 32)} {
		o := &pabalpgx.Options{TablePrefix: prefix}
		if _, err := pabalpgx.Script(o); err == nil || !strings.Contains(err.Error(), "TablePrefix") {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
