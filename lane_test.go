package pabal

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// load has events be offered, one each so long.
func (p *publisher) load(every time.Duration) {
	at := world.Mono(time.Second)
	for range 10 {
		p.offered.add(1, at)
		at = at.Add(every)
	}
}

// enqueue puts an entry into its lane, and says which it is.
func (p *publisher) enqueue(e entry) int {
	i := p.laneOf(&e.event)
	p.lanes[i].put(e)
	return i
}

func TestEventsFillALaneUnderLoadOnly(t *testing.T) {
	for _, c := range []struct {
		every time.Duration // an event comes
		least int           // in the second lane
		most  int
	}{
		{2 * time.Millisecond, 100, 200}, // what is in flight delays nobody
		{100 * time.Microsecond, 44, 44},
	} {
		for _, keyed := range []bool{false, true} {
			p := testPublisher(t, Options{Lanes: 2})
			p.begin()
			p.load(c.every)
			for n, e := range entriesOf(300) {
				if p.next++; keyed {
					e.event.Key = fmt.Sprint(n)
				}
				p.enqueue(e)
			}
			if n := len(p.lanes[1].queue); n < c.least || n > c.most || len(p.lanes[0].queue) != 300-n {
				t.Errorf("one each %v, with keys %v: lanes hold %d and %d", c.every, keyed, len(p.lanes[0].queue), n)
			}
		}
	}
}

// Where batches fill the first lane, events of a key that is on its way in another still go there, and no longer.
func TestEventsOfAKeyShareALaneWhileTheyAreOnTheirWay(t *testing.T) {
	p := testPublisher(t, Options{Lanes: 2})
	p.begin()
	next := func() entry {
		e := entriesOf(1)[0]
		e.event.Key = "A1"
		return e
	}
	if got := p.enqueue(next()); got != 1 {
		t.Fatalf("the key's lane is %d: another key is needed", got)
	}
	p.load(100 * time.Microsecond)
	queued := p.enqueue(next())
	batch, _ := p.take(t.Context(), p.lanes[1])
	inFlight := p.enqueue(next())
	if queued != 1 || inFlight != 1 {
		t.Errorf("lane %d while one is queued, %d while it is in a call", queued, inFlight)
	}
	p.accept(batch)
	last, _ := p.take(t.Context(), p.lanes[1])
	p.accept(last)
	if got := p.enqueue(next()); got != 0 {
		t.Errorf("lane %d when nothing of the key is on its way", got)
	}
	if len(batch) != 2 || len(last) != 1 || len(p.stays) != 1 {
		t.Errorf("calls of %d and %d events, %d keys stay", len(batch), len(last), len(p.stays))
	}
}

// What may not be sent any more leaves as well.
func TestWhatIsGivenBackLeavesItsLane(t *testing.T) {
	p := testPublisher(t, Options{Lanes: 2})
	p.begin()
	batch := entriesOf(3)
	for i := range batch {
		batch[i].event.Key = "A1"
		p.enqueue(batch[i])
	}
	batch[1].leaseEnd = 0
	batch = p.sendable(batch, "paid")
	if len(batch) != 2 || p.stays[spread("paid", "A1")].n != 2 {
		t.Errorf("%d may be sent, %+v stay", len(batch), p.stays)
	}
	p.topic("paid").misses = missesMax
	if batch = p.sendable(batch, "paid"); len(batch) != 1 || p.stays[spread("paid", "A1")].n != 1 {
		t.Errorf("one goes alone: %d may be sent, %+v stay", len(batch), p.stays)
	}
	gone, end := context.WithCancel(t.Context())
	end()
	p.lanes[1].queue = p.lanes[1].queue[:1]
	if p.take(gone, p.lanes[1]); len(p.stays) > 0 {
		t.Errorf("at the end %+v stay", p.stays)
	}
}

// What gathers goes as soon as there is enough of it.
func TestGatheringEndsWithEnough(t *testing.T) {
	h := &house{w: world.Real()}
	l := &lane[int]{wake: h.w.NewSignal()}
	g := gathering{events: 2}
	took := func(d time.Duration) time.Duration {
		start := time.Now()
		gather(t.Context(), h, l, g, d)
		return time.Since(start)
	}
	put := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		l.put(1)
	}
	put()
	if d := took(20 * time.Millisecond); d < 20*time.Millisecond {
		t.Errorf("with one of two it took %v", d)
	}
	time.AfterFunc(10*time.Millisecond, put)
	if d := took(time.Minute); d > 30*time.Second {
		t.Errorf("with a second one it took %v", d)
	}
	if d := took(time.Minute); d > 30*time.Second {
		t.Errorf("with enough it took %v", d)
	}
	l.queue = nil
	_ = l.wake.Wait(t.Context(), 0)
	if put(); !l.wake.Wait(t.Context(), 0) {
		t.Error("one that comes later wakes nobody")
	}
}

// A batch is of one handler: arrivals of others are passed over, and what else there is of their keys, which would overtake them. What
// was tried before is alone.
func TestBatchPassesOverOtherHandlersAndTheirKeys(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	c.handlers = map[string]*handler[int]{"paid": {name: "paid", batch: true}, "viewed": {name: "viewed", batch: true}, "alone": {name: "alone"}}
	c.o.Batch = 5
	l := c.lanes[0]
	arrive := func(name, kind, key string) *arrival {
		row := planRow(1)
		row.Type, row.Key, row.Reason = kind, key, name
		if key == "" {
			row.Position = 0
		}
		a := planArrival(row)
		a.delivery = &driver.Delivery{Attempt: 1}
		return a
	}
	over := arrive("over", "paid", "A")
	over.over = true
	again := arrive("3", "paid", "B")
	again.delivery.Attempt = 2
	l.queue = []*arrival{
		arrive("1", "paid", "A"), arrive("2", "viewed", "B"), over, again, arrive("4", "alone", ""), arrive("5", "paid", ""),
		arrive("6", "paid", "A"), arrive("7", "viewed", "A"), arrive("8", "paid", "A"), arrive("9", "viewed", "C"), arrive("10", "paid", "D"),
	}
	for _, want := range []string{"[1 5 6 10]", "[2 7 9]", "[3]", "[4]", "[8]", "[]"} {
		group, _ := c.take(t.Context(), l)
		names := []string{}
		for _, a := range group {
			names = append(names, a.row.Reason)
		}
		if got := fmt.Sprint(names); got != want {
			t.Errorf("a batch of %s, want %s", got, want)
		}
	}
}

// However many are passed over, those a batch looks through are bounded.
func TestBatchLooksThroughSoManyAtMost(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	c.handlers = map[string]*handler[int]{"paid": {name: "paid", batch: true}, "viewed": {name: "viewed", batch: true}}
	c.o.Batch = 5
	l := c.lanes[0]
	for n := range 1 + passMost*c.o.Batch + 1 {
		a := planArrival(driver.Row{Type: "viewed"})
		if n == 0 || n == passMost*c.o.Batch+1 {
			a.row.Type = "paid"
		}
		a.delivery = &driver.Delivery{Attempt: 1}
		l.queue = append(l.queue, a)
	}
	if group, _ := c.take(t.Context(), l); len(group) != 1 || len(l.queue) != passMost*c.o.Batch+1 {
		t.Errorf("a batch of %d, %d are left", len(group), len(l.queue))
	}
}
