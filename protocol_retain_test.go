package pabal_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/pabaltest"
)

const day = 24 * time.Hour

// short remembers as shortly as the broker allows.
var short = pabal.Options{Retention: 5 * day, InboxRetention: 6 * day}

// away lets time pass while no client runs, which is quick to simulate, and starts the order service again.
func (p *protocol) away(d time.Duration, others ...*pabaltest.Client) {
	p.t.Helper()
	for _, c := range append(others, p.order) {
		if err := p.Stop(c); err != nil {
			p.t.Fatal(err)
		}
	}
	p.Pass(d)
	p.order = p.another()
}

func TestConfirmedEventsAreForgottenAfterRetentionAndUnconfirmedStay(t *testing.T) {
	p := newProtocolWith(t, short)
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		switch m.Key {
		case "parked":
			return pabaltest.Never
		case "late":
			return pabaltest.Again
		default:
			return pabaltest.Accept
		}
	}
	p.record(pay("A1", 1), view(2))
	p.record(pay("parked", 1))
	p.record(pay("late", 1))
	p.Pass(time.Minute)
	p.away(5*day - 3*time.Hour)
	if p.Pass(2 * time.Hour); len(p.events()) != 4 { // once an hour
		t.Errorf("%d events before retention", len(p.events()))
	}
	p.Pass(2 * time.Hour)
	for _, e := range p.events() {
		if e.Pending == nil {
			t.Errorf("confirmed, and not forgotten: %s", e.Event.Key)
		}
	}
	if n := len(p.events()); n != 2 {
		t.Errorf("P7: %d events left of 2 that are not confirmed", n)
	}
	p.answer = nil
	if _, err := p.order.Retry(t.Context(), p.events()[0].Event.ID, p.events()[1].Event.ID); err != nil {
		t.Fatal(err)
	}
	p.Settle(10 * time.Minute)
	p.expectCount("confirm confirmed", 4)
	if p.Pass(2 * time.Hour); len(p.events()) != 0 {
		t.Errorf("%d events left", len(p.events()))
	}
}

func TestPositionsNeverRepeatAfterACounterIsForgotten(t *testing.T) {
	p := newProtocolWith(t, short)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 1))
	p.record(pay("A1", 2))
	p.Settle(time.Minute)
	last := p.events()[1].Event
	p.away(5*day, settlement)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(2 * time.Hour)
	if n := len(p.events()); n != 0 {
		t.Fatalf("%d events left", n)
	}
	p.record(pay("A1", 3))
	p.record(pay("A1", 4))
	p.Settle(time.Minute) // P5: the consumer goes on, with a new run
	p.expectHandled("A1:1", "A1:2", "A1:3", "A1:4")
	next := p.events()[0].Event
	if next.Position <= last.Position || !next.Prev.IsZero() {
		t.Errorf("P7: position %d after %d, prev %+v", next.Position, last.Position, next.Prev)
	}
	if floor := p.status(p.order).Topics[0].PositionFloor; floor < last.Position {
		t.Errorf("position_floor %d", floor)
	}
}

func TestInboxForgetsItsMemoryButNeverWhatWaits(t *testing.T) {
	p := newProtocolWith(t, short)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 1}, p.fails(7))
	b := p.intercept(pay("A1", 1), pay("B1", 1), pay("B1", 2), pay("C1", 7), pay("C1", 8))
	p.deliver(b[0], b[2], b[3], b[4]) // handled, held, parked, held behind it
	p.away(6*day, settlement)
	settlement = p.settlement(pabal.ConsumerOptions{Tries: 1}, p.fails(7))
	p.Pass(3 * time.Hour) // an hour of margin, and once an hour
	if rows := p.received(settlement); len(rows) != 3 {
		t.Fatalf("kept %q", kept(rows))
	}
	p.deliver(b[0]) // forgotten: parked, never run silently (P4)
	rows := p.received(settlement)
	if len(rows) != 4 || rows[0].Reason != "too old to tell" {
		t.Errorf("kept %q", kept(rows))
	}
	p.expectHandled("A1:1")
	for _, row := range rows[1:] { // what waited can still be handled
		if _, err := settlement.SkipReceived(t.Context(), "settlement", row.ID); err != nil {
			t.Fatal(err)
		}
		p.Pass(time.Minute)
	}
	if rows := p.received(settlement); len(rows) != 1 {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestNewRefusesOptionsOutOfBoundsAndNamesTheField(t *testing.T) {
	for _, c := range []struct {
		o    pabal.Options
		want string
	}{
		{pabal.Options{Retention: 5*day - 1}, "Retention of pabal.Options is 119h59m59.999999999s: from 120h0m0s"}, // 4 days and one
		{pabal.Options{Retention: 46 * day, InboxRetention: 45 * day}, "Retention of pabal.Options is 1104h0m0s: from 120h0m0s to 1080h0m0s"},
		{pabal.Options{Lease: 8 * time.Second}, "Lease of pabal.Options is 8s: from 9s"}, // 3 × publish timeout
		{pabal.Options{PublishTimeout: time.Millisecond}, "PublishTimeout of pabal.Options is 1ms: from 100ms"},
		{pabal.Options{RepublishAfter: time.Second}, "RepublishAfter of pabal.Options is 1s: from 2m0s"},
		{pabal.Options{Queue: -1}, "Queue of pabal.Options is -1: from 1 to 1000000"},
		{pabal.Options{Lanes: 257}, "Lanes of pabal.Options is 257: from 1 to 256"},
		{pabal.Options{Sweep: time.Hour}, "Sweep of pabal.Options is 1h0m0s: from 100ms to 1m0s"},
	} {
		err := open("order", &c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New answers %v, want %s", err, c.want)
		}
	}
	err := open("order", &pabal.Options{Lanes: -1, Queue: -1}) // everything at once
	if err == nil || !strings.Contains(err.Error(), "Lanes") || !strings.Contains(err.Error(), "Queue") {
		t.Errorf("New answers %v", err)
	}
	if err := open("order", nil); err != nil {
		t.Error(err)
	}
}

// open makes a client in a world of its own and says what New answers.
func open(source string, o *pabal.Options) error {
	s := sim.New(1, sim.Faults{})
	defer s.Close()
	w := s.Process("order").World()
	store := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)
	_, err := pabal.New(context.Background(), store, sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct), source, o)
	return err
}
