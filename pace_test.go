package pabal

import (
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// turn is a batch: of n events, begun some time after the one before.
type turn struct {
	n     int
	apart time.Duration
}

func TestBatchesGatherUnderLoadOnly(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		most int
		some []turn // again and again
		last turn   // then
		want time.Duration
	}{
		{"the first", 256, nil, turn{4, ms}, 0},
		{"alone", 256, []turn{{4, 2 * ms}}, turn{1, ms / 2}, 0},
		{"until enough have come", 256, []turn{{20, 2 * ms}}, turn{20, 2 * ms}, 3200 * time.Microsecond},
		{"bounded", 256, []turn{{4, 2 * ms}}, turn{4, 2 * ms}, 10 * ms},
		{"one by one would do", 256, []turn{{1, 2 * ms}}, turn{4, 2 * ms}, 0},
		{"together because of the last pause", 256, []turn{{1, 3 * ms}, {6, 10 * ms}}, turn{6, 10 * ms}, 0},
		{"after a pause", 256, []turn{{4, 2 * ms}}, turn{4, time.Second}, 0},
		{"well filled", 256, []turn{{128, ms}}, turn{128, ms}, 0},
		{"no batches at all", 1, []turn{{1, ms / 2}}, turn{1, ms / 2}, 0},
		{"full", 2, []turn{{2, ms}}, turn{2, ms}, 0},
	} {
		var m meter
		at := world.Mono(time.Second)
		take := func(one turn) time.Duration {
			at = at.Add(one.apart)
			m.add(one.n, at)
			return m.pause(one.n, c.most, beforeHandling)
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
