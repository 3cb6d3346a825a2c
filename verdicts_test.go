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
