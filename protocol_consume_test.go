package pabal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabaltest"
)

// received is what the settlement's inbox holds.
func (p *protocol) received(c *pabaltest.Client) []driver.Row {
	p.t.Helper()
	rows, err := c.Received(p.t.Context(), "settlement", driver.RowFilter{Limit: 1000})
	if err != nil {
		p.t.Fatal(err)
	}
	return rows
}

// kept is what rows hold, in short.
func kept(rows []driver.Row) (texts []string) {
	for _, r := range rows {
		texts = append(texts, fmt.Sprintf("%s/%d %v %s failures=%d started=%d %s", r.Key, r.Position, r.State, r.Reason, r.Failures,
			r.Started, r.LastError))
	}
	return texts
}

// deliver puts messages into the settlement's queue, in order.
func (p *protocol) deliver(bodies ...[]byte) {
	p.t.Helper()
	for _, body := range bodies {
		p.Send("settlement", body)
	}
	p.Pass(time.Second)
}

func TestDuplicatesHaveOneEffect(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	bodies := p.intercept(pay("A1", 1), view(2))
	p.deliver(bodies[0], bodies[0], bodies[1], bodies[1])
	p.Kill(settlement)
	p.settlement(pabal.ConsumerOptions{}, nil) // the memory is the database's
	p.deliver(bodies...)
	p.Settle(time.Minute)
	if len(p.handled) != 2 {
		t.Errorf("handled %v", p.handled)
	}
	p.expectCount("consume duplicate", 4)
}

func TestOrderIsKeptWhenDeliveredInReverse(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("B1", 9), pay("A1", 4), pay("A1", 5), pay("A1", 6))
	p.deliver(b[4])
	p.deliver(b[2])
	p.deliver(b[1])
	p.deliver(b[3])
	p.expectHandled("B1:9") // another key goes on
	p.deliver(b[0])
	p.Settle(time.Second)
	p.expectHandled("B1:9", "A1:1", "A1:2", "A1:3", "A1:4")
	p.deliver(b[6]) // a gap behind the cursor
	p.expectHandled("B1:9", "A1:1", "A1:2", "A1:3", "A1:4")
	p.deliver(b[5])
	p.expectHandled("B1:9", "A1:1", "A1:2", "A1:3", "A1:4", "A1:5", "A1:6")
}

func TestHeldIsAcknowledgedAndShownAfterThirtySecondsWithTheCommand(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.deliver(b[1], b[2])
	if s := p.status(settlement); !s.Healthy {
		t.Errorf("shown at once: %+v", s.Troubles)
	}
	p.Kill(settlement)
	settlement = p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(31 * time.Second)
	if n := p.Delivered("settlement"); n != 2 { // rule 7: a FIFO broker would block the key
		t.Errorf("delivered %d times: not acknowledged", n)
	}
	missing := read(t, b[0]).ID
	if said := p.troubles(settlement); !strings.Contains(said, fmt.Sprintf("is held: its predecessor %s is missing", missing)) ||
		!strings.Contains(said, fmt.Sprintf("pabal events redeliver --id %s --to settlement", missing)) {
		t.Errorf("P6: status says %s", said)
	}
	_, err := p.order.Redeliver(t.Context(), pabal.Redelivery{IDs: []uuid.UUID{missing}, Consumer: "settlement"})
	if err != nil {
		t.Fatal(err)
	}
	p.Pass(20 * time.Second)
	p.expectHandled("A1:1", "A1:2", "A1:3")
	if s := p.status(settlement); !s.Healthy {
		t.Errorf("still shown: %+v", s.Troubles)
	}
}

func TestNoHandlerForATypeAdvances(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	refunded := pabal.Define("order-refunded", pabal.Key(func(p Paid) string { return p.OrderNo })).On(OrderPaid.Topic())
	p.record(pay("A1", 1))
	p.record(refunded.New(Paid{"A1", 2}))
	p.record(pay("A1", 3))
	p.Settle(time.Minute)
	p.expectHandled("A1:1", "A1:3")
	p.expectCount("consume no handler", 1)
}

func TestUnreadableIsParkedUnderTheHashOfItsBytes(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.deliver([]byte("<xml/>"), []byte("<xml/>"), []byte("{}"))
	rows := p.received(settlement)
	if len(rows) != 2 {
		t.Fatalf("%d rows, want one for each text", len(rows))
	}
	for _, row := range rows {
		if row.State != driver.Parked || row.Reason != "unreadable" || row.ID.Version() != 8 || row.LastError == "" {
			t.Errorf("%+v", row)
		}
	}
	if said := p.troubles(settlement); !strings.Contains(said, "is parked: unreadable") {
		t.Errorf("P6: status says %s", said)
	}
	if n, err := settlement.SkipReceived(t.Context(), "settlement", rows[0].ID, rows[1].ID); n != 2 || err != nil {
		t.Error(n, err)
	}
	p.Settle(10 * time.Second)
	if rows := p.received(settlement); len(rows) != 0 {
		t.Errorf("skipped, and still there: %+v", rows)
	}
}

func TestForeignIsHandledUnorderedAndOncePerSourceAndID(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	foreign := func(source, id string, n int) []byte {
		return fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":%q,"type":"order-pay-done","subject":"A1",
			"data":{"orderNo":"A1","amount":%d}}`, id, source, n)
	}
	p.deliver(foreign("erp", "2", 2), foreign("erp", "1", 1), foreign("erp", "2", 9), foreign("crm", "2", 3))
	p.Settle(time.Minute)
	if len(p.handled) != 3 {
		t.Errorf("handled %v", p.handled)
	}
	p.expectCount("consume duplicate", 1)
}

func TestForkIsParked(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	fork := edited(t, b[1], map[string]any{"id": uuid.New()})
	p.deliver(b[0], b[1], fork)
	if rows := p.received(settlement); len(rows) != 1 || rows[0].State != driver.Parked || rows[0].Reason != "fork" {
		t.Fatalf("%+v", rows)
	}
	p.deliver(b[2]) // the key goes on
	p.expectHandled("A1:1", "A1:2", "A1:3")
	if said := p.troubles(settlement); !strings.Contains(said, "is parked: fork") {
		t.Errorf("P6: status says %s", said)
	}
}

func TestForkThatComesFirstIsParkedOnceItsPlaceIsTaken(t *testing.T) {
	var log strings.Builder
	p := newProtocolWith(t, pabal.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	fork := edited(t, b[1], map[string]any{"id": "ffffffff-0000-7000-8000-000000000000"})
	p.deliver(fork, b[1], b[2], b[0])
	p.Settle(time.Minute)
	p.expectHandled("A1:1", "A1:2", "A1:3")
	if rows := p.received(settlement); len(rows) != 1 || rows[0].State != driver.Parked || rows[0].Reason != "fork" {
		t.Errorf("kept %q", kept(rows))
	}
	if said := log.String(); !strings.Contains(said, `msg="event parked" source=settlement consumer=settlement event_id=ffffffff-0000-7000-8000-000000000000 `) {
		t.Errorf("P6: the log says %s", said)
	}
}

func TestBeforeJoiningIsPassedOver(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), view(1))
	p.Pass(20 * time.Minute)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 4)) // its predecessor was recorded long before the queue was subscribed: the key begins here
	p.Settle(time.Minute)
	p.expectHandled("A1:4")
	p.deliver(sentNow(p, b[2]), sentNow(p, b[0]))
	p.Settle(time.Minute)
	p.expectHandled("A1:4")
	p.expectCount("consume before joining", 2)
}

func TestJoiningShortlyAfterWaitsALittleAndBeginsAtTheLowestHeld(t *testing.T) {
	p := newProtocol(t)
	p.intercept(pay("A1", 1))
	p.Pass(time.Minute)
	p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 2), pay("A1", 3))
	p.deliver(b[1])
	p.deliver(b[0])
	p.Pass(20 * time.Second)
	p.expectHandled()
	p.Settle(20 * time.Second)
	p.expectHandled("A1:2", "A1:3")
}

// sentNow is a message as one that is published now.
func sentNow(p *protocol, body []byte) []byte {
	return edited(p.t, body, map[string]any{"sentat": p.Now().UTC().Format(time.RFC3339Nano)})
}

// TestGapFromBeforeJoiningDoesNotStopItsKey: what lies between was sent before the queue was subscribed, and never again.
func TestGapFromBeforeJoiningDoesNotStopItsKey(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("A1", 4))
	p.Pass(time.Second)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Second)
	p.deliver(sentNow(p, b[3]), sentNow(p, b[1])) // both were refused at first
	p.Pass(time.Minute)
	p.expectHandled("A1:2")
	p.Pass(10 * time.Minute) // 2 × republish_after: the third might have been on its way
	p.expectHandled("A1:2", "A1:4")
	p.deliver(sentNow(p, b[2]))
	p.Settle(time.Second)
	p.expectHandled("A1:2", "A1:4")
	p.expectCount("consume before joining", 1)
	if rows := p.received(settlement); len(rows) > 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

// TestGapFromBeforeJoiningDoesNotStopItsKeyWhateverTheClocks: the producer's clock is ahead, so what came before seems to be from after joining.
func TestGapFromBeforeJoiningDoesNotStopItsKeyWhateverTheClocks(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2))
	at := func(d time.Duration) string { return p.Now().Add(d).UTC().Format(time.RFC3339Nano) }
	ahead := map[string]any{"prevtime": at(20 * time.Second), "sentat": at(30 * time.Second)}
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.deliver(edited(t, b[1], ahead))
	p.Pass(20 * time.Second)
	p.expectHandled()
	p.Settle(20 * time.Second)
	p.expectHandled("A1:2")
	if rows := p.received(settlement); len(rows) > 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

// TestGapFromBeforeJoiningIsFilledInTime: it was on its way after all.
func TestGapFromBeforeJoiningIsFilledInTime(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("A1", 4))
	p.Pass(time.Second)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Second)
	p.deliver(sentNow(p, b[1]))
	p.Pass(time.Minute)
	p.deliver(sentNow(p, b[3]))
	p.Pass(9 * time.Minute)
	p.expectHandled("A1:2")
	p.deliver(sentNow(p, b[2]))
	p.Settle(time.Second)
	p.expectHandled("A1:2", "A1:3", "A1:4")
}

// TestGapFromBeforeJoiningIsWaitedForFromTheKeysBeginning: what was held before the key began waits as long as what came after it.
func TestGapFromBeforeJoiningIsWaitedForFromTheKeysBeginning(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.Pass(time.Second)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Second)
	p.deliver(sentNow(p, b[2])) // held for 30 s: its key has not begun
	p.deliver(sentNow(p, b[0])) // the first of its key
	p.Pass(9 * time.Minute)
	p.expectHandled("A1:1")
	p.deliver(sentNow(p, b[1]))
	p.Settle(time.Second)
	p.expectHandled("A1:1", "A1:2", "A1:3")
}

func TestBacklogAtJoiningWaitsForItsPredecessors(t *testing.T) {
	p := newProtocol(t)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.Pass(time.Hour)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Second)
	p.deliver(sentNow(p, b[2])) // redelivered: sent long after it was recorded
	p.Pass(9 * time.Minute)     // of 2 × republish_after
	p.expectHandled()
	p.deliver(sentNow(p, b[1]), sentNow(p, b[0]))
	p.Settle(time.Second)
	p.expectHandled("A1:1", "A1:2", "A1:3")
	if rows := p.received(settlement); len(rows) > 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestSkippedEventIsDeliveredAsASkip(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 1))
	p.Settle(time.Second)
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		if strings.Contains(string(m.Body), `"amount":2`) {
			return pabaltest.Never
		}
		return pabaltest.Accept
	}
	p.record(pay("A1", 2))
	p.record(pay("A1", 3))
	p.Pass(time.Second)
	p.expectHandled("A1:1") // P5: the third waits
	if n, err := p.order.Skip(t.Context(), p.events()[1].Event.ID); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	p.Settle(15 * time.Second)
	p.expectHandled("A1:1", "A1:3")
	p.expectCount("consume skipped", 1)
	if last := p.sent[len(p.sent)-1]; !read(t, last.Body).Skipped || strings.Contains(string(last.Body), "amount") {
		t.Errorf("published as %s", last.Body)
	}
}

// What the first of two calls in one transaction leaves behind, in case its handler commits, is over once the second has run.
func TestSkipBetweenEventsOfABatchHasNoSecondEffect(t *testing.T) {
	p := newProtocol(t)
	settlement := p.ClientWith("settlement", &p.options)
	consumer := settlement.Consumer("settlement", &pabal.ConsumerOptions{Concurrency: 1})
	pabal.HandleBatch(consumer, orderViewed, func(_ context.Context, _ pabaltest.Tx, events []pabal.Received[Paid]) error {
		for _, e := range events {
			p.handled = append(p.handled, fmt.Sprint(e.Data.Amount))
		}
		return nil
	})
	b := p.intercept(view(1), view(2), view(3))
	p.deliver(b[0], edited(t, b[1], map[string]any{"skipped": true, "data": nil}), b[2])
	p.Pass(time.Minute)
	p.expectHandled("1", "3")
}

func TestConsumerWaitsForItsDatabaseAndNacksNothing(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Second)
	p.DatabaseAway(settlement, 5*time.Minute)
	for n := range 5 {
		p.record(pay("A1", n))
	}
	p.Pass(5 * time.Minute)
	p.expectHandled()
	p.Settle(time.Minute)
	p.expectHandled("A1:0", "A1:1", "A1:2", "A1:3", "A1:4")
	if n := p.Delivered("settlement"); n != 5 {
		t.Errorf("%d deliveries of 5 messages", n)
	}
}

func TestTwoProcessesOfAConsumerShareItsQueueAndKeepOrder(t *testing.T) {
	p := newProtocol(t)
	slow := func(ctx context.Context, _ pabaltest.Tx, e pabal.Received[Paid]) error {
		return p.Sleep(ctx, time.Duration(1+e.Data.Amount%3)*100*time.Millisecond)
	}
	p.settlement(pabal.ConsumerOptions{}, slow)
	p.settlement(pabal.ConsumerOptions{}, slow)
	want := map[string]int{}
	for n := range 60 {
		p.record(pay(fmt.Sprint("A", n%3), n/3))
	}
	p.Settle(2 * time.Minute)
	for _, done := range p.handled {
		key, amount, _ := strings.Cut(done, ":")
		if amount != fmt.Sprint(want[key]) {
			t.Fatalf("P5: %s handled %s, want %d", key, amount, want[key])
		}
		want[key]++
	}
	if len(p.handled) != 60 {
		t.Errorf("handled %d", len(p.handled))
	}
}

// P4: a broker that was away may bring several copies of an event together, and a batch handler gets it once.
func TestCopiesInOneTransactionHaveOneEffect(t *testing.T) {
	p := newProtocol(t)
	client := p.ClientWith("settlement", &p.options)
	consumer := client.Consumer("settlement", &pabal.ConsumerOptions{Concurrency: 1})
	handle := func(_ context.Context, _ pabaltest.Tx, es []pabal.Received[Paid]) error {
		for _, e := range es {
			p.handled = append(p.handled, fmt.Sprintf("%s:%d", e.Key, e.Data.Amount))
		}
		return nil
	}
	pabal.HandleBatch(consumer, orderViewed, handle)
	pabal.HandleBatch(consumer, OrderPaid, handle)
	bodies := p.intercept(view(1), pay("A1", 2), pay("A1", 3))
	p.deliver(bodies[0], bodies[0], bodies[0], bodies[1], bodies[1], bodies[2], bodies[1], bodies[2])
	p.Settle(time.Minute)
	p.expectHandled(":1", "A1:2", "A1:3")
	p.expectCount("consume duplicate", 5)
	if rows := p.received(client); len(rows) > 0 {
		t.Errorf("kept %q", kept(rows))
	}
}

func TestFailingBatchFallsBackToOneByOne(t *testing.T) {
	p := newProtocol(t)
	client := p.Client("billing")
	var sizes []int
	consumer := client.Consumer("billing", &pabal.ConsumerOptions{Concurrency: 1, Tries: 1})
	pabal.HandleBatch(consumer, orderViewed, func(_ context.Context, _ pabaltest.Tx, es []pabal.Received[Paid]) error {
		sizes = append(sizes, len(es))
		for _, e := range es {
			if e.Data.Amount == 3 {
				return errors.New("not this one")
			}
		}
		return nil
	})
	events := make([]pabal.Event, 10)
	for i := range events {
		events[i] = view(i)
	}
	p.record(events...)
	p.Settle(time.Minute)
	rows, err := client.Received(t.Context(), "billing", driver.RowFilter{Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].State != driver.Parked {
		t.Errorf("%v, kept %q", err, kept(rows))
	}
	if fmt.Sprint(sizes) != "[10 1 1 1 1 1 1 1 1 1 1]" {
		t.Errorf("calls of %v events", sizes)
	}
}
