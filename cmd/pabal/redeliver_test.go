package main

import (
	"testing"
	"time"
)

func TestProgressSaysHowMuchIsDoneAndHowLongItTakes(t *testing.T) {
	for _, c := range []struct {
		sent, total, rate int
		waited            time.Duration
		want              string
	}{
		{0, 200, 100, time.Second, "[..............................] 0 of 200 (0 %), 2s left"},
		{50, 200, 10, time.Minute, "[#######.......................] 50 of 200 (25 %), 15s left"},
		{200, 200, 100, time.Minute, "[##############################] 200 of 200 (100 %), 0s left"},
		{210, 200, 100, time.Minute, "[##############################] 210 of 200 (100 %), 0s left"}, // a page twice after a kill
		{0, 0, 100, time.Second, "[..............................] 0 of 0 (0 %), 0s left"},
		{0, 200, 100, time.Minute, "waiting for 1m0s: a running client of the source carries it out, or pabal relay"},
	} {
		if got := progress(c.sent, c.total, c.rate, c.waited); got != c.want {
			t.Errorf("%d of %d: %q, want %q", c.sent, c.total, got, c.want)
		}
	}
}
