package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// conduct leads through a run: bad weather, calm, and what is tried then.
func (r *run) conduct(w world.World) {
	r.weather(w)
	if r.c.Plagues {
		for r.unparked() != "" || !r.placed("order-1") { // whose orders the plagues are
			r.want("order-2", 1) // what never comes back shows only beside what does
			_ = w.Sleep(context.Background(), 20*time.Second)
		}
		r.checkPassed(w)
		r.mend()
		r.settle(w)
		r.want("order-1", 6) // cursors stand where they stood
	}
	if r.c.Losing {
		r.lookAfter(w, false)
	}
	if r.c.Operator && r.c.Odd {
		r.settle(w)
		r.skipAgain()
	}
	r.settle(w)
	r.checkHealth()
	if r.c.Foreign {
		r.checkStrangers(w)
	}
	if r.c.Canaries {
		r.verify(w)
	}
	switch {
	case r.c.Later > 0:
		r.later(w)
	case r.c.Refusing:
		r.refusal(w)
	case r.c.Joining:
		r.join(w)
	case r.c.Forging:
		r.forge(w)
	case r.c.Losing:
		r.lose(w)
	case r.c.Deaf:
		r.commitLate(w)
	}
	r.over.Store(true)
}

// placed reports whether a process of the order service has placed the orders that it was to place.
func (r *run) placed(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orders[name]
}

// checkPassed: who goes on with a key although one of its events is parked holds nothing behind that.
func (r *run) checkPassed(w world.World) {
	if !r.passes("notification") {
		return
	}
	behind := ""
	for range 120 {
		_ = w.Sleep(context.Background(), time.Second)
		if behind = behindParked(r.databases["notification"].Kept("notification")); behind == "" {
			return
		}
	}
	_ = r.fail("inbox: notification passes over what is parked, and %s", behind)
}

// behindParked names an event that is held and the one of its key that is parked; empty: there is none.
func behindParked(rows []driver.Row) string {
	for _, parked := range rows {
		for _, held := range rows {
			if parked.State == driver.Parked && held.State == driver.Held && held.CursorKey == parked.CursorKey {
				return fmt.Sprintf("holds %s behind %s (%s)", held.ID, parked.ID, parked.Reason)
			}
		}
	}
	return ""
}

// settle waits until nothing is owed.
func (r *run) settle(w world.World) {
	for !r.settled() {
		_ = w.Sleep(context.Background(), time.Second)
	}
}

// restart asks a process to end, which it must within 25 s.
func (r *run) restart(w world.World, in *incarnation) {
	in.stopped = w.Now()
	in.stop.Set()
	_ = w.Sleep(context.Background(), 26*time.Second)
	if in.p.Alive() && in.runs && in.p.Running() > 26*time.Second {
		_ = r.fail("shutdown: Run of %s does not return", in.p.Name)
	}
}
