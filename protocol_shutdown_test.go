package pabal_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestStopPublishesWhatIsQueued(t *testing.T) {
	p := newProtocolWith(t, pabal.Options{Lanes: 1}) // one call at a time, or all of them are on their way
	p.record(view(0))
	p.Settle(time.Second)
	events := make([]pabal.Event, 1000)
	for i := range events {
		events[i] = view(i)
	}
	p.record(events...)
	start := p.Now()
	if err := p.Stop(p.order); err != nil || p.Now().Sub(start) > 10*time.Second {
		t.Errorf("Run returned %v after %v", err, p.Now().Sub(start))
	}
	if len(p.sent) != 1001 {
		t.Errorf("%d published", len(p.sent))
	}
}

func TestStopReleasesLeases(t *testing.T) {
	p := newProtocolWith(t, pabal.Options{Lease: 10 * time.Minute, Lanes: 1})
	p.record(view(0))
	p.Settle(time.Second)
	p.BrokerAway(time.Minute)
	binary := pabal.Define[[]byte]("binary")
	events := []pabal.Event{view(1)}
	for range 80 { // nine calls, of which five show that the topic does not accept
		events = append(events, binary.New(make([]byte, 100_000)))
	}
	p.record(events...)
	start := p.Now()
	if err := p.Stop(p.order); err != nil || p.Now().Sub(start) > 25*time.Second {
		t.Errorf("Run returned %v after %v", err, p.Now().Sub(start))
	}
	p.order = p.another()
	p.Pass(start.Add(time.Minute).Sub(p.Now()))
	p.Settle(90 * time.Second) // and not after ten minutes
	p.expectCount("confirm confirmed", 82)
}

func TestStopWritesWhatWasAccepted(t *testing.T) {
	p := newProtocol(t)
	p.record(view(0))
	p.Settle(time.Second)
	p.answer = func(pabaltest.Message) pabaltest.Answer { return pabaltest.Forget }
	p.record(view(1))
	p.Pass(time.Millisecond)
	start := p.Now()
	if err := p.Stop(p.order); err != nil || p.Now().Sub(start) > time.Second { // it is not gathered for as long as usual
		t.Errorf("Run returned %v after %v", err, p.Now().Sub(start))
	}
	if e := p.events()[1]; e.Pending.AcceptedAt.IsZero() {
		t.Errorf("%+v", e.Pending)
	}
}

func TestStopLetsHandlersEndAndGivesTheRestBack(t *testing.T) {
	p := newProtocol(t)
	slow := func(ctx context.Context, _ pabaltest.Tx, _ pabal.Received[Paid]) error {
		return p.Sleep(ctx, 5*time.Second)
	}
	settlement := p.settlement(pabal.ConsumerOptions{Concurrency: 1}, slow)
	for n := range 4 {
		p.record(pay("A1", n))
	}
	p.Pass(time.Second)
	start := p.Now()
	if err := p.Stop(settlement); err != nil || p.Now().Sub(start) > 8*time.Second {
		t.Errorf("Run returned %v after %v", err, p.Now().Sub(start))
	}
	p.expectHandled("A1:0")
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.Settle(5 * time.Second) // not after the 30 s for which the broker would leave them to the one that has ended
	p.expectHandled("A1:0", "A1:1", "A1:2", "A1:3")
	if n := p.Delivered("settlement"); n != 7 {
		t.Errorf("%d deliveries, want four and three again", n)
	}
}

func TestStopCancelsHandlersAfterEightSeconds(t *testing.T) {
	p := newProtocol(t)
	first := true
	settlement := p.settlement(pabal.ConsumerOptions{}, func(ctx context.Context, _ pabaltest.Tx, _ pabal.Received[Paid]) error {
		if !first {
			return nil
		}
		first = false
		return p.Sleep(ctx, time.Hour)
	})
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	start := p.Now()
	if err := p.Stop(settlement); err != nil || p.Now().Sub(start) > 9*time.Second {
		t.Errorf("Run returned %v after %v", err, p.Now().Sub(start))
	}
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.Settle(5 * time.Second)
	p.expectHandled("A1:1")
	p.expectCount("consume failed", 0) // that was no failure of the handler
}

func TestRunReturnsWithinTwentyFiveSecondsWhateverHangs(t *testing.T) {
	p := newProtocol(t)
	p.settlement(pabal.ConsumerOptions{}, nil)
	hung := p.order.Consumer("audit", nil)
	pabal.Handle(hung, OrderPaid, func(context.Context, pabaltest.Tx, pabal.Received[Paid]) error {
		return p.Sleep(context.Background(), time.Hour)
	})
	p.record(pay("A1", 1))
	p.Pass(time.Second)
	p.BrokerAway(time.Hour)
	var events []pabal.Event
	for n := range 12 { // of twelve topics, one after the other in a lane, each for as long as a call may take
		events = append(events, pabal.Define[int](fmt.Sprint("topic-", n)).New(n))
	}
	p.record(events...)
	p.DatabaseAway(p.order, time.Hour)
	start := p.Now()
	err := p.Stop(p.order)
	if d := p.Now().Sub(start); d > 25*time.Second {
		t.Errorf("Run returned after %v", d)
	}
	if err == nil || !strings.Contains(err.Error(), "consumer audit: handler ignored its cancelled context") ||
		!strings.Contains(err.Error(), p.events()[0].Event.ID.String()) {
		t.Errorf("Run returned %v", err)
	}
}

// P3: the broker's absence delays the first start of a service, and no later one.
func TestServiceThatRanBeforeOpensWithoutItsBroker(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 1))
	p.Settle(time.Minute)
	p.Kill(p.order)
	p.Kill(settlement)
	p.BrokerAway(10 * time.Minute)
	p.order = p.another()
	p.settlement(pabal.ConsumerOptions{}, nil)
	p.record(pay("A1", 2)) // fails the test when one of the two is not ready
	p.Settle(time.Hour)
	if got := fmt.Sprint(p.handled); got != "[A1:1 A1:2]" {
		t.Errorf("handled %s", got)
	}
}

// In the real world, where a handler that hangs is a goroutine that nobody can end.
func TestHungHandlerLosesItsConnectionOnGoroutines(t *testing.T) {
	const pace = 50
	w := world.Hurried(pace)
	database, broker := sim.NewDatabase(w, sim.DatabaseOptions{}), sim.NewBrokerServer(w, sim.BrokerOptions{})
	store := database.Connect(w, sim.Direct)
	client, err := pabal.New(t.Context(), store, broker.Connect(w, sim.Direct), "order", &pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	release, committed := make(chan struct{}), make(chan error, 1)
	consumer := client.Consumer("audit", &pabal.ConsumerOptions{Timeout: time.Second})
	pabal.Handle(consumer, OrderPaid, func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
		if e.Attempt > 1 {
			return tx.Put(ctx, "effect", e.Key, e.Attempt)
		}
		<-release // whatever its context says
		committed <- tx.Commit(context.Background())
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	if err := client.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := store.Begin(t.Context())
	if err == nil {
		err = client.Record(t.Context(), tx, pay("A1", 1))
	}
	if err != nil || tx.Commit(t.Context()) != nil {
		t.Fatal(err)
	}
	for deadline := w.Now().Add(10 * time.Minute); database.Business("effect", "A1") == nil; _ = w.Sleep(t.Context(), time.Second) {
		if w.Now() > deadline {
			t.Fatal("the event is not tried again while its first handler hangs")
		}
	}
	stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "handler ignored its cancelled context for 5s") {
		t.Errorf("Run returned %v", err)
	}
	close(release)
	if err := <-committed; err == nil {
		t.Error("P4: the handler that was given up could commit")
	}
	if got := fmt.Sprint(database.Business("effect", "A1")); got != "2" {
		t.Errorf("the effect is of attempt %s", got)
	}
}
