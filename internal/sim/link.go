package sim

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrLost is what a caller learns of a call whose request or answer got lost: nothing.
var ErrLost = errors.New("connection lost")

// Link is how calls of one process travel to one server.
type Link interface {
	// Call carries out effect at the server on behalf of the running task and returns its error; or the request is lost,
	// or the answer, or it is carried out late or twice: see Faults. The context's end ends the waiting. effect never
	// blocks and may be called more than once or after Call has returned.
	Call(ctx context.Context, c Call, effect func() error) error
	// OnDead has fn called when the calling process dies. cancel forgets it.
	OnDead(fn func()) (cancel func())
}

// Call describes a call for the trace, and which faults make sense for it.
type Call struct {
	What  string        // such as "commit"
	Note  func() string // details for the trace, asked for after the effect; may be nil
	Twice bool
	Late  bool
}

// connectionTimeout is when a caller without deadline gives up.
const connectionTimeout = 10 * time.Second

// Link connects the process to a server.
func (p *Process) Link(server string) Link { return &simLink{p: p, server: server} }

type simLink struct {
	p      *Process
	server string
}

func (l *simLink) OnDead(fn func()) func() { return l.p.OnDead(fn) }

// OnDead has fn called when the process has crashed. cancel forgets it.
func (p *Process) OnDead(fn func()) (cancel func()) {
	h := &hook{fn}
	p.onDead = append(p.onDead, h)
	return func() {
		for i, other := range p.onDead {
			if other == h {
				p.onDead = append(p.onDead[:i], p.onDead[i+1:]...)
				return
			}
		}
	}
}

func (l *simLink) Call(ctx context.Context, c Call, effect func() error) error {
	s, t := l.p.s, l.p.s.current
	if t == nil {
		return Direct.Call(ctx, c, effect) // asked by whoever runs the simulation
	}
	if t.p.dead {
		s.pause()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.in(s.Faults.Twice) && c.Twice {
		s.at(s.now.Add(s.upTo(time.Second)), func() { _ = effect() })
	}
	arrives, returns := s.latency(), s.latency()
	switch {
	case s.isDown(l), s.in(s.Faults.LostRequest):
		s.block(ctx, connectionTimeout)
		return l.lost(ctx, c, "→ request lost")
	case c.Late && s.in(s.Faults.LateEffect):
		s.at(s.now.Add(arrives+s.upTo(20*time.Second)), func() { _ = effect() })
		s.block(ctx, connectionTimeout)
		return l.lost(ctx, c, "→ no answer, will take effect late")
	}
	if c.Late {
		t.flight = func() { _ = effect() }
	}
	ended := s.block(ctx, arrives) && ctx.Err() != nil
	t.flight = nil
	if ended {
		if c.Late && s.in(500) {
			_ = effect()
		}
		return l.lost(ctx, c, "→ given up")
	}
	err := effect()
	if s.isDown(l) || s.in(s.Faults.LostAnswer) {
		s.block(ctx, connectionTimeout)
		return l.lost(ctx, c, "→ answer lost")
	}
	if s.block(ctx, returns); ctx.Err() != nil {
		return l.lost(ctx, c, "→ done, answer too late")
	}
	l.tell(c, "→ done", err)
	return err
}

func (l *simLink) lost(ctx context.Context, c Call, how string) error {
	err := ctx.Err()
	if err == nil {
		err = ErrLost
	}
	l.tell(c, how, nil)
	return err
}

func (l *simLink) tell(c Call, how string, err error) {
	l.p.s.note(l.p.Name, c.What, func() string {
		text := how
		if c.Note != nil {
			text = c.Note() + " " + how
		}
		if err != nil {
			text += ": " + err.Error()
		}
		return text
	})
}

// in reports, by chance, n times in a thousand, unless it is calm.
func (s *Sim) in(n int) bool { return n > 0 && !s.calm && s.chance.IntN(1000) < n && s.Befalls() }

// Befalls counts a fault that the seed would have happen now, and reports whether it does: see Faults.Only.
func (s *Sim) Befalls() bool {
	n := s.faults
	s.faults++
	if s.Faults.Only != nil && !slices.Contains(s.Faults.Only, n) {
		return false
	}
	s.befell++
	return true
}

// Befell is how many faults have happened.
func (s *Sim) Befell() int { return s.befell }

func (s *Sim) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(s.chance.Int64N(int64(d)))
}

func (s *Sim) latency() time.Duration {
	most := s.Faults.LatencyMost / 2
	if s.in(s.Faults.Slow) {
		most = s.Faults.SlowMost
	}
	return most/10 + s.upTo(most-most/10)
}

func (s *Sim) isDown(l *simLink) bool {
	return s.down[l.server] > s.now || s.cut[cutLink{l.p.Name, l.server}] > s.now
}

// Outage makes a server unreachable for d.
func (s *Sim) Outage(server string, d time.Duration) {
	s.note(server, "outage", func() string { return d.String() })
	s.down[server] = max(s.down[server], s.now.Add(d))
}

// Partition keeps a process from reaching a server for d.
func (s *Sim) Partition(process, server string, d time.Duration) {
	s.note(process, "partition", func() string { return "from " + server + " for " + d.String() })
	link := cutLink{process, server}
	s.cut[link] = max(s.cut[link], s.now.Add(d))
}

// Calm ends all faults for good.
func (s *Sim) Calm() {
	s.note("world", "calm", nil)
	s.calm = true
	clear(s.down)
	clear(s.cut)
	for _, p := range s.procs {
		p.stalled = min(p.stalled, s.now)
	}
}

// Direct is the link of a server in the same process: no delays, no faults, and nobody dies.
var Direct Link = direct{}

type direct struct{}

func (direct) Call(ctx context.Context, _ Call, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return effect()
}
func (direct) OnDead(func()) func() { return func() {} }
