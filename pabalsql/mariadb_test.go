package pabalsql_test

import (
	"context"
	"database/sql"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// openMariaDB makes a database with Pabal's tables.
func openMariaDB(t testing.TB, m *servers.MariaDB, parameters string) (db *sql.DB, dsn string) {
	t.Helper()
	dsn = m.Database(t, parameters)
	db, err := pabalsql.OpenMySQL(dsn, &pabalsql.MySQLOptions{MaxConns: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	return db, dsn
}

func mariaDBHarness(m *servers.MariaDB, parameters string) storetest.Harness[*sql.Tx] {
	return storetest.Harness[*sql.Tx]{Open: func(t *testing.T) storetest.Database[*sql.Tx] {
		db, dsn := openMariaDB(t, m, parameters)
		if _, err := db.Exec(`create table effect (n integer)`); err != nil {
			t.Fatal(err)
		}
		d := sqlDatabase(t, db)
		d.Unwatched = func(ctx context.Context) (*sql.Tx, error) {
			plain, err := sql.Open("mysql", dsn)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { _ = plain.Close() })
			return plain.BeginTx(ctx, nil)
		}
		return d
	}}
}

// asMySQLHarness is MariaDB without the words that MySQL does not know. No genuine MySQL can be installed everywhere.
func asMySQLHarness(m *servers.MariaDB) storetest.Harness[*sql.Tx] {
	h := mariaDBHarness(m, "")
	open := h.Open
	h.Open = func(t *testing.T) storetest.Database[*sql.Tx] {
		d := open(t)
		connect := d.Connect
		d.Connect = func(t *testing.T) driver.Store[*sql.Tx] { return pabalsql.AsMySQL(connect(t).(*pabalsql.Store)) }
		return d
	}
	return h
}

func TestMariaDBConformance(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	for name, parameters := range map[string]string{
		"as it comes":       "",
		"other parameters":  "interpolateParams=true&parseTime=true&clientFoundRows=true&loc=Asia%2FSeoul&time_zone=%27%2B09:00%27",
		"latin1 connection": "charset=latin1",
	} {
		t.Run(name, func(t *testing.T) { storetest.Run(t, mariaDBHarness(m, parameters)) })
	}
	t.Run("as MySQL", func(t *testing.T) { storetest.Run(t, asMySQLHarness(m)) })
}

// Whoever reads hears that nothing can be written: a server that follows another is set so.
func TestReadSaysThatMariaDBOnlyReads(t *testing.T) {
	m := servers.KillableMariaDB(t, &servers.MariaDBOptions{Volatile: true}) // others write
	db, _ := openMariaDB(t, m, "")
	s, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true, false} {
		if want {
			m.Admin(t, "set global read_only = 1")
		} else {
			m.Admin(t, "set global read_only = 0")
		}
		for _, q := range []driver.Query{{}, {Topics: true}} {
			r, err := s.Read(t.Context(), q)
			if err != nil || r.ReadOnly != want {
				t.Errorf("with topics %v it only reads: %v, %v", q.Topics, r.ReadOnly, err)
			}
		}
	}
}

// Retries of what was refused, and of what was done without an answer, find the same as if nothing had happened.
func TestMariaDBConformanceMisbehaving(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	t.Run("as it comes", func(t *testing.T) { storetest.RunMisbehaving(t, mariaDBHarness(m, ""), 1) })
	t.Run("as MySQL", func(t *testing.T) { storetest.RunMisbehaving(t, asMySQLHarness(m), 3) })
}

// A process of the release before works on tables of the next.
func TestMariaDBConformanceOnTablesOfTheNextVersion(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	t.Run("as it comes", func(t *testing.T) { storetest.Run(t, onNextVersion(mariaDBHarness(m, ""))) })
	t.Run("as MySQL", func(t *testing.T) { storetest.Run(t, onNextVersion(asMySQLHarness(m))) })
}

var (
	differentialFirst = flag.Uint64("differential.first", 0, "the first of the new seeds of the differential test; 0: by chance")
	differentialSeeds = flag.Uint64("differential.seeds", 1, "how many new seeds the differential test runs")
)

func TestStoresAnswerAsTheSimulatedOneDoes(t *testing.T) {
	seeds := []uint64{1, 2, 3}
	first := *differentialFirst
	if first == 0 {
		first = rand.Uint64() >> 1
	}
	for n := range *differentialSeeds {
		seeds = append(seeds, first+n)
	}
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	for name, h := range map[string]storetest.Harness[*sql.Tx]{
		"SQLite": sqliteHarness(), "MariaDB": mariaDBHarness(m, ""), "MySQL": asMySQLHarness(m),
	} {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds {
				storetest.Differential(t, h, seed, 400)
			}
		})
	}
}
