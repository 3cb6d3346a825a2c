package pabal

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

func TestRedeliveredEventsAreSpreadEvenly(t *testing.T) {
	at := world.Mono(0)
	due := newRation(250, driver.Limits{}, at)
	expect := func(what string, want int) {
		t.Helper()
		n, wait := due.now(at)
		if n != want || (n == 0) != (wait > 0) {
			t.Errorf("%s: %d and %v, expected %d", what, n, wait, want)
		}
		due.sent += n
	}
	expect("the first", 1)
	expect("the second, at once", 0)
	at = at.Add(4 * time.Millisecond)
	expect("the second, in time", 1)
	at = at.Add(40 * time.Millisecond)
	expect("after a slow call", 10)
	at = at.Add(time.Minute)
	expect("after a pause", 25)
	expect("right after", 0)
	at = at.Add(4 * time.Millisecond)
	expect("then", 1)
	for range 1000 {
		_, wait := due.now(at)
		at = at.Add(wait)
		expect("in a row", 1)
	}
	if most := 4100 * time.Millisecond; at.Sub(due.from) > most {
		t.Errorf("1,000 more took %v", at.Sub(due.from))
	}
}

func TestRedeliveredEventsFillCallsWhereCallsAreCounted(t *testing.T) {
	at := world.Mono(0)
	due := newRation(250, driver.Limits{Batch: 10}, at)
	for n := range 100 {
		got, _ := due.now(at)
		if got != 10 {
			t.Fatalf("call %d is of %d events", n, got)
		}
		due.sent += got
		got, wait := due.now(at)
		if got != 0 || wait < 39*time.Millisecond || wait > 41*time.Millisecond {
			t.Fatalf("after call %d: %d and %v, expected 40 ms", n, got, wait)
		}
		at = at.Add(wait)
	}
}

// reading is a store to which a client's end comes while a page is read.
type reading struct {
	ledger
	stop   func()
	leases []time.Duration // of the job, as it was saved
}

func (r *reading) Tend(_ context.Context, c driver.Chore) (int, error) {
	r.leases = append(r.leases, c.Job.Lease)
	return 1, nil
}

func (r *reading) Read(ctx context.Context, _ driver.Query) (driver.Reading, error) {
	r.stop()
	return driver.Reading{}, ctx.Err()
}

func TestRedeliveryIsHandedOverThoughAPageWasBeingRead(t *testing.T) {
	p := testPublisher(t, Options{})
	ctx, stop := context.WithCancel(t.Context())
	s := &reading{stop: stop}
	p.house.store = s
	_ = (&redeliverer{house: p.house, publisher: p}).work(ctx, driver.Job{Spec: Redelivery{Topic: "paid", Rate: 1}.encode()})
	if len(s.leases) != 2 || s.leases[1] != 0 {
		t.Errorf("saved for %v", s.leases)
	}
}

// sent is a store whose events are all sent; of the job's end it answers as it is told.
type sent struct {
	ledger
	mine int
	err  error
}

func (s sent) Tend(_ context.Context, c driver.Chore) (int, error) {
	if c.Job.Finished {
		return s.mine, s.err
	}
	return 1, nil
}

func (sent) Read(context.Context, driver.Query) (driver.Reading, error) { return driver.Reading{}, nil }

func TestRedeliveryIsDoneOnceThatIsSaved(t *testing.T) {
	away := errors.New("database is away")
	for _, c := range []struct {
		sent
		want bool
	}{{sent{mine: 1}, true}, {sent{err: away}, false}, {sent{}, false}} {
		var said bytes.Buffer
		p := testPublisher(t, Options{})
		p.house.store, p.house.log = c.sent, slog.New(slog.NewTextHandler(&said, nil))
		err := (&redeliverer{house: p.house, publisher: p}).work(t.Context(), driver.Job{Spec: Redelivery{Topic: "paid", Rate: 1}.encode()})
		if !errors.Is(err, c.err) || strings.Contains(said.String(), "redelivery is done") != c.want {
			t.Errorf("saved %d, %v: %v, and it said %q", c.mine, c.err, err, &said)
		}
	}
}
