package pabal

import (
	"testing"
	"time"
)

func TestLingerGathersUnderLoadOnly(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		n, most int
		took    time.Duration
		want    time.Duration
	}{
		{n: 1, most: 256, took: ms, want: 0},              // alone: no load
		{n: 2, most: 256, took: ms, want: 16 * ms},        // several: let more come
		{n: 50, most: 256, took: 100 * ms, want: 50 * ms}, // bounded
		{n: 128, most: 256, took: ms, want: 0},            // well filled
		{n: 1, most: 1, took: ms, want: 0},                // no batches at all
		{n: 2, most: 2, took: ms, want: 0},                // full
	} {
		if got := linger(c.n, c.most, c.took, lingerMost); got != c.want {
			t.Errorf("after %d of %d events in %v: %v, not %v", c.n, c.most, c.took, got, c.want)
		}
	}
}
