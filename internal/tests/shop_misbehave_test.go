package tests

import (
	"database/sql"
	"flag"
	"maps"
	"slices"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/shop"
)

var (
	misbehaveFor  = flag.Duration("misbehave.for", 8*time.Second, "how long the shop has traffic while everything misbehaves, or longer, until each fault has come")
	misbehaveWait = flag.Duration("misbehave.wait", 4*time.Minute, "how long the books may take to agree afterwards")
	misbehaveSeed = flag.Uint64("misbehave.seed", 0, "seed of what goes wrong; 0: another one each time")
)

// everything goes wrong now and then; nothing so often that no order would be paid.
func everything() misbehave.Plan {
	stalls := misbehave.Rates{Stalled: 0.03, StallMost: 300 * time.Millisecond}
	all := stalls
	all.Refused, all.Lost = 0.02, 0.02
	publish := all
	publish.Late, publish.LateMost, publish.HalfFailed, publish.Silent, publish.Doubled = 0.03, 6*time.Second, 0.1, 0.03, 0.1
	receive := all
	receive.Lost = 0.04
	receive.Short, receive.Shuffled, receive.HeldBack = 0.1, 0.5, 0.3
	ack := all
	ack.NotAcked, ack.HalfFailed, ack.Lost = 0.1, 0.3, 0.1
	record := misbehave.Rates{Refused: 0.03, Lost: 0.03, Doubted: 0.2}
	settle := all
	settle.Late, settle.LateMost, settle.Doubled = 0.1, 6*time.Second, 0.1
	commit := all // of few, where handlers work by batches
	commit.Refused, commit.Lost, commit.Stalled = 0.08, 0.08, 0.08
	commit.Late, commit.LateMost = 0.01, time.Second
	load := all
	load.Conflict = 0.1
	return misbehave.Plan{"": all, "Publish": publish, "Receive": receive, "Ack": ack, "Record": record, "Settle": settle,
		"Commit": commit, "Load": load, "Confirm": {Refused: 0.1, Lost: 0.3, Doubled: 0.4}}
}

// faults are those that have to come in a run, however short.
var faults = []string{
	"Publish Refused", "Publish Lost", "Publish Late", "Publish HalfFailed", "Publish Silent", "Publish Doubled", "Publish Stalled",
	"Receive Lost", "Receive Short", "Receive Shuffled", "Receive HeldBack", "Ack NotAcked", "Ack HalfFailed", "Ack Lost",
	"Record Refused", "Record Lost", "Record Doubted", "Commit Refused", "Commit Lost", "Commit Stalled", "Load Conflict",
	"Confirm Lost", "Confirm Doubled",
}

// TestShopAmongMisbehaviour: whatever broker, stores and COMMITs do within their contracts, the books agree in the end, and
// what was told last is what stands.
func TestShopAmongMisbehaviour(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	seed := *misbehaveSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Run("SQLite", func(t *testing.T) {
		trouble := misbehave.New(seed, nil)
		misbehaving(t, seed, kind{dialect: "sqlite", trouble: trouble, open: func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
			connector, err := sqlitedriver.NewConnector("file:" + file + "?_txlock=immediate&_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)")
			if err != nil {
				t.Fatal(err)
			}
			db := sql.OpenDB(pabalsql.Watch(misbehave.Connector(connector, trouble)))
			return migrated(t, db, db.Ping())
		}}, func(bool) {})
	})
	t.Run("MariaDB", func(t *testing.T) {
		m, trouble := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}), misbehave.New(seed, nil)
		misbehaving(t, seed, kind{dialect: "mysql", trouble: trouble, open: func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
			config, err := mysqldriver.ParseDSN(m.DSN(newMariaDB(t, m, file), ""))
			if err != nil {
				t.Fatal(err)
			}
			connector, err := mysqldriver.NewConnector(config)
			if err != nil {
				t.Fatal(err)
			}
			db := sql.OpenDB(pabalsql.Watch(misbehave.Connector(connector, trouble)))
			db.SetMaxOpenConns(16) // of each service
			db.SetMaxIdleConns(16)
			return migrated(t, db, db.Ping())
		}}, func(bool) {})
	})
	t.Run("Postgres", func(t *testing.T) {
		var proxies []*hostile.Commits
		misbehaving(t, seed, kind{dialect: "postgres", trouble: misbehave.New(seed, nil), open: func(t testing.TB, name string) (*sql.DB, driver.Store[*sql.Tx]) {
			return openPostgresOn(t, servers.SharedPostgres(), name, func(url string) string {
				p := hostile.StartCommits(t, url, seed, hostile.CommitRates{})
				proxies = append(proxies, p)
				return p.URL
			})
		}}, func(begin bool) {
			var rates hostile.CommitRates
			if begin {
				rates = hostile.CommitRates{Refused: 0.02, Lost: 0.02, Slow: 0.02, SlowMost: 300 * time.Millisecond}
			}
			for _, p := range proxies {
				if p.Set(rates); !begin {
					t.Logf("COMMITs on their way: %v", p.Done())
				}
			}
		})
	})
}

func misbehaving(t *testing.T, seed uint64, k kind, commits func(begin bool)) {
	t.Logf("seed %d: go test -run %s -misbehave.seed %d", seed, t.Name(), seed)
	defer func(was kind) { on = was }(on)
	on = k
	v := openVillage(t, t.TempDir(), "127.0.0.1:0")
	total := &shop.Traffic{}
	busy := func(d time.Duration) {
		seed++
		v.busy(t, total, shop.Load{For: d, Rate: 100, Seed: seed, Patience: 2 * time.Minute})
	}
	busy(200 * time.Millisecond) // the catalogue is to be there: a load waits for it only 10 s
	k.trouble.Set(everything())
	commits(true)
	for range 10 { // a machine may be slow
		busy(*misbehaveFor)
		if len(missing(k.trouble.Done())) == 0 && total.Paid >= 100 {
			break
		}
	}
	commits(false)
	k.trouble.Calm()
	done := k.trouble.Done()
	for _, fault := range slices.Sorted(maps.Keys(done)) {
		t.Logf("%-20s %d", fault, done[fault])
	}
	for _, fault := range missing(done) {
		t.Errorf("%s never happened", fault)
	}
	t.Logf("%d paid, %d requests repeated", total.Paid, total.Repeated)
	reconciled(t, v, total, *misbehaveWait)
	v.inOrder(t)
}

// busy makes traffic in the village, and adds it to what there was in all.
func (v *village) busy(t *testing.T, total *shop.Traffic, load shop.Load) {
	t.Helper()
	load.URL = v.server.URL
	traffic, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total.Placed += traffic.Placed
	total.Paid += traffic.Paid
	total.Cancelled += traffic.Cancelled
	total.Repeated += traffic.Repeated
	total.Complaints = append(total.Complaints, traffic.Complaints...)
}

// missing are the faults that have not come.
func missing(done map[string]int) []string {
	return slices.DeleteFunc(slices.Clone(faults), func(fault string) bool { return done[fault] > 0 })
}

// inOrder compares what product and member services have said last with what those who heard it keep.
func (v *village) inOrder(t *testing.T) {
	t.Helper()
	for _, told := range []struct{ from, to, says, keeps string }{
		{"product", "order", "select id, amount from product order by id", "select product_id, amount from price order by product_id"},
		{"member", "notification", "select id, email from member order by id", "select member_id, email from contact order by member_id"},
	} {
		says, keeps := pairs(t, v.stations[told.from].db, told.says), pairs(t, v.stations[told.to].db, told.keeps)
		if len(says) == 0 && told.from == "product" || !maps.Equal(says, keeps) { // few members change their profile
			t.Errorf("%s says of %d things %v, and %s keeps %v", told.from, len(says), says, told.to, keeps)
		}
	}
}

func pairs(t *testing.T, db *sql.DB, query string) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // its error is that of Err
	all := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			t.Fatal(err)
		}
		all[name] = value
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
