package tests

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/internal/servers"
)

// recordInPython is a program of another language, with its own transactions: argv is the URL, a topic, a key or nothing, a number, and
// how the transaction ends.
const recordInPython = `
import json, sys, psycopg
url, topic, key, n, end = sys.argv[1:]
with psycopg.connect(url) as c:
    c.execute("insert into orders values (%s)", (int(n),))
    c.execute("select pabal_record(%s, 'order-paid', %s, %s, %s)",
        (topic, key or None, json.dumps({"n": int(n)}), json.dumps({"by": "python"})))
    c.commit() if end == "commit" else c.rollback()
`

// TestRelayPublishesWhatPythonRecords: no program of ours runs but ` + "`pabal relay`" + `; Python's psycopg records with one statement in a
// transaction of its own, and the event comes back from the broker within a second of its commit.
func TestRelayPublishesWhatPythonRecords(t *testing.T) {
	python := filepath.Join("..", "..", ".tools", "psycopg", "bin", "python3")
	binary := buildBinary(t)
	url := servers.Postgres(t, "log_min_messages=warning").URL // its own: the relay is by itself
	pabal := func(args ...string) {
		if out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
			t.Fatalf("pabal %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	pabal("migrate", "--db", url)
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context()) //nolint:errcheck // the server ends with the test
	if _, err := db.Exec(t.Context(), "create table orders (n integer primary key)"); err != nil {
		t.Fatal(err)
	}
	startRelay(t, binary, url)
	record := func(topic, key string, n int, end string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), python, "-c", recordInPython, url, topic, key, fmt.Sprint(n), end).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: is psycopg installed (scripts/install psycopg)?\n%s", err, out)
		}
	}
	count := func(query string) (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var waits []time.Duration
	for n, c := range []struct{ topic, key, end string }{
		{"order-paid", "A-1", "commit"}, {"order-viewed", "", "commit"}, {"order-paid", "A-1", "rollback"}, {"order-paid", "A-1", "commit"},
		{"order-viewed", "", "commit"}, {"order-viewed", "", "commit"}, {"order-viewed", "", "commit"}, {"order-viewed", "", "commit"},
	} {
		record(c.topic, c.key, n, c.end)
		start := time.Now() // psycopg had its answer before
		for count("select count(*) from pabal_event_record where published = 'N'") > 0 {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("event %d is not published", n)
			}
			time.Sleep(5 * time.Millisecond)
		}
		took := time.Since(start)
		t.Logf("event %d came back %v after its program had ended", n, took)
		if n > 1 && c.end == "commit" { // the first of each topic waits for the relay to make it
			waits = append(waits, took)
		}
	}
	if slices.Sort(waits); waits[len(waits)/2] > time.Second { // half of them: the machine may be busy
		t.Errorf("events came back only %v after their commits", waits)
	}
	if n := count("select count(*) from pabal_event"); n != 7 || count("select count(*) from orders") != 7 {
		t.Errorf("%d events are there, of 7 transactions that committed", n)
	}
	if n := count(`select count(*) from pabal_event e join pabal_event p on p.id = e.prev_id
		where e.key = 'A-1' and e.position = p.position + 1`); n != 1 {
		t.Errorf("%d events follow another of the key without a gap, want 1", n)
	}
	if n := count("select count(*) from pabal_event where topic = 'order-viewed' and position = 0 and prev_id is null"); n != 5 {
		t.Errorf("%d events without key have no place, want 5", n)
	}
}

func startRelay(t *testing.T, binary, url string) {
	t.Helper()
	relay := exec.Command(binary, "relay", "--db", url, "--source", "order", "--broker", "embedded:"+filepath.Join(t.TempDir(), "nats"))
	var said bytes.Buffer
	relay.Stdout, relay.Stderr = &said, &said
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = relay.Process.Signal(syscall.SIGTERM)
		if err := relay.Wait(); err != nil {
			t.Errorf("relay: %v; it said\n%s", err, &said)
		}
	})
}
