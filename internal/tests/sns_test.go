package tests

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
	"github.com/pabal-go/pabal/pabalsql"
)

var (
	snsEvents = flag.Int("sns.events", 2000, "events through SNS and SQS behind a hostile proxy; 20000, the full run, take 3 min on two cores")
	snsSeed   = flag.Uint64("sns.seed", 0, "seed of the hostile proxy; 0: another one each time")
)

// An event fails with a probability of some 0.14 each time, and is tried again after 10, 20, 40, 80 s and then snsRepublish. Nine failures in
// a row, 12.5 minutes, happen to one of 20,000 events in some 2,000 runs.
const (
	snsRepublish = 2 * time.Minute // the least that pabal.Options takes
	snsPatience  = 15 * time.Minute
)

// tick is an event of a key; N counts within the key.
type tick struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

var ticked = pabal.Define("ticked", pabal.Key(func(t tick) string { return t.Key }))

const tickKeys = 100

// TestHostileSNSLosesNothingAndDoublesNothing sends events through SNS to three queues while, at 3 % each, answers get lost, calls
// are refused, throttled, done twice, unanswered or half-heard, and 10 % of the batches fail in part: every event is
// confirmed, has one effect in each consumer, in the order of its key.
func TestHostileSNSLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel() // it waits for most of its time
	seed := *snsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	n := *snsEvents
	t.Logf("seed %d: go test -run %s -sns.events %d -sns.seed %d", seed, t.Name(), n, seed)
	rates := hostile.Each(0.03, 0.10)
	rates.SenderFault = 0.05
	proxy := hostile.Start(t, servers.Fauxqs(t, false).URL, seed, rates)
	broker := openSNS(t, proxy.URL)
	start := time.Now()
	o := pabal.Options{Lanes: 8, RepublishAfter: snsRepublish}
	order := snsService(t, broker, "order", false, o)
	consumers := []*snsProcess{snsService(t, broker, "settlement", true, o), snsService(t, broker, "notification", true, o)}
	for _, s := range append(consumers, order) {
		if err := s.client.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	recordTicks(t, order, 0, n)
	recorded := time.Since(start)
	settled(t, order, consumers, n)
	t.Logf("%d events recorded after %v, settled after %v; calls %v; faults %v", n, recorded.Round(time.Millisecond),
		time.Since(start).Round(time.Millisecond), proxy.Calls(), proxy.Done())
	for _, s := range consumers {
		checkTicks(t, s, n)
	}
}

func awsConfiguration(url string) aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")}
}

func openSNS(t *testing.T, url string) *pabalsns.Broker {
	t.Helper()
	broker, err := pabalsns.Open(awsConfiguration(url), &pabalsns.Options{Hold: 6 * time.Second, Wait: 2 * time.Second, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	return broker
}

// snsProcess is a service with a database of its own.
type snsProcess struct {
	name   string
	db     *sql.DB
	client *pabal.Client[*sql.Tx]
}

func snsService(t *testing.T, broker driver.Broker, name string, consumes bool, o pabal.Options) *snsProcess {
	t.Helper()
	s := &snsProcess{name: name}
	var err error
	if s.db, err = pabalsql.OpenSQLite(filepath.Join(t.TempDir(), name+".db"), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	if _, err = pabalsql.Migrate(t.Context(), s.db, nil); err != nil {
		t.Fatal(err)
	}
	if _, err = s.db.ExecContext(t.Context(), "create table effect (id integer primary key, key text not null, n integer not null)"); err != nil {
		t.Fatal(err)
	}
	store, err := pabalsql.New(s.db, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Logger = quiet()
	if s.client, err = pabal.New(t.Context(), store, broker, name, &o); err != nil {
		t.Fatal(err)
	}
	if consumes {
		c := s.client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 1})
		pabal.HandleBatch(c, ticked, func(ctx context.Context, tx *sql.Tx, events []pabal.Received[tick]) error {
			for _, e := range events {
				if _, err := tx.ExecContext(ctx, "insert into effect (key, n) values (?, ?)", e.Data.Key, e.Data.N); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.client.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return s
}

// recordTicks records the events from one number up to another.
func recordTicks(t *testing.T, s *snsProcess, from, n int) {
	t.Helper()
	const batch = 20
	for ; from < n; from += batch {
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var events []pabal.Event
		for i := from; i < min(from+batch, n); i++ {
			events = append(events, ticked.New(tick{fmt.Sprintf("키 %d", i%tickKeys), i / tickKeys}))
		}
		if err := s.client.Record(t.Context(), tx, events...); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// settled waits until everything is confirmed and handled. Meanwhile it does what operators do: what was refused as the
// sender's fault is parked, and it has that tried again.
func settled(t *testing.T, order *snsProcess, consumers []*snsProcess, n int) {
	t.Helper()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for deadline := time.Now().Add(snsPatience); ; <-ticker.C {
		parked, err := order.client.Events(t.Context(), driver.EventFilter{State: driver.ParkedOnly, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var ids []uuid.UUID
		for _, e := range parked {
			ids = append(ids, e.Event.ID)
		}
		if len(ids) > 0 {
			if _, err := order.client.Retry(t.Context(), ids...); err != nil {
				t.Fatal(err)
			}
		}
		unconfirmed, err := order.client.Events(t.Context(), driver.EventFilter{State: driver.Unconfirmed, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		done := len(unconfirmed) == 0
		counts := fmt.Sprintf("%d unconfirmed", len(unconfirmed))
		for _, s := range consumers {
			var effects int
			if err := s.db.QueryRowContext(t.Context(), "select count(*) from effect").Scan(&effects); err != nil {
				t.Fatal(err)
			}
			counts += fmt.Sprintf(", %d in %s", effects, s.name)
			done = done && effects >= n
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			for _, e := range unconfirmed {
				t.Logf("%s of %s: %+v", e.Event.ID, e.Event.Key, *e.Pending)
			}
			for _, s := range consumers {
				explain(t, s)
			}
			t.Fatalf("of %d events: %s", n, counts)
		}
	}
}

// explain logs what a consumer waits for.
func explain(t *testing.T, s *snsProcess) {
	t.Helper()
	rows, err := s.client.Received(t.Context(), s.name, driver.RowFilter{Limit: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%s: %s of %s at %d after %d: %s, %q, next at %v, %d failures, %d starts, %s", s.name, r.ID, r.Key, r.Position,
			r.Prev.Position, r.State, r.Reason, r.NextAt, r.Failures, r.Started, r.LastError)
	}
}

// checkTicks compares what a consumer did with what was recorded: all, once, in order.
func checkTicks(t *testing.T, s *snsProcess, n int) {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), "select key, n from effect order by id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read to its end
	next, total := map[string]int{}, 0
	for rows.Next() {
		var e tick
		if err := rows.Scan(&e.Key, &e.N); err != nil {
			t.Fatal(err)
		}
		if e.N != next[e.Key] {
			t.Errorf("%s: event %d of %s came when %d was due", s.name, e.N, e.Key, next[e.Key])
		}
		next[e.Key] = e.N + 1
		total++
	}
	if err := rows.Err(); err != nil || total != n {
		t.Errorf("%s: %d effects of %d events, %v", s.name, total, n, err)
	}
}
