package pabal

import (
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

const (
	lingerTimes   = 16
	lingerMost    = 50 * time.Millisecond
	lingerPublish = 10 * time.Millisecond // before a publish: it delays everybody
)

// pace decides whether what works in batches lets the next one gather. A transaction, or a call, costs much the same for one event as
// for many, so under load fewer and larger ones serve more; where each could be served as it comes, waiting would only delay.
type pace struct {
	most    int // events in a batch
	longest time.Duration
	last    world.Mono // when the batch before was begun; zero: there was none
}

// linger is how long to wait before the next batch, after one of n events took from start to end. There is load when events, served
// one by one at that speed, would take longer than they took to come, and none in what came alone; a batch that is well filled
// needs no waiting.
func (p *pace) linger(n int, start, end world.Mono) time.Duration {
	took, apart, first := end.Sub(start), start.Sub(p.last), p.last == 0
	p.last = start
	if first || n <= 1 || n >= p.most/2 || time.Duration(n)*took <= apart {
		return 0
	}
	return min(lingerTimes*took, p.longest)
}
