package pabal_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestRetryPublishesAParkedEventAgain(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.AnswerNext(pabaltest.Never)
	p.record(pay("A1", 1))
	p.Pass(time.Hour)
	id := p.events()[0].Event.ID
	if n, err := p.order.Retry(t.Context(), id, uuid.New()); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Settle(5 * time.Second)
	p.expectHandled("A1:1")
	if n, err := p.order.Retry(t.Context(), id); n != 0 || err != nil { // confirmed
		t.Errorf("%d, %v", n, err)
	}
}

// TestRetryPublishesWhatWasAcceptedAndNeverCameBack: by itself one event of such a topic goes every RepublishAfter.
func TestRetryPublishesWhatWasAcceptedAndNeverCameBack(t *testing.T) {
	p := newProtocol(t)
	forgets := true
	p.answer = func(pabaltest.Message) pabaltest.Answer {
		if forgets {
			return pabaltest.Forget
		}
		return pabaltest.Accept
	}
	p.record(pay("A1", 1), pay("B1", 2), pay("C1", 3))
	p.Pass(30 * time.Second)
	var ids []uuid.UUID
	for _, e := range p.events() {
		ids = append(ids, e.Event.ID)
	}
	if n, err := p.order.Retry(t.Context(), ids...); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	p.Pass(5 * time.Second)
	if len(p.sent) != 6 {
		t.Errorf("published %d times, not each once more", len(p.sent))
	}
	forgets = false
	p.Settle(15 * time.Minute)
}

func TestRetryFencesOffWhoeverHasTheEvent(t *testing.T) {
	p := newProtocol(t)
	p.AnswerNext(pabaltest.Never)
	p.record(pay("A1", 1))
	p.Pass(time.Millisecond)
	before := p.events()[0].Pending.Claims
	if n, err := p.order.Retry(t.Context(), p.events()[0].Event.ID); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if e := p.events()[0]; e.Pending.Claims != before+1 || e.Pending.Parked() {
		t.Errorf("%+v", e.Pending)
	}
	p.Settle(5 * time.Second)
}

func TestRetryReceivedGoesOnWithoutThePredecessor(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("A1", 4))
	p.deliver(b[0], b[2], b[3])
	p.expectHandled("A1:1")
	if n, err := settlement.RetryReceived(t.Context(), "settlement", read(t, b[2]).ID); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Settle(10 * time.Second)
	p.expectHandled("A1:1", "A1:3", "A1:4")
	p.deliver(b[1]) // it comes after all: its place is taken, and it is not run silently
	p.expectHandled("A1:1", "A1:3", "A1:4")
	if rows := p.received(settlement); len(rows) != 1 || rows[0].Reason != "fork" {
		t.Fatalf("kept %q", kept(rows))
	}
	if n, err := settlement.RetryReceived(t.Context(), "settlement", read(t, b[1]).ID); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Settle(10 * time.Second) // rule 8 does not apply
	p.expectHandled("A1:1", "A1:3", "A1:4", "A1:2")
	p.record(pay("A1", 5)) // the cursor has not moved down
	p.Settle(time.Second)
	p.expectHandled("A1:1", "A1:3", "A1:4", "A1:2", "A1:5")
}

// fails is a handler that fails for events of one amount.
func (p *protocol) fails(amount int) handle {
	return func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		if e.Data.Amount == amount {
			return errMood
		}
		return nil
	}
}

func TestSkipReceivedLetsTheKeyGoOn(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 1}, p.fails(1))
	p.record(pay("A1", 1))
	p.record(pay("A1", 2))
	p.Pass(time.Minute)
	p.expectHandled()
	rows := p.received(settlement)
	if n, err := settlement.SkipReceived(t.Context(), "settlement", rows[0].ID); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Settle(10 * time.Second)
	p.Pass(time.Second) // until it is counted
	p.expectHandled("A1:2")
	p.expectCount("consume skipped", 1)
}

func TestSkipReceivedOfAHeldEventGoesOnBehindIt(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("A1", 4))
	p.deliver(b[0], b[2], b[3])
	if n, err := settlement.SkipReceived(t.Context(), "settlement", read(t, b[2]).ID); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Settle(10 * time.Second)
	p.expectHandled("A1:1", "A1:4")
}

func TestRedeliverFillsHolesAndRepeatsNothing(t *testing.T) {
	for name, r := range map[string]pabal.Redelivery{
		"by topic, to all":     {Topic: OrderPaid.Topic()},
		"by key, to one":       {Topic: OrderPaid.Topic(), Key: "A1", Consumer: "settlement"},
		"by time, to one":      {Topic: OrderPaid.Topic(), From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Consumer: "settlement"},
		"one a second, to all": {Topic: OrderPaid.Topic(), Rate: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProtocol(t)
			settlement := p.settlement(pabal.ConsumerOptions{}, nil)
			b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
			p.deliver(b[0], b[2]) // the second one was lost behind the broker
			job, err := p.order.Redeliver(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			p.Pass(30 * time.Second)
			p.expectHandled("A1:1", "A1:2", "A1:3")
			jobs := p.status(p.order).Jobs
			if len(jobs) != 1 || jobs[0].ID != job || !jobs[0].Finished || jobs[0].Sent != 3 {
				t.Errorf("%+v", jobs)
			}
			for _, s := range p.sent[3:] {
				if s.Queue != r.Consumer || s.Dedup != fmt.Sprintf("%s/%s", s.ID, job) {
					t.Errorf("sent to %q as %s", s.Queue, s.Dedup)
				}
			}
			if n := p.effects(settlement); n != 3 {
				t.Errorf("%d effects", n)
			}
		})
	}
}

func TestRedeliverOfIDsAndTimesIsNarrow(t *testing.T) {
	p := newProtocol(t)
	p.intercept(pay("A1", 1), pay("A1", 2), view(3), pay("B1", 4))
	events := p.events()
	for name, c := range map[string]struct {
		r    pabal.Redelivery
		want int
	}{
		"ids":   {pabal.Redelivery{IDs: []uuid.UUID{events[0].Event.ID, events[2].Event.ID}}, 2},
		"key":   {pabal.Redelivery{Topic: OrderPaid.Topic(), Key: "B1"}, 1},
		"type":  {pabal.Redelivery{Topic: OrderPaid.Topic(), Type: OrderPaid.Name()}, 3},
		"types": {pabal.Redelivery{Topic: OrderPaid.Topic(), Type: "order-cancelled"}, 0},
		"from":  {pabal.Redelivery{Topic: OrderPaid.Topic(), From: events[1].Event.RecordedAt}, 2},
		"until": {pabal.Redelivery{Topic: OrderPaid.Topic(), Until: events[1].Event.RecordedAt}, 1},
	} {
		before := len(p.sent)
		if _, err := p.order.Redeliver(t.Context(), c.r); err != nil {
			t.Fatal(err)
		}
		p.Pass(20 * time.Second)
		if n := len(p.sent) - before; n != c.want {
			t.Errorf("%s: %d events, want %d", name, n, c.want)
		}
	}
	for field, r := range map[string]pabal.Redelivery{
		"topic or ids": {}, "needs its topic": {Key: "A1", IDs: []uuid.UUID{{1}}}, "Rate": {Topic: "x", Rate: -1},
		"From or Until": {Topic: "x", From: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if _, err := p.order.Redeliver(t.Context(), r); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestRedeliverIsThrottled(t *testing.T) {
	p := newProtocol(t)
	for range 3 {
		p.record(view(1), view(2), view(3), view(4), view(5), view(6), view(7), view(8), view(9), view(10))
	}
	p.Settle(time.Minute)
	p.sent = nil
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{Topic: orderViewed.Topic(), Rate: 5}); err != nil {
		t.Fatal(err)
	}
	p.Pass(time.Minute)
	times := p.times("")
	if len(times) != 30 || times[29]-times[0] < 5*time.Second || times[29]-times[0] > 7*time.Second {
		t.Errorf("sent at %v", times)
	}
	for _, e := range p.events() {
		if e.Pending != nil {
			t.Errorf("%+v", e.Pending)
		}
	}
}

// A live event waits behind what is sent at once.
func TestRedeliverSendsATenthOfASecondAtOnce(t *testing.T) {
	p := newProtocol(t)
	for n := range 100 {
		p.record(view(n))
	}
	p.Settle(time.Second)
	before := len(p.sent)
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{Topic: orderViewed.Topic(), Rate: 100}); err != nil {
		t.Fatal(err)
	}
	p.Pass(30 * time.Second)
	at := map[time.Duration]int{}
	for _, s := range p.sent[before:] {
		at[s.after.Truncate(10*time.Millisecond)]++
	}
	for when, n := range at {
		if n > 20 {
			t.Errorf("after %v, %d events at a rate of 100 a second", when, n)
		}
	}
	if len(p.sent) != before+100 {
		t.Errorf("%d of 100 events were sent", len(p.sent)-before)
	}
}

func TestRedeliveryEndsWithWhatWasRecordedWhenItWasOrdered(t *testing.T) {
	p := newProtocol(t)
	p.record(view(1), view(2), view(3))
	p.Settle(time.Minute)
	r := pabal.Redelivery{Topic: orderViewed.Topic(), Rate: 1, Why: "a look"}
	n, sample, err := p.order.Matching(t.Context(), r, 2)
	if n != 3 || len(sample) != 2 || err != nil {
		t.Errorf("%d match, %d are shown, %v", n, len(sample), err)
	}
	if _, err := p.order.Redeliver(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	p.sent = nil
	for range 60 { // faster than the job sends
		p.Pass(2 * time.Second)
		p.record(view(4), view(5), view(6))
	}
	job := p.status(p.order).Jobs[0]
	if !job.Finished || job.Sent != 3 {
		t.Errorf("sent %d, finished %v", job.Sent, job.Finished)
	}
	if !strings.Contains(string(job.Spec), `"why":"a look"`) {
		t.Errorf("why is not on record: %s", job.Spec)
	}
}

// Whoever never had the event does not get it by a message that is for those who had it.
func TestAgainDoesNotConfirm(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.AnswerNext(pabaltest.Forget)
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	ids := []uuid.UUID{p.events()[0].Event.ID}
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{IDs: ids, Again: true}); err != nil {
		t.Fatal(err)
	}
	p.Pass(time.Minute)
	if p.events()[0].Pending == nil {
		t.Error("confirmed by a message that is for those who had the event")
	}
	p.record(pay("A1", 2))
	p.Settle(10 * time.Minute)
	p.expectHandled("A1:1", "A1:1", "A1:2")
}

func TestAgainHandlesInOrderAndOncePerJob(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	for n := range 4 {
		p.record(pay("A1", n))
	}
	p.Settle(time.Second)
	p.expectHandled("A1:0", "A1:1", "A1:2", "A1:3")
	ids := []uuid.UUID{p.events()[3].Event.ID, p.events()[1].Event.ID}
	var again [][]byte
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		again = append(again, m.Body)
		return pabaltest.Forget
	}
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{IDs: ids, Consumer: "settlement", Again: true}); err != nil {
		t.Fatal(err)
	}
	p.Pass(20 * time.Second)
	p.handled = nil
	p.deliver(again[1], again[1], again[0], again[0], again[1])
	p.expectHandled("A1:1", "A1:3")
	if rows := p.received(settlement); len(rows) != 0 {
		t.Errorf("kept %q", kept(rows))
	}
	p.answer = nil
	p.record(pay("A1", 9)) // the key's own cursor stands where it stood
	p.Settle(time.Second)
	p.expectHandled("A1:1", "A1:3", "A1:9")
}

func TestAgainKeepsTheOrderOfEventsThatOneCallRecorded(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	var events []pabal.Event
	var want []string
	for n := range 50 {
		events, want = append(events, pay("A1", n)), append(want, fmt.Sprint("A1:", n))
	}
	p.record(events...)
	p.Settle(time.Minute)
	p.expectHandled(want...)
	p.handled = nil
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{Topic: OrderPaid.Topic(), Again: true}); err != nil {
		t.Fatal(err)
	}
	p.Pass(time.Minute)
	p.expectHandled(want...)
}

// A process that stops leaves its redelivery to the next one, which does not wait for a lease.
func TestRedeliveryGoesOnAfterAStop(t *testing.T) {
	p := newProtocol(t)
	var events []pabal.Event
	for n := range 500 {
		events = append(events, pay("A1", n))
	}
	p.record(events...)
	p.Settle(time.Minute)
	if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{Topic: OrderPaid.Topic()}); err != nil {
		t.Fatal(err)
	}
	p.sent = nil
	for len(p.sent) < 200 {
		p.Pass(100 * time.Millisecond)
	}
	if err := p.Stop(p.order); err != nil {
		t.Fatal(err)
	}
	p.order = p.another()
	job := p.status(p.order).Jobs[0]
	if job.Finished || job.LastError != "" || job.Sent != len(p.sent) {
		t.Errorf("%d are sent, and the job says %+v", len(p.sent), job)
	}
	p.Pass(16 * time.Second) // a client looks for redeliveries every 15 s at most
	if n := len(p.sent); n < 300 {
		t.Errorf("%d sent of 500: it waits for a lease", n)
	}
	p.Pass(10 * time.Second)
	if n := len(p.sent); n != 500 {
		t.Errorf("%d sent of 500", n)
	}
}

func TestRedeliveryGoesOnAfterAKill(t *testing.T) {
	for _, again := range []bool{false, true} {
		p := newProtocol(t)
		p.settlement(pabal.ConsumerOptions{}, nil)
		var events []pabal.Event
		for n := range 500 {
			events = append(events, pay("A1", n))
		}
		p.record(events...)
		p.Settle(time.Minute)
		p.handled = nil
		if _, err := p.order.Redeliver(t.Context(), pabal.Redelivery{Topic: OrderPaid.Topic(), Again: again}); err != nil {
			t.Fatal(err)
		}
		p.sent = nil
		for len(p.sent) < 200 {
			p.Pass(100 * time.Millisecond)
		}
		p.Kill(p.order)
		p.order = p.another()
		p.Pass(2 * time.Minute)
		if n := len(p.sent); n < 500 || n > 600 { // a page at most is sent twice
			t.Errorf("%d sent of 500", n)
		}
		want := 0
		if again {
			want = 500
		}
		if len(p.handled) != want {
			t.Errorf("again %v: %d handled, want %d", again, len(p.handled), want)
		}
		if job := p.status(p.order).Jobs[0]; !job.Finished {
			t.Errorf("%+v", job)
		}
	}
}

func TestRestoredBeginsNewRunsAndConsumersGoOn(t *testing.T) {
	for _, restored := range []bool{true, false} {
		p := newProtocol(t)
		settlement := p.settlement(pabal.ConsumerOptions{}, nil)
		b := p.intercept(pay("A1", 1), pay("A1", 2))
		last := p.events()[1].Event
		lost := edited(t, b[1], map[string]any{ // consumers have it, and the database does not
			"id": uuid.New(), "position": fmt.Sprint(last.Position + 1), "data": Paid{"A1", 3},
			"previd": last.ID, "prevposition": fmt.Sprint(last.Position), "prevtime": last.RecordedAt,
		})
		p.deliver(b[0], b[1], lost)
		p.expectHandled("A1:1", "A1:2", "A1:3")
		if restored {
			if err := p.order.Restored(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.record(pay("A1", 4))
		p.record(pay("A1", 5))
		p.Pass(time.Minute)
		next := p.events()[2].Event
		if !restored { // P6: what the command is for
			if said := p.troubles(settlement); !strings.Contains(said, "is parked: fork") {
				t.Errorf("status says %s", said)
			}
			continue
		}
		p.expectHandled("A1:1", "A1:2", "A1:3", "A1:4", "A1:5")
		if next.Position <= last.Position+1 || next.Prev.ID != last.ID {
			t.Errorf("new run at %d after %d, prev %+v", next.Position, last.Position, next.Prev)
		}
		if p.expectCount("confirm ghost", 0); len(p.received(settlement)) != 0 {
			t.Errorf("kept %q", kept(p.received(settlement)))
		}
	}
}

func TestStatusOfAFreshStoreIsHealthy(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 1))
	p.Settle(time.Minute)
	if s := p.status(p.order); !s.Healthy || s.Source != "order" || len(s.Unconfirmed) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestSkippingAMissingPredecessorLetsItsKeyGoOn: design section 2, "the key goes on at its lowest held".
func TestSkippingAMissingPredecessorLetsItsKeyGoOn(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	var handled []int
	pabal.Handle(order.Consumer("audit", nil), OrderPaid, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		handled = append(handled, e.Data.Amount)
		return nil
	})
	record := func(n int) {
		err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, OrderPaid.New(Paid{"A1", n})) })
		if err != nil {
			t.Fatal(err)
		}
	}
	record(0)
	post.Settle(time.Minute)
	post.Unsubscribe("audit", OrderPaid.Topic()) // the record queue gets its copy, this one does not
	record(1)
	post.Pass(time.Second)
	post.Subscribe("audit", OrderPaid.Topic())
	record(2)
	record(3)
	post.Pass(time.Minute)
	missing := pabaltest.Recorded(post, OrderPaid)[1].ID
	if n, err := order.SkipReceived(t.Context(), "audit", missing); n != 1 || err != nil {
		t.Fatalf("%d skipped, %v", n, err)
	}
	post.Settle(time.Minute)
	if fmt.Sprint(handled) != "[0 2 3]" {
		t.Errorf("handled %v", handled)
	}
	if n, err := order.SkipReceived(t.Context(), "audit", missing); n != 0 || err != nil {
		t.Errorf("nothing waits for it, and %d were skipped, %v", n, err)
	}
}

// TestServiceThatJoinsGetsItsKeysHistoryByARedeliveryAgain: without Again what lies before its beginning is passed over.
func TestServiceThatJoinsGetsItsKeysHistoryByARedeliveryAgain(t *testing.T) {
	p := newProtocol(t)
	p.intercept(pay("A1", 1), pay("A1", 2), pay("B1", 1))
	p.Pass(20 * time.Minute)
	p.settlement(pabal.ConsumerOptions{}, nil)
	until := p.Now()
	p.record(pay("A1", 3))
	p.Settle(time.Minute)
	p.expectHandled("A1:3")
	for _, c := range []struct {
		again   bool
		handled []string
	}{{false, []string{"A1:3", "B1:1"}}, {true, []string{"A1:3", "B1:1", "A1:1", "A1:2", "B1:1"}}} {
		_, err := p.order.Redeliver(t.Context(), pabal.Redelivery{
			Topic: "order-pay-done", Until: until, Consumer: "settlement", Again: c.again, Why: "it is new", By: "me",
		})
		if err != nil {
			t.Fatal(err)
		}
		p.Settle(time.Minute)
		p.Pass(15 * time.Minute) // B1 begins behind a backlog
		p.expectHandled(c.handled...)
	}
}
