package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// A service that joins when others have long been there. It may begin a key where it came in, and handles whatever was sent for the
// first time since then, in order: also what was recorded before.

const reporting = "reporting"

// join has the service join while something of its keys is still under way, behind a backlog, or long after the last event.
func (r *run) join(w world.World) {
	r.calmly.oneKey = "A0"
	_ = w.Sleep(context.Background(), 15*time.Second) // more than clocks differ
	switch r.c.Seed / 8 % 3 {
	case 0:
		r.joinShortlyAfter(w)
	case 1:
		r.joinBehindBacklog(w)
	case 2:
		r.joinLongAfter(w)
	}
	r.settle(w)
	r.checkJoined()
	now := r.databases["order"].Clock()
	r.redeliver(w, pabal.Redelivery{Topic: orderPaid.Topic(), From: now.Add(-3 * time.Hour), Until: now, Rate: 1000})
	r.checkJoined()
}

// joinShortlyAfter: an event that was recorded before, and is sent afterwards, comes behind its successor, or behind one whose own
// predecessor was sent before.
func (r *run) joinShortlyAfter(w world.World) {
	r.record(w)
	r.settle(w)
	_ = w.Sleep(context.Background(), 10*time.Second)
	r.calmly.hesitate = true
	for r.calmly.hesitate {
		r.record(w)
	}
	if w.Rand()%2 == 0 {
		r.record(w)
	}
	_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(5*time.Second)))
	r.startReporting(w)
	r.record(w)
}

// joinBehindBacklog: the broker has been refusing a topic for a while, and does for a minute more: what it gets at last is
// older than that, which tells a backlog.
func (r *run) joinBehindBacklog(w world.World) {
	r.refuse(orderPaid.Topic(), 4*time.Minute)
	for range 4 {
		r.record(w)
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(10*time.Second)))
	}
	r.startReporting(w)
	r.calmly.refused[orderPaid.Topic()] = r.s.Elapsed() + time.Duration(62+w.Rand()%60)*time.Second
	if w.Rand()%2 == 0 {
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*time.Minute)))
		r.s.Crash("reporting-1")
	}
}

// joinLongAfter: nothing can be under way any more, so nothing waits.
func (r *run) joinLongAfter(w world.World) {
	r.record(w)
	r.settle(w)
	for _, name := range r.services() { // as if all had stood still
		r.s.TurnClock("database-"+name, 20*time.Minute)
	}
	_ = w.Sleep(context.Background(), 5*time.Second)
	r.startReporting(w)
	_ = w.Sleep(context.Background(), 5*time.Second)
	r.record(w)
	_ = w.Sleep(context.Background(), 15*time.Second)
	r.checkJoined()
}

// startReporting starts the service and waits until its queue is subscribed.
func (r *run) startReporting(w world.World) {
	r.start("reporting-1", r.program("reporting-1"))
	for r.broker.Subscribers(orderPaid.Topic()) < 4 || r.broker.Subscribers(orderViewed.Topic()) < 4 {
		_ = w.Sleep(context.Background(), 10*time.Millisecond)
	}
	r.calmly.joined = true
}

// sent notes which events are sent for the first time since the service has joined.
func (r *run) sent(id uuid.UUID) {
	if r.calmly.joined && !r.calmly.before[id] {
		r.calmly.since[id] = true
	}
	r.calmly.before[id] = true
}

// checkJoined checks what the service has handled by now: all that was sent for the first time since it joined. Nothing is parked: what
// came too late for it is passed over. What was sent only before may be missing between what it handles.
func (r *run) checkJoined() {
	for _, e := range r.databases["order"].ByPosition() {
		if e.Type == orderNoted.Name() {
			continue // nobody handles it
		}
		if r.calmly.since[e.ID] && r.databases[reporting].Business("effect", e.ID.String()) == nil {
			_ = r.fail("joining: %s has not handled %s %s at %s/%d: %s", reporting, e.Type, e.ID, e.Key, e.Position,
				r.databases[reporting].Explain(reporting, e.ID))
		}
	}
}

// checkParked: nothing is parked that nobody complains about.
func (r *run) checkParked() error {
	for _, consumer := range append(consumersOf, reporting) {
		if r.databases[consumer] == nil {
			continue
		}
		for _, row := range r.databases[consumer].Kept(consumer) {
			name := consumer + " " + row.ID.String()
			if row.State == driver.Parked && r.calmly.forged[name] != row.Reason && row.Reason != "too old to tell" {
				return fmt.Errorf("P1 no loss: %s is parked: %s %s", name, row.Reason, row.LastError)
			}
		}
	}
	return nil
}
