package tests

import (
	"database/sql"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// TestRelayPublishesWhatTheProcedureRecords: no program of ours runs but `pabal relay`; a legacy program records with one
// statement, and its event comes back from the broker within about a second.
func TestRelayPublishesWhatTheProcedureRecords(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	binary := buildBinary(t)
	dsn := m.Database(t, "")
	db, err := sql.Open("mysql", dsn) // unwatched, as a legacy program's
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var name string
	if err := db.QueryRow("select database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	pabal := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("pabal %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	printed := pabal("migrate", "--print", "--db", "mysql:")
	if script, err := pabalsql.Script("mysql", nil); err != nil || printed != script {
		t.Errorf("--print prints %q, %v", printed, err)
	}
	if said := pabal("migrate", "--db", m.URL(name)); said != "created the tables, version 1\n" {
		t.Errorf("migrate says %q", said)
	}
	if said := pabal("migrate", "--db", strings.Replace(m.URL(name), "mysql:", "mariadb:", 1)); !strings.HasPrefix(said, "nothing to do") {
		t.Errorf("migrate says %q", said)
	}

	startRelay(t, binary, m.URL(name))
	for n := range 3 {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("call pabal_record('order-pay-done', 'order-pay-done', 'A-1', json_object('n', ?))", n); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		took := published(t, db, n+1)
		t.Logf("event %d came back %v after it was recorded", n, took)
		if n > 0 && took > 2*time.Second { // the first waits for the relay's start
			t.Errorf("event %d came back only %v after it was recorded", n, took)
		}
	}
}

// published waits until n events are published and says how long the last took.
func published(t *testing.T, db *sql.DB, n int) time.Duration {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(30 * time.Second); ; {
		var count int
		var micros sql.NullInt64
		err := db.QueryRow(`select count(*), max(timestampdiff(microsecond, created_date, published_date) * (created_date =
			(select max(created_date) from pabal_event_record))) from pabal_event_record where published = 'Y'`).Scan(&count, &micros)
		if err != nil {
			t.Fatal(err)
		}
		if count == n {
			return time.Duration(micros.Int64) * time.Microsecond
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%d of %d events are published", count, n)
		}
	}
}
