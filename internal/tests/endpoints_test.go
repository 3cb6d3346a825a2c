package tests

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/pabal-go/pabal/internal/servers"
)

// relay is a process of `pabal relay` with endpoints.
type relay struct {
	t       *testing.T
	args    []string
	address string
	command *exec.Cmd
	said    speech
}

func openRelay(t *testing.T, binary, db, broker string) *relay {
	r := &relay{t: t, address: freeAddress(t)}
	r.args = []string{binary, "relay", "--db", db, "--broker", broker, "--source", "order", "--http", r.address}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *relay) start() {
	r.t.Helper()
	r.command = exec.Command(r.args[0], r.args[1:]...)
	r.command.Stdout, r.command.Stderr = &r.said, &r.said
	if err := r.command.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends it as a deployment does, and waits until it has drained.
func (r *relay) stop() {
	if r.command == nil {
		return
	}
	_ = r.command.Process.Signal(syscall.SIGTERM)
	err := r.command.Wait()
	if r.command = nil; err != nil {
		r.t.Errorf("relay: %v; it said\n%s", err, &r.said)
	}
}

// get asks an endpoint; 0: nobody answers.
func (r *relay) get(path string) (status int, body string) {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + r.address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

// lives waits until it answers at all.
func (r *relay) lives() {
	r.t.Helper()
	until(r.t, "/livez answers", func() bool {
		status, _ := r.get("/livez")
		return status == http.StatusOK
	})
}

// becomes waits for what /readyz tells. The process lives all the while.
func (r *relay) becomes(status int, begins string) (body string) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("/readyz answers %d %q", status, begins), func() bool {
		if alive, said := r.get("/livez"); alive != http.StatusOK && r.command != nil && status != http.StatusOK {
			r.t.Errorf("/livez answers %d %q", alive, said)
		}
		got, said := r.get("/readyz")
		body = said
		return got == status && strings.HasPrefix(said, begins)
	})
	return body
}

// TestReadinessTellsTheTruth: a relay that cannot reach its broker, or its database, is alive and not ready, and says which of them
// it is; once they answer it is ready.
func TestReadinessTellsTheTruth(t *testing.T) {
	broker := servers.NATS(t, nil)
	database := servers.Postgres(t, "log_min_messages=fatal")
	binary := buildBinary(t)
	(&ward{t: t, binary: binary}).pabal("migrate", "--db", database.URL)
	r := openRelay(t, binary, database.URL, broker.URL)
	r.becomes(http.StatusOK, "ready\n")
	broker.Kill()
	if body := r.becomes(http.StatusServiceUnavailable, "not ready\norder: broker: not connected to NATS: "); strings.Contains(body, "database") {
		t.Errorf("the database answers, and /readyz says %q", body)
	}
	broker.Start()
	r.becomes(http.StatusOK, "ready\n")
	database.Kill()
	if body := r.becomes(http.StatusServiceUnavailable, "not ready\norder: database: "); strings.Contains(body, "broker") {
		t.Errorf("the broker answers, and /readyz says %q", body)
	}
	database.Start()
	r.becomes(http.StatusOK, "ready\n")
}

// TestRelayWaitsForADatabaseThatIsAwayAtItsStart: alive and not ready, until it answers; what it answers instead ends the relay.
func TestRelayWaitsForADatabaseThatIsAwayAtItsStart(t *testing.T) {
	broker := servers.NATS(t, nil)
	database := servers.Postgres(t, "log_min_messages=fatal")
	binary := buildBinary(t)
	r := openRelay(t, binary, strings.Replace(database.URL, "/postgres?", "/nobody?", 1), broker.URL)
	if err := r.command.Wait(); err == nil || !strings.Contains(r.said.String(), `database "nobody" does not exist`) {
		t.Errorf("%v; it said\n%s", err, &r.said)
	}
	r.command = nil
	(&ward{t: t, binary: binary}).pabal("migrate", "--db", database.URL)
	database.Kill()
	r = openRelay(t, binary, database.URL, broker.URL)
	r.lives()
	r.becomes(http.StatusServiceUnavailable, "not ready\norder: database: ")
	r.stop() // as a deployment that is taken back: no failure
	r.start()
	r.lives()
	r.becomes(http.StatusServiceUnavailable, "not ready\norder: database: ")
	database.Start()
	r.becomes(http.StatusOK, "ready\n")
	if said := r.said.String(); !strings.Contains(said, "database is away, trying again") {
		t.Errorf("it said\n%s", said)
	}
}

// TestShopWaitsForDatabasesThatAreAwayAtItsStart: each of its services for its own, on MariaDB.
func TestShopWaitsForDatabasesThatAreAwayAtItsStart(t *testing.T) {
	broker := servers.NATS(t, nil)
	database := servers.KillableMariaDB(t, nil)
	database.Admin(t, "create database shop_order")
	database.Admin(t, "create database shop_settlement")
	database.Kill()
	r := &relay{t: t, address: freeAddress(t)}
	r.args = []string{buildBinary(t), "shop", "--db", database.URL("shop_{role}"), "--broker", broker.URL, "--data", t.TempDir(),
		"--listen", "127.0.0.1:0", "--http", r.address, "order", "settlement"}
	r.start()
	t.Cleanup(r.stop)
	r.lives()
	r.becomes(http.StatusServiceUnavailable, "not ready\norder: database: ")
	database.Start()
	r.becomes(http.StatusOK, "ready\n")
}

// Bounds of a rolling restart, on a machine that is busy with other tests.
const (
	rollingRestarts = 6
	rollingGap      = 5 * time.Second // between one event's arrival at the broker and the next one's
	rollingLatency  = 8 * time.Second // from an event's recording to its confirmation: below a lease
	rollingRepeats  = 1.05            // publishes per event
)

// TestRollingRestartOfTwoRelaysLeavesNoGapAndMakesNoWave: two relays publish for a program in another language; one after the
// other is replaced, as a deployment does, several times. All the while events go out; none waits for a lease; hardly any is
// published twice.
func TestRollingRestartOfTwoRelaysLeavesNoGapAndMakesNoWave(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts real processes")
	}
	broker := servers.NATS(t, nil)
	database := servers.Postgres(t, "log_min_messages=warning").URL
	binary := buildBinary(t)
	(&ward{t: t, binary: binary}).pabal("migrate", "--db", database)
	relays := []*relay{openRelay(t, binary, database, broker.URL), openRelay(t, binary, database, broker.URL)}
	for _, r := range relays {
		r.becomes(http.StatusOK, "ready\n")
	}
	arrivals := listen(t, broker.URL, "pabal.topic.paid")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var recording sync.WaitGroup
	recorded := 0
	recording.Go(func() { recorded = recordUntil(ctx, t, database) })
	start := time.Now()
	for i := range rollingRestarts {
		pause(ctx, time.Second)
		r := relays[i%2]
		r.stop()
		r.start()
		r.becomes(http.StatusOK, "ready\n")
	}
	pause(ctx, time.Second)
	took := time.Since(start)
	stop()
	recording.Wait()
	pending := func() string {
		return query(t, database, "select count(*)::text from pabal_pending")[0]
	}
	until(t, "every event is confirmed", func() bool { return pending() == "0" })

	moments := arrivals()
	longest := time.Duration(0)
	for i := 1; i < len(moments); i++ {
		longest = max(longest, moments[i].Sub(moments[i-1]))
	}
	worst, err := time.ParseDuration(query(t, database, "select extract(epoch from max(published_at - recorded_at))::text || 's' from pabal_published")[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events in %v with %d restarts: %d publishes, longest gap %v, slowest confirmation %v", recorded,
		took.Round(time.Millisecond), rollingRestarts, len(moments), longest.Round(time.Millisecond), worst.Round(time.Millisecond))
	if recorded < 100 || len(moments) < recorded {
		t.Errorf("%d events were recorded, %d arrived", recorded, len(moments))
	}
	if most := rollingRepeats * float64(recorded); float64(len(moments)) > most {
		t.Errorf("P3: %d publishes of %d events, at most %.0f", len(moments), recorded, most)
	}
	if longest > rollingGap {
		t.Errorf("nothing was published for %v", longest)
	}
	if worst > rollingLatency {
		t.Errorf("an event was confirmed after %v: it waited for a lease", worst)
	}
}

// recordUntil records events, so many at a time that there are always some on their way, until ctx ends.
func recordUntil(ctx context.Context, t *testing.T, url string) (n int) {
	const burst = 25
	whole := context.WithoutCancel(ctx)
	db, err := pgx.Connect(whole, url)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer db.Close(whole) //nolint:errcheck // nothing is open
	for ; ctx.Err() == nil; n += burst {
		_, err := db.Exec(whole, `select pabal_record('paid', 'order-paid', 'o-' || n % 100, json_build_object('n', n))
			from generate_series($1::int, $2::int) n`, n, n+burst-1)
		if err != nil {
			t.Error(err)
			return n
		}
		pause(ctx, 10*time.Millisecond)
	}
	return n
}

// listen notes when a message is published to a subject, whatever the broker does with it.
func listen(t *testing.T, url, subject string) func() []time.Time {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	var mu sync.Mutex
	var moments []time.Time
	_, err = conn.Subscribe(subject, func(*nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		moments = append(moments, time.Now())
	})
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(moments)
	}
}
