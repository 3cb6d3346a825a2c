// Package sim is the simulated world: a virtual clock, coroutines for tasks, a network that loses, delays and repeats, and a
// database and a broker at its other end. One seed decides everything that is left open, so a run can be repeated exactly.
//
// The database and the broker are ordinary code over internal/world. They also run in the real world, with [Direct]
// as their network: the store and broker in memory of benchmarks and of users' tests.
package sim

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// epoch is when every run begins, by the clock on the wall.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Sim is one run. It is used from one goroutine, the one that calls Run, and from the tasks that it runs.
type Sim struct {
	Faults Faults

	now     world.Mono
	chance  *rand.Rand
	ready   []*task // may go on now
	idle    []*coroutine
	timers  timers
	seq     uint64
	current *task
	crashes []*Process
	procs   []*Process // alive
	hash    uint64
	steps   int
	trace   *trace
	err     error
	down    map[string]world.Mono // servers, until when
	cut     map[cutLink]world.Mono
	calm    bool
	faults  int // that the seed would have happen
	befell  int // that did
}

type cutLink struct{ process, server string }

// New makes a run. Nothing happens before Run.
func New(seed uint64, f Faults) *Sim {
	return &Sim{
		Faults: f, chance: rand.New(rand.NewPCG(seed, 0x9a6a1)), hash: hashBasis,
		down: map[string]world.Mono{}, cut: map[cutLink]world.Mono{},
	}
}

// Process is one incarnation of a program: its tasks and what they remember.
type Process struct {
	Name    string
	s       *Sim
	dead    bool
	origin  world.Mono    // of its monotonic clock
	skew    time.Duration // of its clock on the wall
	stalled world.Mono    // until when
	tasks   []*task
	waiting []*task // of tasks: those that wait with a context that may end
	onDead  []*hook
}

type hook struct{ fn func() }

// Process starts a program.
func (s *Sim) Process(name string) *Process {
	p := &Process{Name: name, s: s, origin: world.Mono(s.chance.Int64N(int64(time.Hour)))}
	if most := s.Faults.Skew; most > 0 {
		p.skew = time.Duration(s.chance.Int64N(int64(2*most))) - most
	}
	s.procs = append(s.procs, p)
	return p
}

// Alive reports whether the process has not crashed.
func (p *Process) Alive() bool { return !p.dead }

// World is where the process's code lives.
func (p *Process) World() world.World { return &simWorld{s: p.s, p: p, children: &group{}} }

// Go starts a task of the process.
func (p *Process) Go(name string, f func(world.World)) { p.s.spawn(p, name, nil, f) }

// Crash ends the process as kill -9 does: none of its tasks takes another step, what was under way at servers may happen
// or not.
func (p *Process) Crash() {
	if p.dead {
		return
	}
	p.dead = true
	p.s.note(p.Name, "crash", nil)
	p.s.crashes = append(p.s.crashes, p)
	if t := p.s.current; t != nil && t.p == p {
		p.s.pause() // never to go on
	}
}

// Stall keeps the tasks of the process from running for d, as SIGSTOP does; its clocks go on.
func (p *Process) Stall(d time.Duration) {
	p.stalled = max(p.stalled, p.s.now.Add(d))
	p.s.note(p.Name, "stall", func() string { return d.String() })
}

// Running is how long the process has run without a stall.
func (p *Process) Running() time.Duration { return p.s.now.Sub(p.stalled) }

// coroutine runs tasks, one after the other: to begin with a stack that has grown saves a tenth of a run.
type coroutine struct {
	next  func() (ended bool, alive bool)
	stop  func()
	yield func(ended bool) bool
	task  func()
}

// coroutine answers one that has nothing to do.
func (s *Sim) coroutine() *coroutine {
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return c
	}
	c := &coroutine{}
	c.next, c.stop = iter.Pull(func(yield func(bool) bool) {
		c.yield = yield
		for ended := true; ended; ended = yield(true) {
			c.task()
		}
	})
	return c
}

// task is what a coroutine does.
type task struct {
	*coroutine
	p       *Process
	mark    uint64 // of the names of process and task, for the hash of the run
	parent  *group
	wait    int // number of the current wait; timers of earlier ones are void
	waits   bool
	ctx     context.Context // of the current wait; nil: it has none that may end
	index   int             // in Process.waiting, or -1
	flight  func()          // what a call has on its way to a server
	timeout bool            // the wait ended by time or context
}

// group counts the live tasks that were started through one World value.
type group struct {
	live    int
	joiners []*task
}

func (s *Sim) spawn(p *Process, name string, parent *group, f func(world.World)) {
	if p.dead {
		return
	}
	t := &task{p: p, mark: mixed(mixed(hashBasis, p.Name), name), parent: parent, index: -1}
	if parent != nil {
		parent.live++
	}
	w := &simWorld{s: s, p: p, children: &group{}}
	t.coroutine = s.coroutine()
	t.task = func() {
		defer func() {
			if r := recover(); r != nil && s.err == nil {
				s.err = fmt.Errorf("%s: task %s panicked: %v\n%s", p.Name, name, r, debug.Stack())
			}
		}()
		f(w)
	}
	p.tasks = append(p.tasks, t)
	s.ready = append(s.ready, t)
}

// Run runs tasks until the virtual time is over, nothing can go on, or stop (if not nil, asked after every step) says so. It
// returns the first panic of a task.
func (s *Sim) Run(until time.Duration, stop func() bool) error {
	for s.err == nil && s.now < world.Mono(until) && (stop == nil || !stop()) {
		s.bury()
		if len(s.ready) == 0 {
			if !s.forward(world.Mono(until)) {
				break
			}
			continue
		}
		i := 0
		if len(s.ready) > 1 {
			i = s.chance.IntN(len(s.ready))
		}
		t := s.ready[i]
		s.ready[i] = s.ready[len(s.ready)-1]
		s.ready = s.ready[:len(s.ready)-1]
		s.step(t)
	}
	s.bury()
	return s.err
}

func (s *Sim) step(t *task) {
	if t.p.dead {
		return
	}
	if t.p.stalled > s.now {
		s.at(t.p.stalled, func() { s.ready = append(s.ready, t) })
		return
	}
	s.steps++
	s.mixInt(t.mark)
	s.mixInt(uint64(s.now))
	s.current = t
	ended, alive := t.next()
	s.current = nil
	if ended && alive && !t.p.dead {
		s.gone(t)
		s.idle = append(s.idle, t.coroutine)
	}
	s.wakeEnded(t.p)
}

// gone takes an ended task off its process and its parent.
func (s *Sim) gone(t *task) {
	for i, other := range t.p.tasks {
		if other == t {
			t.p.tasks = append(t.p.tasks[:i], t.p.tasks[i+1:]...)
			break
		}
	}
	if g := t.parent; g != nil {
		if g.live--; g.live == 0 {
			for _, j := range g.joiners {
				s.wake(j, false)
			}
			g.joiners = nil
		}
	}
}

// forward moves the clock to the next timer; false if there is none before until.
func (s *Sim) forward(until world.Mono) bool {
	if len(s.timers) == 0 {
		return false
	}
	if s.timers[0].at >= until {
		s.now = until
		return false
	}
	s.now = max(s.now, s.timers[0].at)
	for len(s.timers) > 0 && s.timers[0].at <= s.now {
		switch due := s.timers.pop(); {
		case due.fn != nil:
			due.fn()
		case due.t.wait == due.wait && due.t.waits:
			s.wake(due.t, true)
		}
	}
	return true
}

// bury stops the coroutines of crashed processes. They end by Goexit, which would take the goroutine that stops them along:
// hence a throwaway one.
func (s *Sim) bury() {
	for len(s.crashes) > 0 {
		p := s.crashes[0]
		s.crashes = s.crashes[1:]
		for _, t := range p.tasks { // what was on its way to a server may still arrive
			if t.flight != nil && s.chance.IntN(2) == 0 {
				t.flight()
			}
		}
		for _, h := range p.onDead {
			h.fn()
		}
		for _, t := range p.tasks {
			s.unwait(t)
			done := make(chan struct{})
			s.current = t // deferred functions may try to block
			go func() {
				defer close(done)
				t.stop()
			}()
			<-done
			s.current = nil
		}
		p.tasks = nil
		alive := s.procs[:0]
		for _, other := range s.procs {
			if other != p {
				alive = append(alive, other)
			}
		}
		s.procs = alive
	}
}

// Close ends every process. A run that is not closed leaves coroutines behind.
func (s *Sim) Close() {
	s.Faults = Faults{}
	for _, p := range s.procs {
		if !p.dead {
			p.dead = true
			p.onDead = nil
			for _, t := range p.tasks {
				t.flight = nil
			}
			s.crashes = append(s.crashes, p)
		}
	}
	s.bury()
	for _, c := range s.idle {
		c.stop()
	}
	s.idle = nil
}

// pause ends the step of the running task, until something wakes it. In a dead process it never returns: deferred
// functions that come here end at once.
func (s *Sim) pause() (timeout bool) {
	t := s.current
	if t == nil {
		panic("sim: blocking call outside of any task")
	}
	if !t.yield(false) {
		runtime.Goexit()
	}
	return t.timeout
}

// block makes the running task wait: until wake, until d has passed unless d < 0, or until ctx ends.
func (s *Sim) block(ctx context.Context, d time.Duration) (timeout bool) {
	t := s.current
	if t == nil || t.p.dead {
		return s.pause()
	}
	if ctx != nil && ctx.Err() != nil {
		d = 0 // still a step of its own: others may come between
	}
	t.wait++
	t.waits, t.timeout = true, false
	if d >= 0 {
		s.seq++
		s.timers.push(timer{at: s.now.Add(d), seq: s.seq, t: t, wait: t.wait})
	}
	if ctx != nil && ctx.Done() != nil {
		t.ctx, t.index = ctx, len(t.p.waiting)
		t.p.waiting = append(t.p.waiting, t)
	}
	return s.pause()
}

// wake lets a waiting task go on.
func (s *Sim) wake(t *task, timeout bool) {
	if !t.waits || t.p.dead {
		return
	}
	s.unwait(t)
	t.timeout = timeout
	s.ready = append(s.ready, t)
}

func (s *Sim) unwait(t *task) {
	t.waits, t.ctx = false, nil
	if i := t.index; i >= 0 {
		w := t.p.waiting
		last := w[len(w)-1]
		w[i] = last
		last.index = i
		w[len(w)-1] = nil
		t.p.waiting = w[:len(w)-1]
		t.index = -1
	}
}

// wakeEnded wakes the tasks of a process whose context has ended. It looks, after every step of the process and at the end
// of each of its deadlines, at every task that waits with a context, for any code of the process may end one;
// context.AfterFunc would tell, from a goroutine, hence at any time. A context that another process ends is noticed then.
func (s *Sim) wakeEnded(p *Process) {
	for i := 0; i < len(p.waiting); {
		if t := p.waiting[i]; t.ctx.Err() != nil {
			s.wake(t, true)
		} else {
			i++
		}
	}
}

// at calls fn in the scheduler at a moment.
func (s *Sim) at(at world.Mono, fn func()) {
	s.seq++
	s.timers.push(timer{at: at, seq: s.seq, fn: fn})
}
