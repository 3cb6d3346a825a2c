package scenario

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// The order service's database loses commits that it had acknowledged. Of the events that are gone nothing is promised but that whoever
// has them tells; the others go on as if those had never been, once somebody has said `pabal restored`.

// losses is what the order service's database has lost.
type losses struct {
	gone         []uuid.UUID        // events
	isGone       map[uuid.UUID]bool // the same
	undone       map[uuid.UUID]bool // events that are there, of which a claim or the confirmation is lost
	restored     []time.Time        // by the database's clock
	published    map[uuid.UUID]bool
	acknowledged map[uuid.UUID]bool // from the record queue
	forced       map[string]bool    // an operator had it handled where the cursor stands: consumer and id
}

func newLosses() losses {
	return losses{
		isGone: map[uuid.UUID]bool{}, undone: map[uuid.UUID]bool{}, published: map[uuid.UUID]bool{},
		acknowledged: map[uuid.UUID]bool{}, forced: map[string]bool{},
	}
}

// failOver has the database lose its last commits, or, with 0, as many as it takes for an event to be gone.
func (r *run) failOver(commits int) {
	order := r.databases["order"]
	events := order.Events()
	pending := make([]*driver.Pending, len(events))
	for i := range events {
		pending[i] = order.PendingOf(events[i].ID)
	}
	r.watch.lost = true
	for commits == 0 && order.Recorded() == len(events) && order.Failover(1) > 0 {
	}
	order.Failover(commits)
	r.watch.lost = false
	for i := range events {
		switch id := events[i].ID; {
		case !order.Has(id):
			r.losses.gone, r.losses.isGone[id] = append(r.losses.gone, id), true
			r.calmly.ghosts[id] = r.s.Elapsed() - 30*time.Second // whoever remembers it need not look twice
		case order.PendingOf(id) != pending[i]: // rows are replaced, never changed
			r.losses.undone[id] = true
		}
	}
	r.s.Note("database-order", fmt.Sprintf("failover: of %d events %d are gone", len(events), len(events)-order.Recorded()))
	clear(r.watch.probes) // when one went is lost too
}

// restore tells the store, as an operator beside the database does.
func (r *run) restore(w world.World) {
	operator, err := pabal.Operate(context.Background(), r.databases["order"].Connect(w, sim.Direct))
	if err == nil {
		err = operator.Restored(context.Background())
	}
	if err != nil {
		_ = r.fail("restored: %w", err)
	}
	r.losses.restored = append(r.losses.restored, r.databases["order"].Clock())
}

// lose has commits lost when nothing else goes wrong: as the runbook says, with nobody at work; while all are, and told before anybody
// reaches the database again; or told too late.
func (r *run) lose(w world.World) {
	_ = w.Sleep(context.Background(), 45*time.Second) // whoever is not back yet
	begin := r.s.Elapsed()
	for before := r.databases["order"].Recorded(); r.databases["order"].Recorded() == before; {
		r.wantAll(3)
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(4*time.Second)))
	}
	late, acknowledged := false, map[uuid.UUID]bool{}
	switch r.c.Seed / 16 % 3 {
	case 0:
		acknowledged = r.loseWhileOff(w)
	case 1:
		r.outage(w)
		r.failOver(int(w.Rand() % 8))
		r.restore(w)
	case 2:
		late = true
		r.outage(w)
		r.failOver(int(w.Rand() % 8))
		r.wantAll(2)
		_ = w.Sleep(context.Background(), 40*time.Second)
		r.restore(w)
	}
	r.wantAll(4)
	_ = w.Sleep(context.Background(), 2*time.Minute)
	r.lookAfter(w, late)
	for _, id := range r.losses.gone {
		owed := r.losses.published[id] && r.watch.born[id] >= begin && !acknowledged[id]
		if owed && r.calmly.alarms[id] == 0 {
			_ = r.fail("P6 no silence: no alarm of %s, which was published and is gone", id)
		}
	}
	r.settle(w)
	r.checkHealth()
}

// wantAll asks each process of the order service for more orders.
func (r *run) wantAll(n int) {
	for _, name := range r.processes {
		if strings.HasPrefix(name, "order-") {
			r.want(name, n)
		}
	}
}

// outage has the database away for a moment, which each confirmer notices.
func (r *run) outage(w world.World) {
	r.s.Outage("database-order", 3*time.Second)
	for range 3 {
		r.broker.Put(recordQueue, r.bodies[len(r.bodies)-1])
		_ = w.Sleep(context.Background(), 500*time.Millisecond)
	}
}

// loseWhileOff has commits lost while no process of the source is at work. It returns what they had acknowledged before, of which
// nobody tells: whoever remembered it is gone as well.
func (r *run) loseWhileOff(w world.World) map[uuid.UUID]bool {
	r.off = true
	var stopped []string
	for _, name := range r.processes {
		if strings.HasPrefix(name, "order-") || name == "relay" {
			stopped = append(stopped, name)
			r.s.Crash(name)
		}
	}
	_ = w.Sleep(context.Background(), 10*time.Second)
	acknowledged := map[uuid.UUID]bool{}
	for id := range r.losses.acknowledged { // the order does not matter
		acknowledged[id] = true
	}
	r.failOver(int(w.Rand() % 8))
	r.restore(w)
	r.off = false
	for _, name := range stopped {
		r.start(name, r.program(name))
	}
	return acknowledged
}

// lookAfter is an operator who looks after consumers until nothing waits there. What never was is skipped. If the store was told too
// late, what was recorded in between has taken the places of others: he has it handled where the cursor stands.
func (r *run) lookAfter(w world.World, late bool) {
	for {
		_ = w.Sleep(context.Background(), 10*time.Second)
		if r.databases["order"].Owed() != "" || r.broker.Owed() != "" || !r.placed("order-1") {
			continue
		}
		waits := false
		for _, consumer := range consumersOf {
			for _, row := range r.lowest(consumer) {
				waits = true
				r.mendLost(consumer, &row, late)
			}
		}
		if !waits {
			return
		}
	}
}

// lowest returns the lowest row of each key that a consumer holds or has parked.
func (r *run) lowest(consumer string) []driver.Row {
	rows := r.databases[consumer].Kept(consumer)
	slices.SortFunc(rows, func(a, b driver.Row) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Position, b.Position))
	})
	return slices.CompactFunc(rows, func(a, b driver.Row) bool { return a.CursorKey == b.CursorKey && a.Position != 0 })
}

// mendLost gives an order about a row that nothing else waits for, once it has waited for long; by then it is shown.
func (r *run) mendLost(consumer string, row *driver.Row, late bool) {
	gone := r.losses.isGone[row.ID]
	if row.State == driver.Held && (row.Failures > 0 || r.databases[consumer].Clock().Sub(row.ReceivedAt) < 40*time.Second) {
		return // goes on by itself
	}
	if row.State == driver.Parked && (!gone && !late || row.Reason != "fork") {
		_ = r.fail("P1 no loss: %s is parked at %s: %s %s", row.ID, consumer, row.Reason, row.LastError)
	}
	if len(r.databases[consumer].Kept(consumer)) <= 20 { // which is how many status lists
		if said := r.troubles(consumer); !strings.Contains(said, "event "+row.ID.String()) {
			_ = r.fail("P6 no silence: %s waits at %s, and nobody tells: %s", row.ID, consumer, said)
		}
	}
	order := r.operator[consumer].SkipReceived
	if !gone && late {
		order = r.operator[consumer].RetryReceived
		r.losses.forced[consumer+" "+row.ID.String()] = true
	} else if !gone {
		return
	}
	if n, err := order(context.Background(), consumer, row.ID); n != 1 || err != nil {
		_ = r.fail("inbox: an order about %s: %d, %v", row.ID, n, err)
	}
}

// checkRun checks the first event of a key that was recorded after the store was told of lost commits: a new run behind the last one
// that is left.
func (r *run) checkRun(before, e *driver.Event) (begins bool, err error) {
	begins = slices.ContainsFunc(r.losses.restored, func(at time.Time) bool {
		return before.RecordedAt.Before(at) && !e.RecordedAt.Before(at)
	})
	if begins && (e.Position <= before.Position+1 || e.Prev.ID != before.ID) {
		err = fmt.Errorf("restored: position %d of %s follows %d (%s), and its predecessor is %s", e.Position, e.Key, before.Position,
			before.ID, e.Prev.ID)
	}
	return begins, err
}
