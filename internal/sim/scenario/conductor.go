package scenario

import (
	"context"
	"time"

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
		r.mend()
	}
	r.settle(w)
	if r.c.Later > 0 {
		r.later(w)
	}
	r.over.Store(true)
}

// placed reports whether a process of the order service has placed the orders that it was to place.
func (r *run) placed(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orders[name]
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
