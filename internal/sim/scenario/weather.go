package scenario

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// weather makes things go wrong, and then calm.
func (r *run) weather(w world.World) {
	f := r.c.Faults
	servers := []string{"database-order", "database-settlement", "database-notification", "broker"}
	event := func(name string, every time.Duration, happen func()) {
		if every <= 0 {
			return
		}
		w.Go(name, func(w world.World) {
			for !r.calm.Load() {
				_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*every)))
				if !r.calm.Load() && r.s.Befalls() {
					happen()
				}
			}
		})
	}
	pick := func(from []string) string { return from[w.Rand()%uint64(len(from))] }
	upTo := func(d time.Duration) time.Duration { return time.Duration(w.Rand() % uint64(d+1)) }
	event("crashes", f.CrashEvery, func() { r.s.Crash(pick(r.processes)) })
	event("stalls", f.StallEvery, func() { r.s.Stall(pick(r.processes), upTo(f.StallMost)) })
	event("outages", f.OutageEvery, func() { r.s.Outage(pick(servers), upTo(f.OutageMost)) })
	event("partitions", f.PartitionEvery, func() { r.s.Partition(pick(r.processes), pick(servers), upTo(f.PartitionMost)) })
	event("restarts", r.c.RestartEvery, func() {
		in := r.running[pick(r.processes)]
		w.Go("restart", func(w world.World) { r.restart(w, in) })
	})
	if r.c.Refusing {
		event("refusals", 90*time.Second, func() { r.refuse(pick([]string{orderPaid.Topic(), orderViewed.Topic()}), upTo(90*time.Second)) })
	}
	if r.c.Deaf {
		w.Go("deaf", func(w world.World) {
			_ = w.Sleep(context.Background(), time.Minute)
			r.calmly.deaf = r.s.Elapsed() + 5*time.Minute
		})
	}
	event("failovers", f.FailoverEvery, func() {
		r.failOver(1 + int(w.Rand()%8))
		r.restore(w)
	})
	if r.c.Canaries {
		event("canaries", 2*time.Minute, func() { r.sendCanaries(w) })
	}
	if r.c.Foreign {
		event("strangers", 30*time.Second, func() { r.comeStrangers(w) })
	}
	if r.c.Forging {
		event("forgeries", 20*time.Second, func() { r.forgeAny(w) })
	}
	_ = w.Sleep(context.Background(), r.c.Weather)
	r.calm.Store(true)
	r.s.Calm()
	r.broker.Calm()
	for _, name := range r.services() {
		r.databases[name].Calm()
	}
}
