package pabal

import (
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

const (
	lingerTimes   = 16
	lingerMost    = 50 * time.Millisecond
	lingerPublish = 10 * time.Millisecond  // before a publish: it delays everybody
	callLeast     = time.Millisecond       // what a publish call counts for, which costs two processes more than the time it takes
	paceOver      = 200 * time.Millisecond // how far back the rate of events is looked at
	paceForgets   = 16                     // batches after which a quick one no longer counts much
)

// pace decides whether what works in batches lets the next one gather. A transaction, or a call, costs much the same for one event as
// for many, so under load fewer and larger ones serve more; where each could be served as it comes, waiting would only delay.
type pace struct {
	most    int // events in a batch
	longest time.Duration

	least time.Duration // what a batch costs at least, however quick it is

	meter
	once time.Duration // the quickest lately
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

func (m *meter) moreThanOneIn(d time.Duration) bool { return m.events*float64(d) > m.span }

// linger is how long to wait before the next batch, after one of n events took from start to end. There is load when events come
// quicker than they could be served one by one, each in the time of the quickest batch lately: a larger one, or one that others
// held up, says nothing of that. What came alone, or well filled, needs no waiting.
func (p *pace) linger(n int, start, end world.Mono) time.Duration {
	took := end.Sub(start)
	if p.last == 0 {
		p.once = took
	}
	p.once = min(took, p.once+(took-p.once)/paceForgets)
	p.add(n, start)
	if n <= 1 || n >= p.most/2 || !p.moreThanOneIn(max(p.once, p.least)) {
		return 0
	}
	return min(lingerTimes*p.once, p.longest)
}
