package pabal_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestPublishedRightAfterCommitAndOnce(t *testing.T) {
	p := newProtocol(t)
	err := p.InTx(p.order, func(tx pabaltest.Tx) error {
		err := p.order.Record(t.Context(), tx, pay("A1", 1))
		if _ = p.Sleep(t.Context(), 5*time.Second); len(p.sent) > 0 {
			t.Error("P2: published before COMMIT")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	commit := p.Now()
	p.Settle(time.Minute)
	if p.Pass(time.Minute); len(p.sent) != 1 || p.Now().Sub(commit) > time.Minute+time.Second {
		t.Errorf("published at %v", p.times(""))
	}
	if e := p.events()[0]; e.Pending != nil || e.Event.PublishedAt.IsZero() {
		t.Errorf("not confirmed: %+v", e)
	}
}

func TestRolledBackIsNeverPublished(t *testing.T) {
	p := newProtocol(t)
	changed := errors.New("changed my mind")
	err := p.InTx(p.order, func(tx pabaltest.Tx) error {
		return errors.Join(p.order.Record(t.Context(), tx, pay("A1", 1)), changed)
	})
	if p.Pass(time.Hour); !errors.Is(err, changed) || len(p.sent) != 0 {
		t.Errorf("%v; published at %v", err, p.times(""))
	}
}

func TestAgainBacksOffByClaims(t *testing.T) {
	p := newProtocol(t)
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if m.Key == "A1" && len(p.times("A1")) < 4 {
			return pabaltest.Again
		}
		return pabaltest.Accept
	}
	p.record(pay("A1", 1))
	for range 40 { // the topic accepts all the while
		p.Pass(5 * time.Second)
		p.record(pay("B", 1))
	}
	p.Settle(10 * time.Second)
	times := p.times("A1")
	if len(times) != 5 {
		t.Fatalf("tried at %v", times)
	}
	for i, want := range []time.Duration{10, 20, 40, 80} { // less up to a tenth, plus a sweep
		want *= time.Second
		if pause := times[i+1] - times[i]; pause < want-want/10-time.Second || pause > want+4*time.Second {
			t.Errorf("pause %d is %v, want about %v", i+1, pause, want)
		}
	}
	if e := p.events()[0]; e.Pending != nil {
		t.Errorf("not confirmed: %+v", e.Pending)
	}
}

func TestNeverParksWithTheReasonAndTheRestGoesOn(t *testing.T) {
	var log strings.Builder
	p := newProtocolWith(t, pabal.Options{Lanes: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if m.Key == "A2" {
			return pabaltest.Never
		}
		return pabaltest.Accept
	}
	p.record(pay("A1", 1), pay("A2", 1), pay("A3", 1))
	p.record(pay("A4", 1))
	p.Settle(5 * time.Second)
	parkedID := ""
	for _, e := range p.events() {
		if e.Event.Key == "A2" {
			parkedID = e.Event.ID.String()
		}
		if parked := e.Event.Key == "A2"; (e.Pending != nil) != parked || parked && (!e.Pending.Parked() ||
			!strings.Contains(e.Pending.LastError, "refused by the broker: the test says: never")) {
			t.Errorf("event of %s: %+v", e.Event.Key, e.Pending)
		}
	}
	if p.Pass(time.Hour); len(p.times("A2")) != 1 {
		t.Errorf("the parked one was tried at %v", p.times("A2"))
	}
	if said := p.troubles(p.order); !strings.Contains(said, "is parked: refused by the broker") ||
		!strings.Contains(said, "pabal events retry "+parkedID) {
		t.Errorf("P6: status says %q", said)
	}
	if !strings.Contains(log.String(), "events=1 event_id="+parkedID) {
		t.Errorf("P6: the log says %s", &log)
	}
	p.expectCount("publish never", 1)
}

func TestTopicThatDoesNotAcceptGetsOneEventEveryTenSeconds(t *testing.T) {
	p := newProtocol(t)
	down := true
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if down && m.Topic == orderViewed.Topic() {
			return pabaltest.Again
		}
		return pabaltest.Accept
	}
	for n := range 40 {
		p.record(view(n))
		p.Pass(time.Millisecond)
	}
	if n := len(p.sent); n > 5 {
		t.Errorf("%d calls before the topic counts as not accepting", n)
	}
	p.Pass(30 * time.Second)
	before := len(p.sent)
	p.Pass(10 * time.Minute)
	if n := len(p.sent) - before; n < 40 || n > 61 {
		t.Errorf("%d events went in ten minutes, want one every ten seconds and a sweep", n)
	}
	times := p.times("")
	for i := before + 1; i < len(times); i++ {
		if times[i]-times[i-1] < 9*time.Second {
			t.Fatalf("two went within %v", times[i]-times[i-1])
		}
	}
	p.record(pay("A1", 1)) // P3: another topic does not notice
	p.Pass(time.Second)
	if got := p.sent[len(p.sent)-1]; got.Key != "A1" {
		t.Errorf("published last %q", got.Key)
	}
	down = false
	p.Settle(5*time.Minute + 20*time.Second) // the backoff of the oldest
	p.expectCount("confirm confirmed", 41)
}

func TestAnAcceptanceOpensTheTopic(t *testing.T) {
	p := newProtocol(t)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Again }
	for n := range 6 {
		p.record(view(n))
		p.Pass(time.Millisecond)
	}
	p.answer = nil
	p.record(view(7)) // does not go now: its topic does not accept
	p.Pass(time.Second)
	if n := len(p.sent); n != 5 {
		t.Fatalf("%d tries", n)
	}
	p.Settle(30 * time.Second) // the first that goes alone opens it for all
	p.record(view(8))
	p.Pass(time.Millisecond)
	if last := p.sent[len(p.sent)-1]; !strings.Contains(string(last.Body), `"amount":8`) {
		t.Error("not published at once")
	}
}

// Others may have brought what was left behind: then no event falls due here that could go alone and be accepted.
func TestNextEventOpensTheTopicWhenNothingIsLeft(t *testing.T) {
	p := newProtocol(t)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Again }
	for n := range 5 {
		p.record(view(n))
		p.Pass(time.Millisecond)
	}
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Never }
	p.Pass(2 * time.Minute) // all are parked
	p.answer = nil
	before := len(p.sent)
	p.record(view(5))
	p.Pass(time.Second)
	p.record(view(6))
	p.Pass(time.Second)
	if n := len(p.sent) - before; n != 2 {
		t.Errorf("%d of two events are published within a second", n)
	}
}

func TestWhatFindsNoRoomIsLeftToTheRepublisher(t *testing.T) {
	p := newProtocolWith(t, pabal.Options{Queue: 20})
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Accept }
	events := make([]pabal.Event, 300)
	for i := range events {
		events[i] = view(i)
	}
	p.record(events...)
	p.Pass(5 * time.Second)
	if n := len(p.sent); n != 20 {
		t.Errorf("%d published from memory, 20 have room", n)
	}
	p.Settle(3 * time.Minute)
	p.expectCount("confirm confirmed", 300)
	if len(p.sent) != 300 {
		t.Errorf("%d published, want each once", len(p.sent))
	}
}

func TestRolledBackSavepointIsClaimedBeforeItIsPublished(t *testing.T) {
	p := newProtocol(t)
	err := p.InTx(p.order, func(tx pabaltest.Tx) error {
		err := p.order.Record(t.Context(), tx, pay("A1", 1))
		savepoint := tx.Savepoint()
		err = errors.Join(err, p.order.Record(t.Context(), tx, pay("A2", 2)))
		tx.RollbackTo(savepoint)
		return errors.Join(err, p.order.Record(t.Context(), tx, pay("A1", 3)))
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Settle(time.Second)
	for _, s := range p.sent { // "/1": claimed; events recorded after the savepoint are proven
		if s.Key == "A2" {
			t.Error("P2: a ghost was published")
		}
		if claimed := strings.HasSuffix(s.Dedup, "/1"); claimed != strings.Contains(string(s.Body), `"amount":1`) {
			t.Errorf("%s published as %s", s.Body, s.Dedup)
		}
	}
	if p.Pass(time.Minute); len(p.sent) != 2 {
		t.Errorf("published %d, want the two that are there, once", len(p.sent))
	}
}

func TestLostAnswerOfCommitIsClaimedAtOnce(t *testing.T) {
	p := newProtocol(t)
	p.LoseAnswer(p.order)
	err := p.InTx(p.order, func(tx pabaltest.Tx) error { return p.order.Record(t.Context(), tx, pay("A1", 1)) })
	if err == nil {
		t.Fatal("COMMIT was answered")
	}
	p.Settle(time.Second)
	if len(p.sent) != 1 || !strings.HasSuffix(p.sent[0].Dedup, "/1") {
		t.Errorf("published %+v", p.sent)
	}
}

func TestTransactionLongerThanItsLeaseIsClaimedAtCommit(t *testing.T) {
	p := newProtocol(t)
	err := p.InTx(p.order, func(tx pabaltest.Tx) error {
		err := p.order.Record(t.Context(), tx, pay("A1", 1))
		_ = p.Sleep(t.Context(), 15*time.Second)
		return err
	})
	if err != nil || len(p.sent) != 0 {
		t.Fatalf("%v; %d published before COMMIT", err, len(p.sent))
	}
	if p.Pass(time.Millisecond); len(p.sent) != 1 { // and not by the next sweep
		t.Errorf("published %d at COMMIT", len(p.sent))
	}
	if p.Pass(time.Minute); len(p.sent) != 1 || !strings.HasSuffix(p.sent[0].Dedup, "/1") {
		t.Errorf("published %+v", p.sent)
	}
}

func TestNothingIsSentWhenItsLeaseIsNearlyOver(t *testing.T) {
	p := newProtocol(t)
	p.answer = func(pabaltest.Message) pabaltest.Answer {
		p.answer = nil
		_ = p.Sleep(t.Context(), 9*time.Second) // a broker that ignores its deadline
		return pabaltest.Accept
	}
	p.record(pay("A1", 1))
	p.record(pay("A1", 2)) // waits behind it in the lane
	p.Settle(time.Minute)
	p.Pass(time.Minute)
	if len(p.sent) != 2 || !strings.HasSuffix(p.sent[1].Dedup, "/1") { // the republisher's, once the lease had ended
		t.Errorf("sent at %v, last as %s", p.times(""), p.sent[len(p.sent)-1].Dedup)
	}
}

func TestDeduplicationNeverSwallowsAFurtherClaim(t *testing.T) {
	p := newProtocol(t)
	p.AnswerNext(pabaltest.Forget) // noted by the broker as "id/0"
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	id := p.events()[0].Event.ID
	if n, err := p.order.Retry(t.Context(), id); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p.Settle(4 * time.Minute) // within the five minutes for which the broker deduplicates
	if len(p.sent) != 1 || p.sent[0].Dedup != fmt.Sprintf("%s/2", id) {
		t.Errorf("published again %+v", p.sent)
	}
}

func TestEventsOfAKeyAreInFlightOneBatchAtATime(t *testing.T) {
	p := newProtocol(t)
	calls := 0
	p.answer = func(pabaltest.Message) pabaltest.Answer { // every second call is slow
		calls++
		_ = p.Sleep(t.Context(), time.Duration(calls%2)*100*time.Millisecond)
		return pabaltest.Accept
	}
	for n := range 50 {
		p.record(pay("A1", n), view(n))
		p.Pass(10 * time.Millisecond)
	}
	p.Settle(20 * time.Second)
	want := 0
	for _, s := range p.sent {
		if s.Key != "A1" {
			continue
		}
		if !strings.Contains(string(s.Body), fmt.Sprintf(`"amount":%d}`, want)) {
			t.Fatalf("message %d of the key is %s", want, s.Body)
		}
		want++
	}
}

func TestBrokerThatIsAwayNeitherFailsNorDelaysATransaction(t *testing.T) {
	p := newProtocol(t)
	p.Pass(time.Second)
	p.BrokerAway(10 * time.Minute)
	for n := range 30 {
		start := p.Now()
		p.record(pay("A1", n)) // fails the test when Record or Commit do
		if d := p.Now().Sub(start); d > 10*time.Millisecond {
			t.Errorf("P3: a transaction took %v", d)
		}
		p.Pass(10 * time.Second)
	}
	if said := p.troubles(p.order); !strings.Contains(said, "is late: it has not been accepted by the broker") {
		t.Errorf("P6: status says %q", said)
	}
	p.Settle(15 * time.Minute)
	p.expectCount("confirm confirmed", 30)
}
