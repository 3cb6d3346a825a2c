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

// What gathers goes as soon as there is enough of it.
func TestGatheringEndsWithEnough(t *testing.T) {
	h := &house{w: world.Real()}
	l := &lane[int]{wake: h.w.NewSignal()}
	g := gathering{events: 2}
	took := func(d time.Duration) time.Duration {
		start := time.Now()
		gather(t.Context(), h, l, g, d)
		return time.Since(start)
	}
	put := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		l.put(1)
	}
	put()
	if d := took(20 * time.Millisecond); d < 20*time.Millisecond {
		t.Errorf("with one of two it took %v", d)
	}
	time.AfterFunc(10*time.Millisecond, put)
	if d := took(time.Minute); d > 30*time.Second {
		t.Errorf("with a second one it took %v", d)
	}
	if d := took(time.Minute); d > 30*time.Second {
		t.Errorf("with enough it took %v", d)
	}
	l.queue = nil
	_ = l.wake.Wait(t.Context(), 0)
	if put(); !l.wake.Wait(t.Context(), 0) {
		t.Error("one that comes later wakes nobody")
	}
}
