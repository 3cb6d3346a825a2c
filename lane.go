package pabal

import "github.com/pabal-go/pabal/internal/world"

// What the lanes of the publisher and those of a consumer have in common.

// lane is a queue with one task behind it. The house's mu guards it.
type lane[E any] struct {
	queue []E
	wake  world.Signal
}

// put adds to a lane. The caller holds mu.
func (l *lane[E]) put(e E) {
	l.queue = append(l.queue, e)
	l.wake.Set()
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
