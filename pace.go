package pabal

import (
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

const (
	callLeast = time.Millisecond       // what a call, or a transaction, counts for: it costs two processes more than the time it takes
	paceOver  = 200 * time.Millisecond // how far back the rate of events is looked at
)

// gathering is how a batch gathers: until so many events have come, for so long at most. More of them would share what a batch costs
// by itself, but save little.
type gathering struct {
	events float64
	most   time.Duration
}

var (
	beforePublish  = gathering{16, 3 * time.Millisecond} // which delays everybody
	beforeHandling = gathering{32, 10 * time.Millisecond}
)

// meter tells how quickly events have come lately.
type meter struct {
	last   world.Mono // zero: none came yet
	events float64
	span   float64 // in which they came, nanoseconds, at most paceOver
}

// add notes n events that came at a time, or since the last.
func (m *meter) add(n int, at world.Mono) {
	if m.last != 0 {
		m.events += float64(n)
		m.span += float64(at.Sub(m.last))
	}
	m.last = at
	if over := m.span / float64(paceOver); over > 1 {
		m.events /= over
		m.span /= over
	}
}

// busy reports whether events come quicker than calls could serve them one by one. Then fewer and larger batches serve more; else
// waiting for a larger one would only delay.
func (m *meter) busy() bool { return m.events*float64(callLeast) > m.span }

// pause is how long the next batch gathers, at the rate of lately, after one of n events, of which most fit into one. What came alone,
// or well filled, needs no waiting.
func (m *meter) pause(n, most int, g gathering) time.Duration {
	if n <= 1 || n >= most/2 || !m.busy() {
		return 0
	}
	return min(g.most, time.Duration(g.events*m.span/m.events))
}
