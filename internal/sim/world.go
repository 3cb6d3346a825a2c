package sim

import (
	"context"
	"errors"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// simWorld is the World of a task, or of a process.
type simWorld struct {
	s        *Sim
	p        *Process
	children *group
}

func (w *simWorld) Go(name string, f func(world.World)) { w.s.spawn(w.p, name, w.children, f) }

func (w *simWorld) Join(ctx context.Context) error {
	for w.children.live > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		w.children.joiners = append(w.children.joiners, w.s.current)
		w.s.block(ctx, -1)
	}
	return nil
}

func (w *simWorld) Now() world.Mono { return w.s.now + w.p.origin }

func (w *simWorld) Wall() time.Time {
	return epoch.Add(time.Duration(w.s.now)).Add(w.p.skew)
}

func (w *simWorld) Rand() uint64 { return w.s.chance.Uint64() }

func (w *simWorld) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.s.block(ctx, max(d, 0))
	return ctx.Err()
}

func (w *simWorld) Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	deadline := &deadline{Context: inner, at: w.Wall().Add(d)}
	if at, ok := ctx.Deadline(); ok && at.Before(deadline.at) {
		deadline.at = at
	}
	over := false
	w.s.at(w.s.now.Add(max(d, 0)), func() {
		if !over {
			cancel(context.DeadlineExceeded)
			w.s.wakeEnded(w.p)
		}
	})
	return deadline, func() {
		over = true
		cancel(nil)
	}
}

// deadline is a context with a virtual deadline. Its Done channel is the inner one's, so that contexts derived from it need
// no goroutine.
type deadline struct {
	context.Context
	at time.Time
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

func (d *deadline) Err() error {
	err := d.Context.Err()
	if err != nil && errors.Is(context.Cause(d.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

func (w *simWorld) NewSignal() world.Signal { return &simSignal{s: w.s} }

type simSignal struct {
	s       *Sim
	set     bool
	waiters []*signalWait
}

type signalWait struct {
	t     *task
	n     int
	woken bool
}

func (g *simSignal) Set() {
	for len(g.waiters) > 0 {
		w := g.waiters[0]
		g.waiters = g.waiters[1:]
		if w.t.waits && w.t.wait == w.n && !w.t.p.dead {
			w.woken = true
			g.s.wake(w.t, false)
			return
		}
	}
	g.set = true
}

func (g *simSignal) Wait(ctx context.Context, d time.Duration) bool {
	if g.set {
		g.set = false
		return true
	}
	if d == 0 || ctx.Err() != nil {
		return false
	}
	t := g.s.current
	if t == nil || t.p.dead {
		return !g.s.pause()
	}
	w := &signalWait{t: t, n: t.wait + 1}
	g.waiters = append(g.waiters, w)
	g.s.block(ctx, d)
	if !w.woken && g.set { // set after the time was over, before this task went on
		g.set = false
		return true
	}
	return w.woken
}
