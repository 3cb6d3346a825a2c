package pabal_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestConfirmedOnceThenRepeated(t *testing.T) {
	p := newProtocol(t)
	bodies := p.intercept(pay("A1", 1))
	published := p.events()[0].Event.PublishedAt
	if published.IsZero() || p.events()[0].Pending != nil {
		t.Fatalf("not confirmed: %+v", p.events()[0])
	}
	p.Pass(time.Minute)
	p.Send(recordQueue, bodies[0])
	p.Settle(time.Second)
	p.expectCount("confirm confirmed", 1)
	p.expectCount("confirm repeated", 1)
	if again := p.events()[0].Event.PublishedAt; !again.Equal(published) {
		t.Errorf("published_at moved from %v to %v", published, again)
	}
}

func TestOnlyTheConfirmerSaysPublished(t *testing.T) {
	p := newProtocol(t)
	p.Pass(time.Second)
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	p.Unsubscribe(recordQueue, OrderPaid.Topic())
	p.record(pay("A1", 2))
	p.Pass(time.Minute)
	e := p.events()[1]
	if !e.Event.PublishedAt.IsZero() || e.Pending == nil || e.Pending.AcceptedAt.IsZero() {
		t.Errorf("accepted, and not come back: %+v", e)
	}
	if said := p.troubles(p.order); !strings.Contains(said, "is late") {
		p.Pass(time.Minute)
		if said = p.troubles(p.order); !strings.Contains(said, "was accepted by the broker and has not come back") {
			t.Errorf("P6: status says %q", said)
		}
	}
}

func TestParkedEventsAreConfirmedToo(t *testing.T) {
	p := newProtocol(t)
	bodies := p.intercept(pay("A1", 1))
	p.AnswerNext(pabaltest.Never)
	p.record(pay("A1", 2))
	p.Settle(time.Second)
	parked := p.events()[1]
	if parked.Pending == nil || !parked.Pending.Parked() {
		t.Fatalf("not parked: %+v", parked)
	}
	p.Send(recordQueue, edited(t, bodies[0], map[string]any{"id": parked.Event.ID, "time": parked.Event.RecordedAt}))
	p.Settle(time.Second)
	if e := p.events()[1]; e.Pending != nil || e.Event.PublishedAt.IsZero() {
		t.Errorf("not confirmed: %+v", e)
	}
}

func TestStrayIsAcknowledgedCountedAndLoggedOnceAMinute(t *testing.T) {
	var log bytes.Buffer
	p := newProtocolWith(t, pabal.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	bodies := p.intercept(pay("A1", 1))
	for range 3 {
		p.Send(recordQueue, []byte("what is this?"))
		p.Send(recordQueue, edited(t, bodies[0], map[string]any{"source": "billing"}))
		p.Send(recordQueue, []byte(`{"specversion":"1.0","id":"7","source":"order","type":"x"}`))
		p.Settle(10 * time.Second)
	}
	p.expectCount("confirm stray", 9)
	if n := strings.Count(log.String(), "not ours"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
}

func TestGhostIsAbsentTwiceAndAlarms(t *testing.T) {
	var log bytes.Buffer
	p := newProtocolWith(t, pabal.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	bodies := p.intercept(pay("A1", 1))
	id := uuid.New()
	p.Send(recordQueue, edited(t, bodies[0], map[string]any{"id": id}))
	p.Pass(30 * time.Second) // the prover has looked once, too early
	p.expectCount("confirm suspect", 1)
	p.expectCount("confirm ghost", 0)
	p.Pass(40 * time.Second)
	p.expectCount("confirm ghost", 1)
	if !strings.Contains(log.String(), "ghost event") || !strings.Contains(log.String(), id.String()) {
		t.Errorf("P6: the log says %s", &log)
	}
	p.Pass(10 * time.Minute)
	p.expectCount("confirm ghost", 1)
}

// Nobody waits for a confirmation: those of a moment share a transaction.
func TestConfirmationsGather(t *testing.T) {
	p := newProtocol(t)
	p.record(view(0))
	p.Settle(time.Second)
	for n := range 100 {
		p.record(view(n))
		p.Pass(5 * time.Millisecond)
	}
	p.Settle(time.Second)
	p.expectCount("confirm confirmed", 101)
	if n := p.counts.of("confirm confirmed, batches"); n > 20 {
		t.Errorf("%d transactions confirm what came back within half a second", n)
	}
}

func TestOlderThanRetentionIsNoGhost(t *testing.T) {
	p := newProtocol(t)
	bodies := p.intercept(pay("A1", 1))
	old := p.Now().Add(-40 * 24 * time.Hour) // older than retention: forgotten, most likely
	p.Send(recordQueue, edited(t, bodies[0], map[string]any{"id": uuid.New(), "time": old}))
	p.Pass(2 * time.Minute)
	p.expectCount("confirm ghost", 0)
	p.expectCount("confirm repeated", 1)
}

func TestConfirmerNeitherNacksNorLosesWhileItsDatabaseIsAway(t *testing.T) {
	p := newProtocolWith(t, pabal.Options{Lease: 20 * time.Minute}) // the republisher keeps out of it
	p.another()                                                     // would take what is no longer held
	p.record(view(0))
	p.Settle(time.Second)
	events := make([]pabal.Event, 20)
	for i := range events {
		events[i] = view(i)
	}
	p.record(events...)
	p.DatabaseAway(p.order, 5*time.Minute) // published from memory; they come back before the database does
	p.Pass(5*time.Minute - time.Second)
	p.expectCount("confirm confirmed", 1)
	p.Settle(time.Minute)
	p.expectCount("confirm confirmed", 21)
	if n := p.Delivered(recordQueue); n != 21 {
		t.Errorf("%d deliveries of 21 messages", n)
	}
}

func TestConfirmerThatIsKilledLosesNothing(t *testing.T) {
	p := newProtocol(t)
	p.record(view(0))
	p.Settle(time.Second)
	p.record(view(1))
	p.DatabaseAway(p.order, time.Minute)
	p.Pass(10 * time.Second) // received, and not confirmed
	p.Kill(p.order)
	p.Pass(50 * time.Second)
	p.order = p.another()
	p.Settle(time.Minute)
	p.expectCount("confirm confirmed", 2)
}

func TestTopicIsProvenByTheLowestSentatThatCameBack(t *testing.T) {
	p := newProtocol(t)
	p.Pass(31 * time.Second)
	early := p.intercept(pay("A1", 1))
	p.Pass(2 * time.Minute)
	late := p.intercept(pay("A1", 2))
	p.Pass(time.Minute) // that much has been proven
	proven := p.status(p.order).Topics[0].ProvenAt
	if want := read(t, late[0]).SentAt; !proven.Equal(want) {
		t.Fatalf("proven since %v, want %v", proven, want)
	}
	p.Pass(10 * time.Minute)
	now := p.Now()
	for _, age := range []time.Duration{time.Minute, 5 * time.Minute, 2 * time.Minute} { // a backlog that drains
		p.Send(recordQueue, edited(t, early[0], map[string]any{"sentat": now.Add(-age).UTC().Format(time.RFC3339Nano)}))
	}
	p.Pass(31 * time.Second)
	if got := p.status(p.order).Topics[0].ProvenAt; !got.Equal(now.Add(-5 * time.Minute)) {
		t.Errorf("proven since %v ago, want the lowest, 5 min ago", now.Sub(got))
	}
	p.Send(recordQueue, edited(t, early[0], map[string]any{"sentat": now.Add(time.Hour).UTC().Format(time.RFC3339Nano)}))
	p.Pass(31 * time.Second)
	if got := p.status(p.order).Topics[0].ProvenAt; got.After(p.Now()) {
		t.Errorf("proven beyond the clock: %v", got.Sub(p.Now()))
	}
}

func TestConfirmationMayComeBeforeTheAcceptanceIsWritten(t *testing.T) {
	p := newProtocol(t)
	p.record(pay("A1", 1))
	p.Settle(time.Second) // confirmed; acceptances are written after two seconds
	p.Pass(time.Minute)
	if e := p.events()[0]; e.Pending != nil {
		t.Errorf("a pending row came back: %+v", e.Pending)
	}
}
