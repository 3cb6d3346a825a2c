package sim

import "github.com/pabal-go/pabal/internal/world"

// timer is something to be done at a moment: fn, or else to wake a task from the wait of that number.
type timer struct {
	at   world.Mono
	seq  uint64
	fn   func()
	t    *task
	wait int
}

func (t *timer) before(u *timer) bool { return t.at < u.at || t.at == u.at && t.seq < u.seq }

// timers is a heap, the earliest first. Half of all steps begin with one: container/heap would cost an allocation and two
// calls through an interface each.
type timers []timer

func (h *timers) push(t timer) {
	s := append(*h, t)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !t.before(&s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = t
	*h = s
}

func (h *timers) pop() timer {
	s := *h
	first, last := s[0], s[len(s)-1]
	s[len(s)-1] = timer{}
	s = s[:len(s)-1]
	for i := 0; len(s) > 0; {
		down := 2*i + 1
		if down+1 < len(s) && s[down+1].before(&s[down]) {
			down++
		}
		if down >= len(s) || !s[down].before(&last) {
			s[i] = last
			break
		}
		s[i] = s[down]
		i = down
	}
	*h = s
	return first
}
