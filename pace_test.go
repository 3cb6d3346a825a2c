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

func TestBatchesGatherUnderLoadOnly(t *testing.T) {
	const ms, quick = time.Millisecond, 100 * time.Microsecond
	gathers := gathering{32, 10 * ms, 50 * ms}
	for _, c := range []struct {
		name string
		most int
		some []turn // again and again
		last turn   // then
		want time.Duration
	}{
		{"the first", 256, nil, turn{4, ms, ms}, 0},
		{"alone", 256, []turn{{4, 2 * ms, ms}}, turn{1, ms / 2, ms}, 0},
		{"until enough have come", 256, []turn{{20, 2 * ms, ms}}, turn{20, 2 * ms, ms}, 3200 * time.Microsecond},
		{"no more than fit", 24, []turn{{10, ms, ms}}, turn{10, ms, ms}, 2400 * time.Microsecond},
		{"bounded", 256, []turn{{4, 2 * ms, ms}}, turn{4, 2 * ms, ms}, 10 * ms},
		{"calls count for what they cost, however quick", 256, []turn{{4, 2 * ms, quick}}, turn{4, 2 * ms, quick}, 10 * ms},
		{"one by one would do", 256, []turn{{1, 2 * ms, ms}}, turn{4, 2 * ms, ms}, 0},
		{"slow ones would not", 256, []turn{{2, 8 * ms, 5 * ms}}, turn{2, 8 * ms, 5 * ms}, 40 * ms},
		{"slower ones", 256, []turn{{2, 8 * ms, 10 * ms}}, turn{2, 8 * ms, 10 * ms}, 50 * ms},
		{"together because of the last pause", 256, []turn{{1, 3 * ms, ms}, {6, 10 * ms, ms}}, turn{6, 10 * ms, ms}, 0},
		{"larger ones take longer", 256, []turn{{1, 3 * ms, ms}, {2, 6 * ms, 3 * ms}}, turn{2, 5 * ms, 3 * ms}, 0},
		{"after a pause", 256, []turn{{4, 2 * ms, ms}}, turn{4, time.Second, ms}, 0},
		{"well filled", 256, []turn{{128, ms, ms}}, turn{128, ms, ms}, 0},
		{"no batches at all", 1, []turn{{1, ms / 2, ms}}, turn{1, ms / 2, ms}, 0},
		{"full", 2, []turn{{2, ms, ms}}, turn{2, ms, ms}, 0},
	} {
		var p pace
		at := world.Mono(time.Second)
		take := func(one turn) time.Duration {
			at = at.Add(one.apart)
			return p.pause(one.n, c.most, at, at.Add(one.took), gathers.upTo(c.most))
		}
		for range 100 {
			for _, one := range c.some {
				take(one)
			}
		}
		if got := take(c.last).Round(10 * time.Microsecond); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

// One batch that was held up does not pass for what an event alone takes, and one that was quick does not for ever.
func TestPaceGoesByTheQuickestBatchLately(t *testing.T) {
	const ms = time.Millisecond
	var p pace
	at := world.Mono(time.Second)
	take := func(took time.Duration) time.Duration {
		at = at.Add(4 * ms)
		return p.pause(2, 256, at, at.Add(took), beforeHandling)
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
