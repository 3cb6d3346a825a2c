package pabal

import (
	"context"
	"fmt"
	"testing"
	"time"

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
