package pabal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabaltest"
)

var errMood = errors.New("not in the mood")

// effects counts what the settlement's handlers have committed of the order service's events.
func (p *protocol) effects(settlement *pabaltest.Client) (n int) {
	for _, e := range p.events() {
		if p.Get(settlement, "effect", e.Event.ID.String()) != nil {
			n++
		}
	}
	return n
}

func TestFailedHandlerIsTriedAgainWithBackoffThenParkedAndItsKeyWaits(t *testing.T) {
	p := newProtocol(t)
	var tries []time.Duration
	var attempts []int
	start := p.Now()
	broken := true
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 5},
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
			if !broken || e.Data.Amount != 1 {
				return nil
			}
			tries, attempts = append(tries, p.Now().Sub(start)), append(attempts, e.Attempt)
			return errors.Join(tx.Put(ctx, "half", "done", 1), errMood)
		})
	p.record(pay("A1", 1))
	p.record(pay("A1", 2))
	p.record(pay("B1", 7))
	p.Pass(2 * time.Second)
	p.expectHandled("B1:7") // other keys go on
	p.Pass(time.Hour)
	if fmt.Sprint(attempts) != "[1 2 3 4 5]" {
		t.Fatalf("attempts %v at %v", attempts, tries)
	}
	for i, want := range []time.Duration{1, 2, 4, 8} {
		want *= time.Second
		if pause := tries[i+1] - tries[i]; pause < want-want/10 || pause > want+3*time.Second {
			t.Errorf("pause %d is %v, want %v and up to a sweep", i+1, pause, want)
		}
	}
	p.expectHandled("B1:7") // P5: the key waits
	if p.Get(settlement, "half", "done") != nil {
		t.Error("P4: what a failed handler wrote is there")
	}
	rows := p.received(settlement)
	if len(rows) != 2 || rows[0].State != driver.Parked || !strings.Contains(rows[0].LastError, errMood.Error()) {
		t.Fatalf("kept %q", kept(rows))
	}
	if said := p.troubles(settlement); !strings.Contains(said, "pabal inbox retry --consumer settlement "+rows[0].ID.String()) {
		t.Errorf("P6: status says %s", said)
	}
	if n := p.Delivered("settlement"); n != 3 {
		t.Errorf("%d deliveries: failures go through the inbox, not through the broker", n)
	}
	broken = false
	if n, err := settlement.RetryReceived(t.Context(), "settlement", rows[0].ID); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p.Settle(time.Minute)
	p.expectHandled("B1:7", "A1:1", "A1:2")
}

func TestPassParkedLetsTheKeyGoOn(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 2, PassParked: true},
		func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
			if e.Data.Amount == 1 {
				return errMood
			}
			return nil
		})
	for n := range 4 {
		p.record(pay("A1", n))
	}
	p.Settle(time.Minute)
	p.expectHandled("A1:0", "A1:2", "A1:3")
	if rows := p.received(settlement); len(rows) != 1 || rows[0].State != driver.Parked {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestPanicIsAFailure(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 1},
		func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error { panic("ouch") })
	p.record(view(1))
	p.Settle(time.Minute)
	if rows := p.received(settlement); len(rows) != 1 || !strings.Contains(rows[0].LastError, "handler panicked: ouch") {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestTimeoutIsAFailure(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 1, Timeout: 7 * time.Second},
		func(ctx context.Context, _ pabaltest.Tx, _ pabal.Received[Paid]) error {
			return p.Sleep(ctx, time.Hour)
		})
	p.record(view(1))
	p.Pass(6 * time.Second)
	if len(p.received(settlement)) != 0 {
		t.Error("given up early")
	}
	p.Settle(2 * time.Second)
	if rows := p.received(settlement); len(rows) != 1 || !strings.Contains(rows[0].LastError, context.DeadlineExceeded.Error()) {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestHandlerThatIgnoresItsContextLosesItsTransaction(t *testing.T) {
	p := newProtocol(t)
	var late error
	first := true
	settlement := p.settlement(pabal.ConsumerOptions{Timeout: time.Second},
		func(ctx context.Context, tx pabaltest.Tx, _ pabal.Received[Paid]) error {
			if !first {
				return nil
			}
			first = false
			_ = p.Sleep(context.Background(), time.Minute)
			late = tx.Commit(context.Background())
			return late
		})
	p.record(pay("A1", 1))
	p.Pass(5 * time.Second)
	p.expectCount("consume failed", 0)
	p.Pass(2 * time.Second) // 1 s of its own, 5 s of grace
	p.expectCount("consume failed", 1)
	p.Settle(time.Minute)
	p.expectHandled("A1:1")
	p.Pass(time.Minute)
	if late == nil || p.effects(settlement) != 1 {
		t.Errorf("P4: it committed after it was given up (%v), %d effects", late, p.effects(settlement))
	}
	if err := p.Stop(settlement); err == nil || !strings.Contains(err.Error(), "handler ignored its cancelled context") {
		t.Errorf("Run returned %v", err)
	}
}

func TestHandlerThatCommitsItsTransactionHasOneEffect(t *testing.T) {
	for _, answer := range []error{nil, errMood} { // whatever it says afterwards
		p := newProtocol(t)
		settlement := p.bareSettlement(pabal.ConsumerOptions{},
			func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
				p.handled = append(p.handled, fmt.Sprint(e.Data.Amount))
				if err := errors.Join(tx.Put(ctx, "effect", e.ID.String(), 1), tx.Commit(ctx)); err != nil {
					t.Error(err)
				}
				return answer
			})
		b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("B1", 4))
		p.deliver(b[2], b[1], b[0], b[0], b[3])
		p.Settle(time.Minute)
		if n := p.effects(settlement); n != 4 || len(p.handled) != 4 {
			t.Errorf("handled %v, %d effects", p.handled, n)
		}
		if rows := p.received(settlement); len(rows) != 0 {
			t.Errorf("kept %q", kept(rows))
		}
	}
}

func TestHandlerThatCommitsStrandsNothingThatNobodyHandles(t *testing.T) {
	p := newProtocol(t)
	settlement := p.bareSettlement(pabal.ConsumerOptions{}, commits)
	refunded := pabal.Define("order-refunded", pabal.Key(func(p Paid) string { return p.OrderNo })).On(OrderPaid.Topic())
	b := p.intercept(pay("A1", 1), refunded.New(Paid{"A1", 2}))
	p.deliver(b[1], b[0]) // the second, for which there is no handler, waits behind the first
	p.Settle(time.Minute)
	if n := p.effects(settlement); n != 1 {
		t.Errorf("%d effects of one event that has a handler", n)
	}
	if rows := p.received(settlement); len(rows) != 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestHandlerThatCommitsStrandsNothingOfAnotherKey(t *testing.T) {
	p := newProtocol(t)
	settlement := p.bareSettlement(pabal.ConsumerOptions{Concurrency: 1}, commits)
	refunded := pabal.Define("order-refunded", pabal.Key(func(p Paid) string { return p.OrderNo })).On(OrderPaid.Topic())
	b := p.intercept(refunded.New(Paid{"A1", 1}), pay("A1", 2), pay("A1", 3), refunded.New(Paid{"B1", 1}), pay("B1", 2))
	p.deliver(b[1], b[2], b[4]) // wait behind their predecessors
	p.deliver(b[0], b[3])       // which come in one transaction, and have no handler
	p.Settle(time.Minute)
	if n := p.effects(settlement); n != 3 {
		t.Errorf("%d effects of three events that have a handler", n)
	}
	if rows := p.received(settlement); len(rows) != 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestBatchHandlerThatCommitsLosesNothingBehindASkip(t *testing.T) {
	p := newProtocol(t)
	client := p.committing("A1", 100)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("A1", 4))
	p.deliver(b[0], skipped(t, b[1]), b[2], b[3]) // one batch
	p.expectEffects(client, 3)
}

// TestBatchHandlerThatCommitsStrandsNoKey: it commits in the second of three calls, each with a part of what there is of some keys.
func TestBatchHandlerThatCommitsStrandsNoKey(t *testing.T) {
	p := newProtocol(t)
	client := p.committing("C1", 100)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("B1", 1), pay("C1", 1), pay("C1", 2))
	p.deliver(skipped(t, b[1]), b[4])       // held
	p.deliver(b[0], skipped(t, b[2]), b[3]) // a skip ends a batch: A1; B1 and C1; the held ones of A1 and C1
	p.expectEffects(client, 3)
}

// TestBatchHandlerThatCommitsStrandsNothingThatCameTooEarly: what came before its predecessor, in the same batch, is handled by a later call.
func TestBatchHandlerThatCommitsStrandsNothingThatCameTooEarly(t *testing.T) {
	p := newProtocol(t)
	client := p.committing("A1", 2)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.deliver(b[1])
	p.deliver(b[2], b[0])
	p.expectEffects(client, 3)
}

// committing is a settlement service whose handler takes batches of at most so many, and commits by itself those that have an event of
// the key.
func (p *protocol) committing(key string, batch int) *pabaltest.Client {
	client := p.ClientWith("settlement", &p.options)
	pabal.HandleBatch(client.Consumer("settlement", &pabal.ConsumerOptions{Concurrency: 1, Batch: batch}), OrderPaid,
		func(ctx context.Context, tx pabaltest.Tx, es []pabal.Received[Paid]) error {
			commit := false
			for _, e := range es {
				if err := tx.Put(ctx, "effect", e.ID.String(), 1); err != nil {
					return err
				}
				commit = commit || e.Key == key
			}
			if commit {
				return tx.Commit(ctx)
			}
			return nil
		})
	return client
}

// expectEffects sees to it that so many events have been handled in the end, and nothing is kept.
func (p *protocol) expectEffects(client *pabaltest.Client, want int) {
	p.t.Helper()
	p.Settle(time.Minute)
	if n := p.effects(client); n != want {
		p.t.Errorf("%d effects, not %d", n, want)
	}
	if rows := p.received(client); len(rows) != 0 {
		p.t.Errorf("kept %q", kept(rows))
	}
}

func skipped(t *testing.T, body []byte) []byte {
	return edited(t, body, map[string]any{"skipped": true, "data": nil})
}

// commits is a handler that commits its transaction by itself.
func commits(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
	return errors.Join(tx.Put(ctx, "effect", e.ID.String(), 1), tx.Commit(ctx))
}

// rollsBack is a handler that rolls back its transaction for events of one amount, and says that all is well.
func (p *protocol) rollsBack(amount int, tries *int) handle {
	return func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
		if e.Data.Amount == amount {
			*tries++
			tx.Rollback(ctx)
			return nil
		}
		return tx.Put(ctx, "effect", e.ID.String(), 1)
	}
}

func TestHandlerThatRollsBackItsTransactionHasFailed(t *testing.T) {
	p := newProtocol(t)
	tries := 0
	settlement := p.bareSettlement(pabal.ConsumerOptions{Tries: 3}, p.rollsBack(1, &tries))
	p.record(pay("A1", 1), view(1))
	p.Settle(time.Minute)
	for _, row := range p.received(settlement) {
		if row.State != driver.Parked || row.Failures != 3 || !strings.Contains(row.LastError, "rolled back its transaction") {
			t.Errorf("kept %q", kept([]driver.Row{row}))
		}
	}
	if tries != 6 {
		t.Errorf("tried %d times", tries)
	}
}

func TestHandlerThatRollsBackBeforeItsSuccessorsHasFailed(t *testing.T) {
	p := newProtocol(t)
	tries := 0
	settlement := p.bareSettlement(pabal.ConsumerOptions{Tries: 3}, p.rollsBack(1, &tries))
	b := p.intercept(pay("A1", 1), pay("A1", 2))
	p.deliver(b[1], b[0])
	p.Pass(time.Minute)
	rows := p.received(settlement)
	if len(rows) != 2 || rows[0].State != driver.Parked || rows[0].Failures != 3 || tries > 6 {
		t.Errorf("after %d tries kept %q", tries, kept(rows))
	}
	if n := p.Delivered("settlement"); n != 2 {
		t.Errorf("%d deliveries", n)
	}
}

func TestSuccessorThatRollsBackHasFailedAlone(t *testing.T) {
	p := newProtocol(t)
	tries := 0
	settlement := p.bareSettlement(pabal.ConsumerOptions{Tries: 3}, p.rollsBack(2, &tries))
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.deliver(b[2], b[1], b[0])
	p.Pass(time.Minute)
	rows := p.received(settlement)
	if len(rows) != 2 || rows[0].State != driver.Parked || rows[0].Failures != 3 || p.effects(settlement) != 1 {
		t.Errorf("after %d tries %d effects, kept %q", tries, p.effects(settlement), kept(rows))
	}
}

func TestConflictRepeatsAtOnceWithoutAFailure(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
		if e.Attempt != 1 {
			t.Errorf("attempt %d", e.Attempt)
		}
		first, second := "x", "y" // two that lock in opposite orders
		if e.Key == "B1" {
			first, second = second, first
		}
		err := tx.Put(ctx, "stock", first, e.Key)
		_ = p.Sleep(ctx, 100*time.Millisecond)
		return errors.Join(err, tx.Put(ctx, "stock", second, e.Key))
	})
	p.record(pay("A1", 1), pay("B1", 1))
	p.Settle(time.Second)
	if len(p.handled) != 2 {
		t.Errorf("handled %v", p.handled)
	}
	p.expectCount("consume failed", 0)
}

// deadly is a settlement service that is started again whenever its handler has killed it; it returns how often.
func (p *protocol) deadly(
	d time.Duration, o pabal.ConsumerOptions, kills func(pabal.Received[Paid]) bool, record func(),
) (deaths int, client *pabaltest.Client) {
	begin := func() {
		deadly := func(_ context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
			if kills(e) {
				deaths++
				p.Kill(client)
			}
			return nil
		}
		o.Timeout = 5 * time.Second
		client = p.settlement(o, deadly)
	}
	begin()
	record()
	lives := 0
	for end := p.Now().Add(d); p.Now().Before(end); {
		if p.Pass(time.Second); deaths > lives {
			lives = deaths
			begin()
		}
	}
	return deaths, client
}

func TestEventThatKillsItsProcessIsParkedUnrunAtTen(t *testing.T) {
	p := newProtocol(t)
	events := []pabal.Event{pay("A1", 0)}
	for n := range 20 {
		events = append(events, pay(fmt.Sprint("B", n), 1))
	}
	deaths, settlement := p.deadly(10*time.Minute, pabal.ConsumerOptions{},
		func(e pabal.Received[Paid]) bool { return e.Key == "A1" && e.Data.Amount == 0 },
		func() {
			p.record(events...)
			p.record(pay("A1", 1))
		})
	rows := p.received(settlement)
	if len(rows) != 2 || rows[0].State != driver.Parked || rows[0].Reason != "crashed" || rows[1].State != driver.Held {
		t.Fatalf("after %d deaths kept %q", deaths, kept(rows))
	}
	if deaths != 11 { // the delivery's, which is not counted yet, and ten starts
		t.Errorf("killed %d processes", deaths)
	}
	if n := p.effects(settlement); n != 20 { // the other keys go on
		t.Errorf("%d effects", n)
	}
	if said := p.troubles(settlement); !strings.Contains(said, "is parked: crashed") {
		t.Errorf("P6: status says %s", said)
	}
}

func TestPassParkedLetsTheKeyGoOnBehindWhatKillsItsProcess(t *testing.T) {
	p := newProtocol(t)
	_, settlement := p.deadly(10*time.Minute, pabal.ConsumerOptions{PassParked: true},
		func(e pabal.Received[Paid]) bool { return e.Data.Amount == 1 },
		func() { p.record(pay("A1", 0), pay("A1", 1), pay("A1", 2), pay("A1", 3)) })
	p.expectHandled("A1:0", "A1:2", "A1:3")
	if rows := p.received(settlement); len(rows) != 1 || rows[0].State != driver.Parked || rows[0].Reason != "crashed" {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestWhatWasStartedFourTimesRunsWithoutItsSuccessors(t *testing.T) {
	p := newProtocol(t)
	deaths, settlement := p.deadly(20*time.Minute, pabal.ConsumerOptions{},
		func(e pabal.Received[Paid]) bool { return e.Data.Amount == 2 },
		func() {
			p.AnswerNext(pabaltest.Again) // so that the second comes first
			p.record(pay("A1", 1))
			p.record(pay("A1", 2))
		})
	if n := p.effects(settlement); n != 1 {
		t.Errorf("%d effects: the innocent one dies with its successor", n)
	}
	if rows := p.received(settlement); len(rows) != 1 || rows[0].Reason != "crashed" {
		t.Errorf("kept %q", kept(rows))
	}
	if deaths != 1+3+10 { // as a delivery, started three times with its successor, then that one by itself
		t.Errorf("killed %d processes", deaths)
	}
}

func TestTooOldToTellIsParkedNeverRun(t *testing.T) {
	p := newProtocolWith(t, short)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2))
	p.deliver(b...)
	p.expectHandled("A1:1", "A1:2")
	p.away(6*day, settlement)
	settlement = p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(3 * time.Hour)
	p.deliver(b...) // nobody remembers them
	p.Pass(time.Minute)
	p.expectHandled("A1:1", "A1:2")
	rows := p.received(settlement)
	if len(rows) != 2 || rows[0].Reason != "too old to tell" || rows[1].State != driver.Parked {
		t.Errorf("kept %q", kept(rows))
	}
	if said := p.troubles(settlement); !strings.Contains(said, "is parked: too old to tell") {
		t.Errorf("P6: status says %s", said)
	}
}
