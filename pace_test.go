package pabal

import (
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// turn is a batch: of n events, begun some time after the one before, that took some time.
type turn struct {
	n           int
	apart, took time.Duration
}

func TestLingerGathersUnderLoadOnly(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		most int
		some []turn        // again and again
		last turn          // then
		want time.Duration // after the last
	}{
		{"the first", 256, nil, turn{4, ms, ms}, 0},
		{"alone", 256, []turn{{4, 2 * ms, ms}}, turn{1, ms / 2, ms}, 0},
		{"more than one by one can serve", 256, []turn{{4, 2 * ms, ms}}, turn{4, 2 * ms, ms}, 16 * ms},
		{"bounded", 256, []turn{{50, 100 * ms, 100 * ms}}, turn{50, 100 * ms, 100 * ms}, 50 * ms},
		{"together by chance", 256, []turn{{1, 3 * ms, ms}}, turn{4, 2 * ms, ms}, 0},
		{"together because of the last linger", 256, []turn{{1, 3 * ms, ms}, {6, 17 * ms, ms}}, turn{6, 17 * ms, ms}, 0},
		{"larger ones take longer", 256, []turn{{1, 3 * ms, ms}, {2, 6 * ms, 3 * ms}}, turn{2, 5 * ms, 3 * ms}, 0},
		{"after a pause", 256, []turn{{4, 2 * ms, ms}}, turn{4, time.Second, ms}, 0},
		{"well filled", 256, []turn{{128, ms, ms}}, turn{128, ms, ms}, 0},
		{"no batches at all", 1, []turn{{1, ms, ms}}, turn{1, ms, ms}, 0},
		{"full", 2, []turn{{2, ms, ms}}, turn{2, ms, ms}, 0},
	} {
		p := pace{most: c.most, longest: lingerMost}
		at := world.Mono(time.Second)
		take := func(one turn) time.Duration {
			at = at.Add(one.apart)
			return p.linger(one.n, at, at.Add(one.took))
		}
		for range 100 {
			for _, one := range c.some {
				take(one)
			}
		}
		if got := take(c.last); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

// One batch that was held up does not pass for what an event alone takes, and one that was quick does not for ever.
func TestLingerGoesByTheQuickestBatchLately(t *testing.T) {
	const ms = time.Millisecond
	p := pace{most: 256, longest: lingerMost}
	at := world.Mono(time.Second)
	take := func(took time.Duration) time.Duration {
		at = at.Add(4 * ms)
		return p.linger(2, at, at.Add(took))
	}
	for range 100 {
		take(ms)
	}
	if got := take(10 * ms); got != 0 {
		t.Errorf("%v after one that was held up", got)
	}
	for range 100 {
		take(10 * ms)
	}
	if got := take(10 * ms); got < 49*ms {
		t.Errorf("%v after many that took longer", got)
	}
}
