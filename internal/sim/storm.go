package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// Storm is what goes wrong between processes and servers in the real world, where nothing is repeatable and the race
// detector looks on. Processes cannot crash there, and effects are not late.
type Storm struct {
	w world.World
	f Faults

	mu     sync.Mutex
	chance *rand.Rand
	down   map[string]world.Mono
	calm   bool
}

// NewStorm begins a storm.
func NewStorm(w world.World, seed uint64, f Faults) *Storm {
	return &Storm{w: w, f: f, chance: rand.New(rand.NewPCG(seed, 0xc4a05)), down: map[string]world.Mono{}}
}

// Calm ends all faults for good.
func (s *Storm) Calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = true
}

// Outage makes a server unreachable for up to d.
func (s *Storm) Outage(server string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[server] = s.w.Now().Add(time.Duration(s.chance.Int64N(int64(d))))
}

// Link connects a process to a server.
func (s *Storm) Link(server string) Link { return &stormLink{s, server} }

type stormLink struct {
	*Storm
	server string
}

type fate struct {
	latency                          time.Duration
	lostRequest, twice, lostResponse bool
}

func (l *stormLink) fate() fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := fate{latency: time.Duration(l.chance.Int64N(int64(l.f.LatencyMost) + 1))}
	if l.calm {
		return f
	}
	if l.chance.IntN(1000) < l.f.Slow {
		f.latency = time.Duration(l.chance.Int64N(int64(l.f.SlowMost) + 1))
	}
	f.lostRequest = l.down[l.server] > l.w.Now() || l.chance.IntN(1000) < l.f.LostRequest
	f.twice = l.chance.IntN(1000) < l.f.Twice
	f.lostResponse = l.chance.IntN(1000) < l.f.LostAnswer
	return f
}

func (l *stormLink) Call(ctx context.Context, call Call, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fate := l.fate()
	if err := l.w.Sleep(ctx, fate.latency); err != nil {
		return err
	}
	if fate.lostRequest {
		return ErrLost
	}
	if fate.twice && call.Twice {
		_ = effect()
	}
	err := effect()
	if fate.lostResponse {
		return ErrLost
	}
	return err
}

func (*stormLink) OnDead(func()) func() { return func() {} }
