package pabal

import (
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

const (
	callLeast  = time.Millisecond       // what a call, or a transaction, counts for: it costs two processes more than the time it takes
	paceOver   = 200 * time.Millisecond // how far back the rate of events is looked at
	onceForget = 16                     // batches after which a quick one no longer counts much
	onceTimes  = 8
)

// gathering is how a batch gathers: until so many events have come; more of them would share what a batch costs by itself, but save
// little. It lasts for most, where batches are slow for some times as long as the quickest, never longer than longest.
type gathering struct {
	events        int
	most, longest time.Duration
}

var (
	beforePublish  = gathering{24, 3 * time.Millisecond, 10 * time.Millisecond} // which delays everybody
	beforeHandling = gathering{96, 10 * time.Millisecond, 50 * time.Millisecond}
)

// upTo is how a batch gathers of which no more fit.
func (g gathering) upTo(most int) gathering {
	g.events = min(g.events, most)
	return g
}

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

// busy reports whether events come quicker than calls that take once could serve them one by one. Then fewer and larger batches serve
// more; else waiting for a larger one would only delay.
func (m *meter) busy(once time.Duration) bool { return m.events*float64(max(once, callLeast)) > m.span }

// pace decides whether the next batch gathers.
type pace struct {
	meter
	once time.Duration // what the quickest batch lately took: a larger one, or one that others held up, says nothing of an event alone
}

// pause is how long the next batch gathers, at the rate of lately, after one of n events, of which most fit into one, that took from
// start to end. What came alone, or well filled, needs no waiting.
func (p *pace) pause(n, most int, start, end world.Mono, g gathering) time.Duration {
	took := end.Sub(start)
	if p.last == 0 {
		p.once = took
	}
	p.once = min(took, p.once+(took-p.once)/onceForget)
	p.add(n, start)
	if n <= 1 || n >= most/2 || !p.busy(p.once) {
		return 0
	}
	longest := min(max(g.most, onceTimes*p.once), g.longest)
	return min(longest, time.Duration(float64(g.events)*p.span/p.events))
}
