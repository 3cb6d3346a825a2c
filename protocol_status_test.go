package pabal_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestOnlyTheMissingPredecessorIsCalledMissing(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.deliver(b[1], b[2])
	p.Pass(31 * time.Second)
	if said := p.troubles(settlement); strings.Contains(said, fmt.Sprintf("%s is missing", read(t, b[1]).ID)) {
		t.Errorf("an event that lies in the inbox is called missing:\n%s", said)
	}
}

func TestEachHeldRowIsExplained(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{Tries: 1}, p.fails(9))
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3), pay("B1", 9), pay("B1", 2))
	p.deliver(b[1], b[2], b[3], b[4])
	p.Pass(time.Minute)
	var said []string
	for _, trouble := range settlement.Explain("settlement", p.received(settlement)) {
		said = append(said, trouble.What+" | "+trouble.Command)
	}
	for i, want := range []string{
		fmt.Sprintf("its predecessor %s is missing | pabal events redeliver --id %[1]s --to settlement", read(t, b[0]).ID),
		fmt.Sprintf("its predecessor %s is held here too | ", read(t, b[1]).ID),
		fmt.Sprintf("is parked: failed failed: %v | pabal inbox retry --consumer settlement %s", errMood, read(t, b[3]).ID),
		fmt.Sprintf("its predecessor %s is parked here too | ", read(t, b[3]).ID),
	} {
		if i >= len(said) || !strings.Contains(said[i], want) {
			t.Errorf("row %d: %q, want %q", i, said, want)
		}
	}
}

func TestHeldLongIsShownBehindManyThatAreHeldJustNow(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	var events []pabal.Event
	for n := range 30 {
		events = append(events, pay(fmt.Sprintf("A%02d", n), 1), pay(fmt.Sprintf("A%02d", n), 2))
	}
	b := p.intercept(append(events, pay("Z", 1), pay("Z", 2))...)
	p.deliver(b[61])
	p.Pass(31 * time.Second)
	for n := range 30 {
		p.Send("settlement", b[2*n+1])
	}
	p.Pass(time.Second)
	if said := p.troubles(settlement); !strings.Contains(said, read(t, b[60]).ID.String()) {
		t.Errorf("P6: held for half a minute, and status says %q", said)
	}
}

func TestHeldForAnEventThatIsMissingIsShownBehindManyThatWaitForThoseBeforeThem(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.Pass(time.Minute)
	var events []pabal.Event
	for n := range 30 {
		events = append(events, pay("A1", n))
	}
	b := p.intercept(append(events, pay("B1", 1), pay("B1", 2))...)
	p.deliver(b[1:30]...)
	p.deliver(b[31])
	p.Pass(time.Minute)
	said := p.troubles(settlement)
	for _, missing := range [][]byte{b[0], b[30]} {
		if !strings.Contains(said, fmt.Sprintf("%s is missing", read(t, missing).ID)) {
			t.Errorf("P6: %s is missing, and status says %q", read(t, missing).ID, said)
		}
	}
}

func TestHeldLongIsNotHiddenByMoreThanIsRead(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	var events []pabal.Event
	for n := range 250 {
		events = append(events, pay(fmt.Sprintf("A%03d", n), 1), pay(fmt.Sprintf("A%03d", n), 2))
	}
	p.answer = func(m pabaltest.Message) pabaltest.Answer { return pabaltest.Forget }
	p.record(pay("Z", 1), pay("Z", 2))
	p.record(events...)
	p.Pass(time.Second)
	second := map[string][]byte{}
	for _, s := range p.sent {
		second[s.Key] = s.Body // the later one of each key
	}
	p.deliver(second["Z"])
	p.Pass(31 * time.Second)
	for key, body := range second {
		if key != "Z" {
			p.Send("settlement", body)
		}
	}
	p.Pass(time.Second)
	if said := p.troubles(settlement); !strings.Contains(said, "settlement: of 251 events that are held one has been for long") {
		t.Errorf("P6: status says %q", said)
	}
}

func TestOverflowIsShownAndItsCommandCompletesTheKey(t *testing.T) {
	p := newProtocol(t)
	client := p.Client("billing")
	next := 0
	consumer := client.Consumer("billing", &pabal.ConsumerOptions{Concurrency: 1, Batch: 1000})
	pabal.HandleBatch(consumer, OrderPaid, func(_ context.Context, _ pabaltest.Tx, es []pabal.Received[Paid]) error {
		for _, e := range es {
			if e.Data.Amount != next {
				t.Fatalf("P5: handled %d, want %d", e.Data.Amount, next)
			}
			next++
		}
		return nil
	})
	p.AnswerNext(pabaltest.Forget)
	p.record(pay("A1", 0))
	p.Pass(time.Second)
	const all = driver.CountMax + 501
	for n := 1; n < all; n += 1000 {
		var events []pabal.Event
		for i := n; i < min(n+1000, all); i++ {
			events = append(events, pay("A1", i))
		}
		p.record(events...)
	}
	p.Pass(time.Minute)
	status := p.status(client)
	if len(status.Overflowing) != 1 || status.Consumers[0].Held != driver.CountMax || next != 0 {
		t.Fatalf("handled %d, held %+v, overflowing %+v", next, status.Consumers, status.Overflowing)
	}
	said := p.troubles(client)
	overflow := status.Overflowing[0].Overflow
	from := overflow.RecordedAt.Format(time.RFC3339Nano)
	if !strings.Contains(said, "overflows") ||
		!strings.Contains(said, fmt.Sprintf("pabal events redeliver --topic %s --key \"A1\" --from %s --to billing", OrderPaid.Topic(), from)) {
		t.Fatalf("P6: status says %s", said)
	}
	p.Settle(10 * time.Minute) // the first was accepted and forgotten: it comes by itself
	if next != driver.CountMax+1 {
		t.Errorf("handled %d of what was held", next)
	}
	_, err := p.order.Redeliver(t.Context(), pabal.Redelivery{
		Topic: OrderPaid.Topic(), Key: "A1", From: overflow.RecordedAt, Consumer: "billing", Rate: 10_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Pass(time.Minute)
	if status = p.status(client); next != all || len(status.Overflowing) != 0 {
		t.Errorf("handled %d of %d, overflowing %+v", next, all, status.Overflowing)
	}
}

// P6: who asks hears which of the two does not answer; and that the record queue is not there yet, to which nothing would come back.
func TestReachableNamesWhoDoesNotAnswer(t *testing.T) {
	p := newProtocol(t)
	says := func(want string, away func()) {
		t.Helper()
		var err error
		_ = p.InTx(p.order, func(pabaltest.Tx) error { // which a database that is away fails
			away()
			err = p.order.Reachable(t.Context())
			return nil
		})
		if said := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.HasPrefix(said, want) || strings.Contains(said, "\n") {
			t.Errorf("says %q, want %q", said, want)
		}
	}
	p.Pass(time.Second)
	says("", func() {})
	says("broker: ", func() { p.BrokerAway(time.Minute) })
	p.Pass(time.Minute)
	says("database: ", func() { p.DatabaseAway(p.order, time.Minute) })
	p.Pass(time.Minute)
	says("", func() {})
}

// silent is a database that says nothing until the caller gives up.
type silent struct{ driver.Store[*sim.Tx] }

func (silent) Read(ctx context.Context, _ driver.Query) (driver.Reading, error) {
	<-ctx.Done()
	return driver.Reading{}, ctx.Err()
}

// A database that takes all the time there is says nothing of the broker.
func TestReachableBlamesNobodyForAnother(t *testing.T) {
	w := world.Real()
	store := silent{sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)}
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)
	if err := broker.Check(t.Context(), driver.Topology{Queues: []driver.QueueSpec{{Name: recordQueue}}}, true); err != nil {
		t.Fatal(err)
	}
	client, err := pabal.New(t.Context(), driver.Store[*sim.Tx](store), broker, "order", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := client.Reachable(ctx); fmt.Sprint(err) != "database: context deadline exceeded" {
		t.Errorf("says %q", err)
	}
}

// replica is a database that answers, and takes nothing.
type replica struct{ driver.Store[*sim.Tx] }

func (r replica) Read(ctx context.Context, q driver.Query) (driver.Reading, error) {
	reading, err := r.Store.Read(ctx, q)
	reading.ReadOnly = true
	return reading, err
}

// After a failover a client may find itself at a replica: it says so, for none of its writes will go through.
func TestReachableTakesAReplicaForNoDatabase(t *testing.T) {
	w := world.Real()
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)
	if err := broker.Check(t.Context(), driver.Topology{Queues: []driver.QueueSpec{{Name: recordQueue}}}, true); err != nil {
		t.Fatal(err)
	}
	store := driver.Store[*sim.Tx](replica{sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)})
	client, err := pabal.New(t.Context(), store, broker, "order", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Reachable(t.Context()); fmt.Sprint(err) != "database: it only reads; is it a replica?" {
		t.Errorf("says %q", err)
	}
}

// Whoever looks for dead letters looks beside every queue of the store, once.
func TestQueuesOfAStatusAreThoseThatItsClientsReceiveFrom(t *testing.T) {
	of := func(source string, consumers ...string) string {
		s := pabal.Status{Source: source}
		for _, c := range consumers {
			s.Consumers = append(s.Consumers, driver.ConsumerCounts{Consumer: c})
		}
		return strings.Join(s.Queues(), " ")
	}
	for _, c := range []struct{ got, want string }{
		{of(""), ""}, {of("", "audit"), "audit"}, {of("order"), "event-record-order order"},
		{of("order", "audit", "order"), "event-record-order audit order"}, {of("order", "audit"), "event-record-order audit order"},
	} {
		if c.got != c.want {
			t.Errorf("%q, not %q", c.got, c.want)
		}
	}
}
