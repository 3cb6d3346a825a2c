package pabal_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestKillBetweenCommitAndPublishCostsLeaseAndSweep(t *testing.T) {
	p := newProtocol(t)
	other := p.another()
	p.record(view(0))
	p.Settle(time.Second)
	start := p.Now()
	p.record(pay("A1", 1))
	p.Kill(p.order)
	p.order = other
	p.Pass(9 * time.Second)
	if len(p.sent) != 1 {
		t.Error("another process took it within the lease")
	}
	p.Settle(5 * time.Second)
	if d := p.Now().Sub(start); d > 14*time.Second {
		t.Errorf("cost %v", d)
	}
}

func TestKillAfterPublishPublishesAgainAndConsumersHaveOneEffect(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A0", 0))
	p.Settle(time.Second)
	p.Unsubscribe(recordQueue, OrderPaid.Topic())
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	p.Kill(p.order) // before its acceptance was written
	p.order = p.another()
	p.Settle(20 * time.Second)
	if n := len(p.times("A1")); n != 2 {
		t.Errorf("published %d times", n)
	}
	p.expectHandled("A0:0", "A1:1")
	p.expectCount("consume duplicate", 1)
}

func TestRecordedWithoutRunIsDueAtOnce(t *testing.T) {
	p := newProtocol(t)
	p.another() // the relay
	p.Pass(time.Second)
	if err := p.Stop(p.order); err != nil {
		t.Fatal(err)
	}
	p.record(pay("A1", 1)) // its publisher does not run any more
	p.Settle(4 * time.Second)
	p.expectCount("confirm confirmed", 1)
}

func TestLoneProbeProvesTheTopicAndLetsTheRestGo(t *testing.T) {
	p := newProtocol(t)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Forget }
	for n := range 30 {
		p.record(view(n))
	}
	p.Pass(4*time.Minute + 50*time.Second)
	if len(p.sent) != 30 {
		t.Fatalf("%d published before republish_after", len(p.sent))
	}
	p.answer = nil
	p.Pass(20 * time.Second)
	if n := len(p.sent) - 30; n != 1 {
		t.Errorf("%d went before the topic is proven, want one alone", n)
	}
	p.Settle(time.Minute) // at the next proof all go
	if len(p.sent) != 60 {
		t.Errorf("%d published", len(p.sent))
	}
	p.expectCount("confirm confirmed", 30)
}

func TestNoStormWhileConfirmationsFail(t *testing.T) {
	p := newProtocol(t)
	other := p.another() // the probe is one per store, not per process
	p.record(view(0))
	p.order, other = other, p.order
	p.record(view(1)) // both have subscribed the record queue now, and do not look again
	p.Settle(time.Second)
	p.Pass(time.Minute)
	p.Unsubscribe(recordQueue, orderViewed.Topic())
	before, start := len(p.sent), p.Now()
	for n := range 500 {
		p.order, other = other, p.order
		p.record(view(n), view(n), view(n), view(n))
		p.Pass(time.Second)
	}
	p.Pass(start.Add(time.Hour).Sub(p.Now()))
	if n := len(p.sent) - before; n > 2100 || n < 2010 {
		t.Errorf("P3: %d publishes of 2000 events in an hour, at most 2100, and one copy each 5 min", n)
	}
	if n := len(p.status(p.order).Unconfirmed); n != 20 {
		t.Errorf("P6: status lists %d late events", n)
	}
	p.Subscribe(recordQueue, orderViewed.Topic())
	p.Settle(20 * time.Minute) // until the next probe, its proof, and then all
	p.expectCount("confirm confirmed", 2002)
	if n := len(p.sent) - before; n > 4100 {
		t.Errorf("P3: %d publishes in all", n)
	}
}

// lose makes the broker forget what is published of a key while others flow, one a minute.
func (p *protocol) lose(key string, d time.Duration) {
	before := p.answer
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if m.Key == key {
			return pabaltest.Forget
		}
		return pabaltest.Accept
	}
	for end := p.Now().Add(d); p.Now().Before(end); p.Pass(time.Minute) {
		p.record(pay("flow", 1))
	}
	p.answer = before
}

func TestFailuresAreChargedOncePerAcceptanceAndTheTenthParks(t *testing.T) {
	p := newProtocol(t)
	p.record(pay("lost", 1))
	p.sent = nil
	p.lose("lost", 26*time.Minute)
	e := p.events()[0]
	if n := len(p.times("lost")); e.Pending == nil || e.Pending.Failures != n-1 || n != 6 {
		t.Errorf("published %d times, charged %+v", n, e.Pending)
	}
	p.lose("lost", 40*time.Minute)
	e = p.events()[0]
	if e.Pending == nil || !e.Pending.Parked() || !strings.Contains(e.Pending.LastError, "accepted 10 times and never came back") {
		t.Errorf("not parked: %+v", e.Pending)
	}
	if n := len(p.times("lost")); n != 10 {
		t.Errorf("published %d times", n)
	}
	p.expectCount("republish parked", 1)
}

// The topic must have been proven beyond the acceptance by the time an event is due again.
func TestFailuresAreChargedAtTheLeastRepublishAfter(t *testing.T) {
	p := newProtocolWith(t, pabal.Options{RepublishAfter: 2 * time.Minute})
	p.record(pay("lost", 1))
	p.lose("lost", 30*time.Minute)
	if e := p.events()[0]; e.Pending == nil || !e.Pending.Parked() {
		t.Errorf("not parked: %+v", e.Pending)
	}
}

func TestOutageChargesNothing(t *testing.T) {
	p := newProtocol(t)
	p.record(pay("lost", 0))
	p.Settle(time.Second)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Forget } // confirmations fail
	p.record(pay("lost", 1))
	p.Pass(2 * time.Hour)
	if e := p.events()[1]; e.Pending == nil || e.Pending.Failures != 0 || e.Pending.Claims < 20 {
		t.Errorf("while the topic is not proven: %+v", e.Pending)
	}
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Again }
	p.record(pay("refused", 1))
	p.Pass(2 * time.Hour)
	for _, e := range p.events()[1:] {
		if e.Pending == nil || e.Pending.Failures != 0 || e.Pending.Parked() {
			t.Errorf("again charges: %+v", e.Pending)
		}
	}
	p.answer = nil
	p.Settle(10 * time.Minute)
}

func TestPoisonThatKillsItsProcessIsSoonAloneAndParked(t *testing.T) {
	p := newProtocol(t)
	p.record(view(0))
	p.Settle(time.Second)
	deaths, company := 0, 0
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if m.Key == "poison" {
			deaths++
			for _, s := range p.sent {
				if s.after == p.sent[len(p.sent)-1].after && s.Key != "poison" {
					company++
				}
			}
			p.Kill(p.order)
		}
		return pabaltest.Accept
	}
	events := []pabal.Event{pay("poison", 1)}
	for n := range 300 {
		events = append(events, pay(fmt.Sprint("A", n), n))
	}
	p.record(events...)
	start := p.Now()
	for parked := false; !parked && p.Now().Sub(start) < 20*time.Minute; {
		before := deaths
		p.Pass(time.Second)
		if deaths > before {
			p.order = p.another()
		}
		parked = len(p.status(p.order).Unconfirmed) == 1 && p.status(p.order).Unconfirmed[0].Pending.Parked()
		if p.Now().Sub(start) > 4*time.Minute && p.counts.of("confirm confirmed") < 301 {
			t.Fatalf("the backlog waits for the poison: %d confirmed after %d deaths", p.counts.of("confirm confirmed"), deaths)
		}
	}
	p.answer = nil
	p.Settle(10 * time.Second)
	status := p.status(p.order)
	if len(status.Unconfirmed) != 1 || !strings.Contains(status.Troubles[0].What, "its process ended without a verdict") {
		t.Fatalf("after %v and %d deaths: %s", p.Now().Sub(start), deaths, p.troubles(p.order))
	}
	if deaths > 15 {
		t.Errorf("killed %d processes", deaths)
	}
	p.expectCount("confirm confirmed", 301)
}

func TestReleaseWithoutATryIsAVerdict(t *testing.T) {
	p := newProtocol(t)
	binary := pabal.Define[[]byte]("binary")
	var events []pabal.Event
	for range 80 { // six or so go into a call
		events = append(events, binary.New(make([]byte, 100_000)))
	}
	p.record(events...)
	p.Kill(p.order)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Again }
	p.order = p.another()
	p.Pass(14 * time.Second) // all were claimed, five calls made: the rest is given back
	tried := len(p.sent)
	if tried == 0 || tried >= 80 {
		t.Fatalf("%d tried", tried)
	}
	for _, e := range p.events() {
		if e.Pending == nil || e.Pending.Claims == 0 || e.Pending.Crashes != 0 {
			t.Fatalf("counted as a crash: %+v", e.Pending)
		}
	}
}

func TestTwoProcessesShareTheWorkAndNeverAnEvent(t *testing.T) {
	p := newProtocol(t)
	p.record(view(0))
	p.Settle(time.Second)
	events := make([]pabal.Event, 800)
	for i := range events {
		events[i] = view(i)
	}
	p.record(events...)
	p.Kill(p.order)
	p.order = p.another()
	p.another()
	p.another()
	p.Settle(time.Minute)
	if len(p.sent) != 801 {
		t.Errorf("published %d messages of 801 events", len(p.sent))
	}
	seen := map[string]bool{}
	for _, s := range p.sent {
		if id := string(bytes.Clone(s.ID[:])); seen[id] {
			t.Fatalf("%s twice", s.ID)
		} else {
			seen[id] = true
		}
	}
}
