package scenario

import (
	"flag"
	"os"
	"testing"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 20, "how many seeds to run")
	seed  = flag.Uint64("sim.seed", 0, "the one seed to run, with a trace on standard output")
	first = flag.Uint64("sim.first", 1, "the first seed")
)

func TestPromisesHoldUnderFaults(t *testing.T) {
	if *seed != 0 {
		c := Default(*seed)
		c.Trace = os.Stdout
		r := Run(c)
		t.Logf("%+v", r)
		if r.Failure != nil {
			t.Fatal(r.Failure)
		}
		return
	}
	start := time.Now()
	var steps, recorded, published, effects int
	for n := *first; n < *first+uint64(*seeds); n++ {
		r := Run(Default(n))
		if r.Failure != nil {
			t.Errorf("seed %d: %v\n  after %v, %d steps; replay: go test ./internal/sim/scenario -run %s -v -sim.seed=%d",
				n, r.Failure, r.Elapsed, r.Steps, t.Name(), n)
			continue
		}
		steps, recorded, published, effects = steps+r.Steps, recorded+r.Recorded, published+r.Published, effects+r.Effects
		if n%20 == 0 {
			if again := Run(Default(n)); again.Hash != r.Hash {
				t.Errorf("seed %d: the second run went another way: %x, %x", n, r.Hash, again.Hash)
			}
		}
	}
	d := time.Since(start)
	t.Logf("%d seeds in %v (%.1f a second), %d steps, %d events recorded, %d published", *seeds, d.Round(time.Millisecond),
		float64(*seeds)/d.Seconds(), steps, recorded, published)
}
