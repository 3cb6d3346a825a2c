package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// What the lanes of the publisher and those of a consumer have in common.

// lane is a queue with one task behind it. The house's mu guards it.
type lane[E any] struct {
	queue  []E
	wake   world.Signal
	enough int // so many wake its task; fewer than one do
}

// put adds to a lane. The caller holds mu.
func (l *lane[E]) put(e E) {
	l.queue = append(l.queue, e)
	if len(l.queue) >= l.enough {
		l.wake.Set()
	}
}

// pick is the lane for one more: the first in which a batch of so many is not full yet, where they fill one after the other; or
// any, by a hash.
func pick[E any](lanes []*lane[E], fill bool, batch int, hash uint64) int {
	if fill {
		for i, l := range lanes {
			if len(l.queue) < batch {
				return i
			}
		}
	}
	return int(hash % uint64(len(lanes)))
}

// gather waits until as many are in a lane as g asks for, at most d, or until ctx ends.
func gather[E any](ctx context.Context, h *house, l *lane[E], g gathering, d time.Duration) {
	for until := h.w.Now().Add(d); ; l.wake.Wait(ctx, until.Sub(h.w.Now())) {
		h.mu.Lock()
		l.enough = g.events
		over := len(l.queue) >= l.enough || h.w.Now() >= until || ctx.Err() != nil
		if over {
			l.enough = 0
		}
		h.mu.Unlock()
		if over {
			return
		}
	}
}

// stays says where what has a key is, by the key's spread, as long as something of it is in a lane: more of the key goes there too. What
// has none may go anywhere.
type stays map[uint64]stay

// stay is the lane of a key, and how much of it is there.
type stay struct{ lane, n int }

// enter is the lane that one more of a key goes into: free's, when it is the first.
func (s stays) enter(key uint64, free func() int) int {
	at, here := s[key]
	if !here {
		at.lane = free()
	}
	at.n++
	s[key] = at
	return at.lane
}

// leave says that one of a key is no longer in its lane.
func (s stays) leave(key uint64) {
	at := s[key]
	if at.n--; at.n == 0 {
		delete(s, key)
	} else {
		s[key] = at
	}
}
