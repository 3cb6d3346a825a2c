package pabal

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

func testPublisher(t *testing.T, o Options) *publisher {
	t.Helper()
	filled, err := o.fill(driver.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return newPublisher(&house{
		w: world.Real(), o: filled, log: slog.New(slog.DiscardHandler), topics: map[string]*topic{}, accepted: map[uuid.UUID]int{},
	})
}

func (p *publisher) accept(batch []entry) {
	p.note("paid", batch, slices.Repeat([]driver.Verdict{{Kind: driver.Accepted}}, len(batch)))
}

func entriesOf(n, claims int) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{event: driver.Event{ID: uuid.New(), Topic: "paid"}, claims: claims, leaseEnd: world.Mono(time.Hour)}
	}
	return entries
}

// An acceptance is written only while it says more than the table does.
func TestAcceptanceOfWhatCameBackIsNotWritten(t *testing.T) {
	p := testPublisher(t, Options{})
	events := entriesOf(4, 0)
	p.accept(events)
	p.came(events[1].event.ID)
	again := events[2]
	again.claims = 1
	p.accept([]entry{again}) // claimed once more, and accepted once more
	p.drained = true         // all are ripe
	batch, _, done := p.ripe(t.Context())
	var got []driver.Settlement
	for _, s := range batch {
		got = append(got, driver.Settlement{ID: s.ID, Claims: s.Claims, Accepted: s.Accepted})
	}
	want := []driver.Settlement{
		{ID: events[0].event.ID, Accepted: true}, {ID: events[3].event.ID, Accepted: true}, {ID: again.event.ID, Claims: 1, Accepted: true},
	}
	if !slices.Equal(got, want) || done {
		t.Errorf("written: %+v, want %+v", got, want)
	}
	if batch, _, done = p.ripe(t.Context()); len(batch) > 0 || !done || len(p.accepted) > 0 {
		t.Errorf("then %d more, %d remembered", len(batch), len(p.accepted))
	}
}

// What is forgotten beyond the bound is forgotten whole.
func TestAcceptancesAreBounded(t *testing.T) {
	p := testPublisher(t, Options{})
	for range settleMax/1000 + 5 {
		p.accept(entriesOf(1000, 0))
	}
	if len(p.acceptances) != settleMax || len(p.accepted) != settleMax {
		t.Errorf("%d acceptances, %d remembered, at most %d", len(p.acceptances), len(p.accepted), settleMax)
	}
}

func TestEventsWithoutKeyFillALaneUnderLoadOnly(t *testing.T) {
	for _, c := range []struct {
		every time.Duration // an event comes
		want  []int         // in each lane
	}{
		{2 * time.Millisecond, []int{150, 150}}, // what is in flight delays nobody
		{100 * time.Microsecond, []int{256, 44}},
	} {
		p := testPublisher(t, Options{Lanes: 2})
		p.begin()
		at := world.Mono(time.Second)
		for range 10 {
			p.offered.add(1, at)
			at = at.Add(c.every)
		}
		for _, e := range entriesOf(300, 0) {
			p.next++
			l := p.lanes[p.laneOf(&e.event)]
			l.entries = append(l.entries, e)
		}
		if got := []int{len(p.lanes[0].entries), len(p.lanes[1].entries)}; !slices.Equal(got, c.want) {
			t.Errorf("one each %v: lanes hold %v, want %v", c.every, got, c.want)
		}
	}
}
