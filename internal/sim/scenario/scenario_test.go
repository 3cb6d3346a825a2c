package scenario

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 100, "how many seeds to run")
	seed  = flag.Uint64("sim.seed", 0, "the one seed to run, with a trace on standard output")
	reals = flag.Int("sim.real", 20, "how many runs to make on goroutines, from the first seed on")
	first = flag.Uint64("sim.first", 1, "the first seed")
	step  = flag.Int64("sim.step", 1, "from seed to seed: 8 stays with one kind of run")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(1600) // many short lives
	os.Exit(func() int { flag.Parse(); return m.Run() }())
}

func TestPromisesHoldUnderFaults(t *testing.T) {
	if *seed != 0 {
		c, err := With(*seed, *with)
		if err != nil {
			t.Fatal(err)
		}
		c.Trace = os.Stdout
		r := Run(c)
		t.Logf("%+v", r)
		if r.Failure != nil {
			t.Fatal(r.Failure)
		}
		return
	}
	start := time.Now()
	var next, failed, steps, recorded, published atomic.Int64
	next.Store(int64(*first) - *step)
	last := int64(*first) + *step*int64(*seeds-1)
	failed.Store(last + 1)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for n := next.Add(*step); n < failed.Load(); n = next.Add(*step) {
				r := Run(Default(uint64(n)))
				steps.Add(int64(r.Steps))
				recorded.Add(int64(r.Recorded))
				published.Add(int64(r.Published))
				if r.Failure == nil {
					twice(t, uint64(n), r)
					continue
				}
				for before := failed.Load(); n < before && !failed.CompareAndSwap(before, n); before = failed.Load() {
				}
			}
		})
	}
	workers.Wait()
	if n := failed.Load(); n <= last {
		report(t, uint64(n))
	}
	d := time.Since(start)
	t.Logf("%d seeds in %v (%.1f a second), %d steps, %d events recorded, %d published", *seeds, d.Round(time.Millisecond),
		float64(*seeds)/d.Seconds(), steps.Load(), recorded.Load(), published.Load())
}

// report tells of the lowest seed that fails.
func report(t *testing.T, n uint64) {
	c := Default(n)
	r := Run(c)
	t.Errorf("seed %d: %v\n  after %v, %d steps; replay: %s", n, r.Failure, r.Elapsed, r.Steps, replay(c))
	shrunk(t, c)
}

// twice runs one seed in twenty a second time.
func twice(t *testing.T, n uint64, r Result) {
	if n%20 != 0 {
		return
	}
	if again := Run(Default(n)); again.Hash != r.Hash {
		t.Errorf("seed %d: the second run went another way: %x, then %x", n, r.Hash, again.Hash)
	}
}

func TestPromisesHoldOnGoroutines(t *testing.T) {
	if *seed != 0 {
		t.Skip("one seed of the simulation was asked for")
	}
	const together = 40 // they mostly wait
	var next, recorded, effects atomic.Int64
	next.Store(int64(*first) - 1)
	var workers sync.WaitGroup
	for range together {
		workers.Go(func() {
			for n := next.Add(1); n < int64(*first)+int64(*reals); n = next.Add(1) {
				c := Default(uint64(n))
				c.Orders = 12
				r := RunReal(c)
				if r.Failure != nil {
					t.Errorf("run %d: %v, after %v", n, r.Failure, r.Elapsed)
				}
				recorded.Add(int64(r.Recorded))
				effects.Add(int64(r.Effects))
			}
		})
	}
	workers.Wait()
	t.Logf("%d runs, %d events recorded, %d effects", *reals, recorded.Load(), effects.Load())
}
