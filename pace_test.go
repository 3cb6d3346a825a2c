package pabal

import (
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

func TestLingerGathersUnderLoadOnly(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name        string
		n, most     int
		apart, took time.Duration // since the batch before was begun; of this one
		want        time.Duration
	}{
		{name: "alone", n: 1, most: 256, apart: ms / 2, took: ms, want: 0},
		{name: "more than one by one can serve", n: 4, most: 256, apart: 2 * ms, took: ms, want: 16 * ms},
		{name: "bounded", n: 50, most: 256, apart: 100 * ms, took: 100 * ms, want: 50 * ms},
		{name: "together by chance", n: 2, most: 256, apart: 8 * ms, took: ms, want: 0},
		{name: "together because of the last linger", n: 2, most: 256, apart: 17 * ms, took: ms, want: 0},
		{name: "well filled", n: 128, most: 256, apart: ms, took: ms, want: 0},
		{name: "no batches at all", n: 1, most: 1, apart: ms, took: ms, want: 0},
		{name: "full", n: 2, most: 2, apart: ms, took: ms, want: 0},
	} {
		p := pace{most: c.most, longest: lingerMost}
		start := world.Mono(time.Second)
		if got := p.linger(c.n, start, start.Add(c.took)); got != 0 {
			t.Errorf("%s: %v after the first batch, which nothing came before", c.name, got)
		}
		start = start.Add(c.apart)
		if got := p.linger(c.n, start, start.Add(c.took)); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}
