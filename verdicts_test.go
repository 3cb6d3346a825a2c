package pabal

import (
	"context"
	"fmt"
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

func entriesOf(n int) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{event: driver.Event{ID: uuid.New(), Topic: "paid"}, leaseEnd: world.Mono(time.Hour)}
	}
	return entries
}

// An acceptance is written only while it says more than the table does.
func TestAcceptanceOfWhatCameBackIsNotWritten(t *testing.T) {
	p := testPublisher(t, Options{})
	events := entriesOf(4)
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
		p.accept(entriesOf(1000))
	}
	if len(p.acceptances) != settleMax || len(p.accepted) != settleMax {
		t.Errorf("%d acceptances, %d remembered, at most %d", len(p.acceptances), len(p.accepted), settleMax)
	}
}

// load has events be offered, one each so long.
func (p *publisher) load(every time.Duration) {
	at := world.Mono(time.Second)
	for range 10 {
		p.offered.add(1, at)
		at = at.Add(every)
	}
}

// enqueue puts an entry into its lane, and says which it is.
func (p *publisher) enqueue(e entry) int {
	i := p.laneOf(&e.event)
	p.lanes[i].put(e)
	return i
}

func TestEventsFillALaneUnderLoadOnly(t *testing.T) {
	for _, c := range []struct {
		every time.Duration // an event comes
		least int           // in the second lane
		most  int
	}{
		{2 * time.Millisecond, 100, 200}, // what is in flight delays nobody
		{100 * time.Microsecond, 44, 44},
	} {
		for _, keyed := range []bool{false, true} {
			p := testPublisher(t, Options{Lanes: 2})
			p.begin()
			p.load(c.every)
			for n, e := range entriesOf(300) {
				if p.next++; keyed {
					e.event.Key = fmt.Sprint(n)
				}
				p.enqueue(e)
			}
			if n := len(p.lanes[1].queue); n < c.least || n > c.most || len(p.lanes[0].queue) != 300-n {
				t.Errorf("one each %v, with keys %v: lanes hold %d and %d", c.every, keyed, len(p.lanes[0].queue), n)
			}
		}
	}
}

// Where batches fill the first lane, events of a key that is on its way in another still go there, and no longer.
func TestEventsOfAKeyShareALaneWhileTheyAreOnTheirWay(t *testing.T) {
	p := testPublisher(t, Options{Lanes: 2})
	p.begin()
	next := func() entry {
		e := entriesOf(1)[0]
		e.event.Key = "A1"
		return e
	}
	if got := p.enqueue(next()); got != 1 {
		t.Fatalf("the key's lane is %d: another key is needed", got)
	}
	p.load(100 * time.Microsecond)
	queued := p.enqueue(next())
	batch, _ := p.take(t.Context(), p.lanes[1])
	inFlight := p.enqueue(next())
	if queued != 1 || inFlight != 1 {
		t.Errorf("lane %d while one is queued, %d while it is in a call", queued, inFlight)
	}
	p.accept(batch)
	last, _ := p.take(t.Context(), p.lanes[1])
	p.accept(last)
	if got := p.enqueue(next()); got != 0 {
		t.Errorf("lane %d when nothing of the key is on its way", got)
	}
	if len(batch) != 2 || len(last) != 1 || len(p.stays) != 1 {
		t.Errorf("calls of %d and %d events, %d keys stay", len(batch), len(last), len(p.stays))
	}
}

// What may not be sent any more leaves as well.
func TestWhatIsGivenBackLeavesItsLane(t *testing.T) {
	p := testPublisher(t, Options{Lanes: 2})
	p.begin()
	batch := entriesOf(3)
	for i := range batch {
		batch[i].event.Key = "A1"
		p.enqueue(batch[i])
	}
	batch[1].leaseEnd = 0
	if sendable := p.sendable(batch, "paid"); len(sendable) != 2 || p.stays[spread("paid", "A1")].n != 2 {
		t.Errorf("%d may be sent, %+v stay", len(sendable), p.stays)
	}
	gone, end := context.WithCancel(t.Context())
	end()
	p.lanes[1].queue = p.lanes[1].queue[:2]
	if p.take(gone, p.lanes[1]); len(p.stays) > 0 {
		t.Errorf("at the end %+v stay", p.stays)
	}
}
