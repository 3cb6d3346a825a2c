package pabalsql

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// The procedure records as Record does: both take turns with one key, and neither can be told from the other.
func TestProcedureRecordsAsRecordDoes(t *testing.T) {
	db, s := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	ctx := t.Context()
	call := func(key any, payload string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.Exec("call pabal_record('paid', 'order-paid', ?, ?)", key, payload); err != nil {
			_ = tx.Rollback()
			return err
		}
		return tx.Commit()
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 5 {
				err := call("k-é", fmt.Sprintf(`{"from":"procedure %d/%d"}`, i, n))
				if i%2 == 0 {
					_, err = recorded(ctx, s, "paid", "k-é", "k-other")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r, err := s.Read(ctx, driver.Query{Events: &driver.EventFilter{Key: "k-é", Limit: 1000}})
	if err != nil || len(r.Events) != 60 {
		t.Fatalf("%d events, %v", len(r.Events), err)
	}
	for i := 1; i < len(r.Events); i++ {
		a, b := r.Events[i-1].Event, r.Events[i].Event
		if b.Position != a.Position+1 || b.Prev != a.Ref() {
			t.Errorf("%+v follows %+v", b, a)
		}
	}
	if err := call(nil, `{}`); err != nil {
		t.Error(err)
	}
	if _, err := s.Tend(ctx, driver.Chore{Restored: true}); err != nil {
		t.Fatal(err)
	}
	if err := call("k-é", `{"a":"é"}`); err != nil {
		t.Fatal(err)
	}
	r, err = s.Read(ctx, driver.Query{Events: &driver.EventFilter{Limit: 2, Descending: true}})
	if err != nil || len(r.Events) != 2 {
		t.Fatal(len(r.Events), err)
	}
	last, unordered := r.Events[0], r.Events[1]
	if e := unordered.Event; e.Key != "" || e.Position != 0 || !e.Prev.IsZero() {
		t.Errorf("an event without key is %+v", e)
	}
	e := last.Event
	if e.Position <= e.Prev.Position+1 || e.Prev.IsZero() || string(e.Payload) != `{"a":"é"}` || e.ContentType != "application/json" ||
		e.Type != "order-paid" || e.ID.Version() != 7 || e.ID.Variant().String() != "RFC4122" {
		t.Errorf("after a restore: %+v", e)
	}
	if p := last.Pending; p == nil || !p.DueAt.Equal(e.RecordedAt) || p.Claims != 0 || time.Since(e.RecordedAt).Abs() > time.Hour {
		t.Errorf("pending %+v of an event recorded at %v", p, e.RecordedAt)
	}
}

func TestProcedureRefusesWhatIsNoEvent(t *testing.T) {
	db, _ := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	for _, c := range []struct {
		call, says string
		outside    bool
	}{
		{"'paid', 'paid', 'k', '{}'", "not in a transaction", true},
		{"'pa id', 'paid', 'k', '{}'", "topic and type", false},
		{"'paid', '', 'k', '{}'", "topic and type", false},
		{"null, 'paid', 'k', '{}'", "topic and type", false},
		{"'paid\n', 'paid', 'k', '{}'", "topic and type", false},
		{"'paid', 'paid', 'k', '{'", "not JSON", false},
		{"'paid', 'paid', 'k', null", "not JSON", false},
		{"'paid', 'paid', repeat('é', 128), '{}'", "longer than 255 bytes", false},
		{"'paid', 'paid', repeat('k', 256), '{}'", "in_key", false},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.outside {
			must(t, tx, "commit")
		}
		if _, err := tx.Exec("call pabal_record(" + c.call + ")"); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("call(%s): %v", c.call, err)
		}
		_ = tx.Commit()
	}
	if events, pending := countRows(t, db); events+pending > 0 {
		t.Errorf("%d events and %d pending rows of what was refused", events, pending)
	}
	var counters int
	if err := db.QueryRow("select count(*) from pabal_counter").Scan(&counters); err != nil || counters > 0 {
		t.Errorf("%d counters, %v", counters, err)
	}
}

// A legacy program in another language records in its own transaction, and reads the view in the shape of the note.
func TestPythonRecordsAndReadsTheView(t *testing.T) {
	m := servers.KillableMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	db, s := openServer(t, m)
	must(t, db, "set global time_zone = '+09:00'") // nothing depends on the session's
	var name string
	if err := db.QueryRow("select database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	python := filepath.Join("..", ".tools", "pymysql", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("%v (scripts/install pymysql installs it)", err)
	}
	run := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "legacy.py"), m.URL(name))
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := s.Read(t.Context(), driver.Query{Events: &driver.EventFilter{Limit: 10}})
	if err != nil || len(r.Events) != 2 {
		t.Fatalf("%d events, %v", len(r.Events), err)
	}
	first, second := r.Events[0].Event, r.Events[1].Event
	if first.Key != "A-1" || second.Prev != first.Ref() || string(second.Payload) != `{"orderNo": "A-1", "won": "₩"}` {
		t.Errorf("recorded %+v, %+v", first, second)
	}
	if _, err := s.Confirm(t.Context(), []driver.Ref{first.Ref()}); err != nil {
		t.Fatal(err)
	}
	rows, err := db.QueryContext(t.Context(), `select event_id, orderNo, topic, message, published, coalesce(published_date, ''), created_date
		from pabal_event_record order by created_date`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	date := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$`)
	var seen []string
	for rows.Next() {
		var id, order, topic, message, published, publishedAt, created string
		if err := rows.Scan(&id, &order, &topic, &message, &published, &publishedAt, &created); err != nil {
			t.Fatal(err)
		}
		if want := first.RecordedAt.Format("2006-01-02 15:04:05.000000"); len(seen) == 0 && created != want {
			t.Errorf("created %s, not %s: UTC", created, want)
		}
		if !date.MatchString(created) || published == "Y" != date.MatchString(publishedAt) {
			t.Errorf("created %q, published %q", created, publishedAt)
		}
		seen = append(seen, strings.Join([]string{id, order, topic, message, published}, "|"))
	}
	want := []string{first.ID.String() + `|A-1|order-pay-done|{"orderNo": "A-1"}|Y`,
		second.ID.String() + `|A-1|order-pay-done|{"orderNo": "A-1", "won": "₩"}|N`}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("the view shows %q, not %q", seen, want)
	}
	if !strings.Contains(string(out), "seen ('A-1', 'order-pay-done', '{\"orderNo\": \"A-1\"}', 'N', None)") {
		t.Errorf("Python saw\n%s", out)
	}
}
