package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/doctor"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// troubled is a store that has settings, and may be away.
type troubled struct {
	driver.Store[*sim.Tx]
	away error
}

func (s *troubled) Audit(context.Context) ([]driver.Finding, error) {
	return []driver.Finding{{Severity: driver.Note, What: "a note", Mend: "none"}, {Promise: "P1", What: "fsync is off", Mend: "fsync = on"}}, s.away
}

func simulated(t testing.TB, source string) driver.Store[*sim.Tx] {
	w := world.Real()
	s := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)
	if err := s.Open(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	return s
}

// What is worst comes first; what cannot be looked at is said beside what the rest shows.
func TestReportSaysWhatWasFoundAndWhatWasNotSeen(t *testing.T) {
	w := world.Real()
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)
	order := simulated(t, "order")
	if _, err := order.Tend(t.Context(), driver.Chore{Register: &driver.Topic{Name: "paid"}}); err != nil {
		t.Fatal(err)
	}
	away := errors.New("connection refused")
	r := doctor.Examine(t.Context(), []doctor.Store{
		doctor.Of("order", driver.Store[*sim.Tx](&troubled{Store: order})),
		doctor.Of("member", driver.Store[*sim.Tx](&troubled{Store: simulated(t, "member"), away: away})),
	}, broker, nil)
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, fmt.Sprintf("%s: %v: %s", f.Where, f.Severity, f.What))
	}
	want := []string{"broker: broken: topic paid is missing", "broker: broken: queue event-record-order is missing",
		"broker: broken: subscription of queue event-record-order to topic paid is missing", "order: at risk: fsync is off", "order: note: a note"}
	if got := strings.Join(lines, "\n"); !equalSet(lines, want) || !strings.HasSuffix(got, strings.Join(want[3:], "\n")) {
		t.Errorf("found\n%s", got)
	}
	if len(r.Unseen) != 1 || r.Unseen[0] != (doctor.Unseen{Where: "member", Err: "audit: connection refused"}) || !r.Endangered() {
		t.Errorf("not seen: %+v, endangered %v", r.Unseen, r.Endangered())
	}
	// What the broker shall have may be said.
	r = doctor.Examine(t.Context(), nil, broker, &doctor.Options{Topology: &driver.Topology{Queues: []driver.QueueSpec{{Name: "audit"}}}})
	if len(r.Findings) != 1 || r.Findings[0].What != "queue audit is missing" {
		t.Errorf("found %+v", r.Findings)
	}
}

func equalSet(a, b []string) bool {
	have := map[string]bool{}
	for _, s := range a {
		have[s] = true
	}
	for _, s := range b {
		if !have[s] {
			return false
		}
	}
	return len(a) == len(b)
}

// A broker that holds messages for a moment only is noted.
func TestShortHoldIsNoted(t *testing.T) {
	w := world.Real()
	for hold, notes := range map[time.Duration]int{9 * time.Second: 1, 10 * time.Second: 0} {
		b := limited{sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct), hold}
		if r := doctor.Examine(t.Context(), nil, b, nil); len(r.Findings) != notes || r.Endangered() {
			t.Errorf("%v: found %+v", hold, r.Findings)
		}
	}
}

type limited struct {
	driver.Broker
	hold time.Duration
}

func (l limited) Limits() driver.Limits { return driver.Limits{Hold: l.hold} }

func ExampleExamine() {
	w := world.Real()
	store := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct) // or of pabalpgx.New, pabalsql.New
	r := doctor.Examine(context.Background(), []doctor.Store{doctor.Of("order", store)}, nil, nil)
	for _, f := range r.Findings {
		fmt.Printf("%s: %v: %s\n", f.Where, f.Severity, f.What)
	}
	fmt.Println(r.Endangered(), r.Unseen)
	// Output:
	// order: note: the store has no source yet: no client has opened it
	// false []
}
