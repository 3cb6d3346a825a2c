package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// outageRun is traffic at a steady rate while the broker goes away and comes back.
type outageRun struct {
	rate       int // orders a second
	away, back func() error
	write      func(ctx context.Context, n int) error
	owed       func() int
	journal    *journal

	took    []time.Duration // of each order's transaction
	began   [3]time.Time    // of the phases
	ended   [3]time.Time
	growth  float64       // of this process's memory at most, MiB
	drained time.Duration // after the broker was back
}

func ordersOf(phases [3]time.Duration, rate int) (n int) {
	for _, d := range phases {
		n += int(d.Seconds() * float64(rate))
	}
	return n
}

func (o *outageRun) run(ctx context.Context, phases [3]time.Duration, total int) error {
	write := func(n int) error {
		start := time.Now()
		err := o.write(ctx, n)
		o.took[n] = time.Since(start)
		return err
	}
	if err := write(total); err != nil { // topics and statements
		return err
	}
	next := 0
	phase := func(i int) error {
		o.began[i] = time.Now()
		first, events := next, int(phases[i].Seconds()*float64(o.rate))
		next += events
		err := traffic{events: events, rate: o.rate}.run(ctx, o.owed, func(n int) error { return write(first + n) })
		o.ended[i] = time.Now()
		return err
	}
	if err := phase(0); err != nil {
		return err
	}
	before, err := residentMiB(os.Getpid())
	if err != nil {
		return err
	}
	if err := o.away(); err != nil {
		return err
	}
	growth, stop := watchMemory(ctx, before)
	err = phase(1)
	stop()
	o.growth = growth()
	if err != nil {
		return err
	}
	if err := o.back(); err != nil {
		return err
	}
	back := time.Now()
	if err := phase(2); err != nil {
		return err
	}
	if err := o.journal.wait(ctx, func() bool { return o.owed() == 0 }); err != nil {
		return err
	}
	o.drained = time.Since(back)
	return nil
}

// watchMemory says by how much this process's memory has grown at most, in MiB. To be called after stop.
func watchMemory(ctx context.Context, before float64) (growth func() float64, stop func()) {
	watched, cancel := context.WithCancel(ctx)
	most, done := 0.0, make(chan struct{})
	go func() {
		defer close(done)
		for ; watched.Err() == nil; time.Sleep(100 * time.Millisecond) {
			if now, err := residentMiB(os.Getpid()); err == nil {
				most = max(most, now-before)
			}
		}
	}()
	return func() float64 { return most }, func() { cancel(); <-done }
}

// rows are what came of it; seconds is the target of draining.
func (o *outageRun) rows(what string, phases [3]time.Duration, seen *published, seconds int) []row {
	var rate, p99 [3]float64
	first := 0
	for i, d := range phases {
		events := int(d.Seconds() * float64(o.rate))
		var ms []float64
		for _, took := range o.took[first : first+events] {
			ms = append(ms, float64(took.Microseconds())/1000)
		}
		first += events
		rate[i], p99[i] = float64(events)/o.ended[i].Sub(o.began[i]).Seconds(), quantile(ms, 0.99)
	}
	what = fmt.Sprintf("%s away for %v at %d orders/s: ", what, phases[1], o.rate)
	recorded := float64(seen.recorded.Load())
	return []row{
		{what + "orders/s during it, against before", fmt.Sprintf("%.0f against %.0f, ratio %.2f", rate[1], rate[0], rate[1]/rate[0]), "≥ 0.95"},
		{what + "p99 of an order, against before", fmt.Sprintf("%.2f against %.2f ms, ratio %.2f", p99[1], p99[0], p99[1]/p99[0]), "≤ 1.5"},
		{what + "growth of the process's memory", fmt.Sprintf("%.0f MiB", o.growth), "≤ 64 MiB"},
		{what + "all handled and confirmed after it is back, 5 s more of traffic included", fmt.Sprintf("%.1f s", o.drained.Seconds()),
			fmt.Sprintf("≤ %d s", seconds)},
		{what + "publishes against events, tries included", fmt.Sprintf("%.3f, accepted %.3f", float64(seen.sent.Load())/recorded,
			float64(seen.accepted.Load())/recorded), "≤ 1.1"},
	}
}
