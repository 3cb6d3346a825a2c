package pabal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What the simulation cannot see, for other code catches it later, is looked at here, decision by decision.

var planKey = driver.CursorKey{Source: "order", Topic: "order-pay-done", Key: "A1"}

// planned is a consumer with one handler, and the plan of a transaction of one key.
func planned(loaded driver.Loaded) (*Consumer[int], *planner[int]) {
	w := world.Real()
	c := &Consumer[int]{
		house: &house{w: w, o: Options{RepublishAfter: time.Minute}}, name: "settlement",
		o:        ConsumerOptions{Timeout: time.Second, Batch: 100, Tries: 10},
		handlers: map[string]*handler[int]{"paid": {name: "paid"}}, stays: stays{}, due: w.NewSignal(),
	}
	for range 8 {
		c.lanes = append(c.lanes, &lane[*arrival]{wake: w.NewSignal()})
	}
	loaded.Now = time.Now()
	return c, newPlanner(c, []driver.CursorKey{planKey}, &loaded)
}

// planRow is an event of the key, with its predecessor.
func planRow(position int64) driver.Row {
	return driver.Row{
		CursorKey: planKey, ID: uuid.New(), Type: "paid", Position: position,
		Prev: driver.Ref{ID: uuid.UUID{byte(position - 1)}, Position: position - 1, RecordedAt: time.Now()},
	}
}

func planArrival(row driver.Row) *arrival { return &arrival{row: row, event: &envelope{}} }

func TestFailedEventIsNotTriedBeforeItsTimeWhenItsKeyMoves(t *testing.T) {
	row := planRow(11)
	row.State, row.Failures, row.NextAt = driver.Held, 1, time.Now().Add(time.Hour)
	cursor := driver.Cursor{CursorKey: planKey, Begun: true, Began: 1, Last: row.Prev}
	_, p := planned(driver.Loaded{
		Cursors: []driver.Cursor{cursor}, Waiting: [][]driver.Row{{row}}, WaitingCount: []int{1},
	})
	p.states[0].moved = true
	if p.follow(successorsMax); len(p.chunks) > 0 || len(p.first.Rows) > 0 {
		t.Errorf("%d chunks, %d rows: its next try is in an hour", len(p.chunks), len(p.first.Rows))
	}
}

func TestStartedEventHasBegunItsCursorBeforeItself(t *testing.T) {
	_, p := planned(driver.Loaded{
		Cursors: []driver.Cursor{{CursorKey: planKey}}, Waiting: [][]driver.Row{nil}, WaitingCount: []int{0},
	})
	a := planArrival(planRow(11))
	a.delivery = &driver.Delivery{Attempt: 2}
	p.handle(a, &p.states[0])
	if len(p.first.Cursors) != 1 || p.first.Cursors[0].Last != a.row.Prev || p.first.Cursors[0].Began != 11 {
		t.Errorf("cursors %+v", p.first.Cursors)
	}
}

func TestFailedEventHasBegunItsCursorBeforeItself(t *testing.T) {
	loaded := driver.Loaded{
		Known: []*driver.Row{nil}, Cursors: []driver.Cursor{{CursorKey: planKey}}, Waiting: [][]driver.Row{nil}, WaitingCount: []int{0},
	}
	c, _ := planned(loaded)
	var saved driver.Save
	c.inbox = loads{loaded: loaded, saved: &saved}
	a := planArrival(planRow(11))
	if kept, _, err := c.keepIn(t.Context(), 0, a, errors.New("not in the mood")); !kept || err != nil {
		t.Fatalf("kept: %v, %v", kept, err)
	}
	if len(saved.Cursors) != 1 || saved.Cursors[0].Last != a.row.Prev || saved.Cursors[0].Began != 11 {
		t.Errorf("cursors %+v", saved.Cursors)
	}
}

func TestWhatWasStartedAgainIsSomebodyElses(t *testing.T) {
	loaded := driver.Loaded{Cursors: []driver.Cursor{{CursorKey: planKey}}, Waiting: [][]driver.Row{nil}, WaitingCount: []int{0}}
	c, p := planned(loaded)
	known := planRow(11)
	known.State, known.Started = driver.Held, 2
	a := planArrival(known)
	a.started = 1
	if p.resume(a, &known) {
		t.Error("it is handled by the one whose lease is over")
	}
	loaded.Known = []*driver.Row{&known}
	c.inbox = loads{loaded: loaded, saved: &driver.Save{}}
	if kept, _, err := c.keepIn(t.Context(), 0, a, errors.New("slow")); kept || err != nil {
		t.Errorf("the failure of the one whose lease is over is written down: %v", err)
	}
}

// loads is an inbox that can only be read.
type loads struct {
	driver.Inbox[int]
	loaded driver.Loaded
	saved  *driver.Save
}

func (l loads) Load(context.Context, int, driver.Load) (driver.Loaded, error) { return l.loaded, nil }
func (l loads) Save(_ context.Context, _ int, s driver.Save) error {
	*l.saved = s
	return nil
}

// lanesUsed says how many lanes arrivals went into, and empties them.
func lanesUsed(c *Consumer[int]) (used int) {
	for _, l := range c.lanes {
		if len(l.queue) > 0 {
			used++
		}
		c.left(l.queue...)
		l.queue = nil
	}
	return used
}

func TestEventsOfAKeyShareALane(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	for n := range 50 {
		c.enqueue(planArrival(planRow(int64(n + 1))))
	}
	if n := lanesUsed(c); n != 1 {
		t.Errorf("a key's events are in %d lanes", n)
	}
	for range 50 {
		c.enqueue(planArrival(driver.Row{ID: uuid.New()}))
	}
	if n := lanesUsed(c); n < 5 {
		t.Errorf("events without a key are in %d lanes only", n)
	}
	if len(c.stays) > 0 || c.waiting != 0 {
		t.Errorf("of what left, %d stay and %d wait", len(c.stays), c.waiting)
	}
}

func TestUnderLoadBatchesFillOneLaneFirst(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	for _, h := range c.handlers {
		h.batch = true
	}
	arrive := func(row driver.Row) int {
		a := planArrival(row)
		a.delivery = &driver.Delivery{Attempt: 1}
		c.enqueue(a)
		for i, l := range c.lanes {
			if len(l.queue) > 0 && l.queue[len(l.queue)-1] == a {
				return i
			}
		}
		return -1
	}
	early := planRow(1)
	early.Key = "early"
	at := arrive(early)
	c.offered.add(1, 1)
	c.offered.add(1000, world.Mono(100*time.Millisecond))
	for n := range 2 * c.o.Batch {
		row := planRow(1)
		row.Key = fmt.Sprint(n)
		if n%2 == 0 {
			row = driver.Row{ID: uuid.New(), Type: row.Type}
		}
		arrive(row)
	}
	late := planRow(2)
	late.Key = early.Key
	if again := arrive(late); again != at {
		t.Errorf("an event went into lane %d while one of its key is in lane %d", again, at)
	}
	if n := lanesUsed(c); n > 3 {
		t.Errorf("two batches are in %d lanes", n)
	}
}

// TestLanesAreFilledWhereOneWouldNotDo: at 900 events a second it would, if a transaction takes less than a millisecond; at 500 more lanes
// are quicker however long one takes.
func TestLanesAreFilledWhereOneWouldNotDo(t *testing.T) {
	for _, v := range []struct {
		rate   int
		once   time.Duration
		filled bool
	}{{900, 800 * time.Microsecond, false}, {900, 1200 * time.Microsecond, true}, {500, 10 * time.Millisecond, false}, {2000, 0, true}} {
		c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
		for _, h := range c.handlers {
			h.batch = true
		}
		c.once = v.once
		c.offered.add(1, 1)
		c.offered.add(v.rate/10, world.Mono(100*time.Millisecond))
		for range 50 {
			a := planArrival(driver.Row{ID: uuid.New(), Type: "paid"})
			a.delivery = &driver.Delivery{Attempt: 1}
			c.enqueue(a)
		}
		if n := lanesUsed(c); (n == 1) != v.filled {
			t.Errorf("%d events a second, a transaction takes %v: %d lanes", v.rate, v.once, n)
		}
	}
}

func TestWhatIsLostIsNotHandledOn(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	ctx, cancel := context.WithCancel(t.Context())
	a := planArrival(planRow(1))
	a.delivery, a.cancel = &driver.Delivery{}, cancel
	c.inflight = []*arrival{a}
	c.lose([]*arrival{a}, []int{0})
	if ctx.Err() == nil || len(c.ours([]*arrival{a})) > 0 || len(compact(c.inflight)) > 0 {
		t.Error("somebody else has the message, and its handler goes on")
	}
}
