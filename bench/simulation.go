package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pabal-go/pabal/internal/sim/scenario"
)

// simRows counts the runs of the simulation, with the faults and the length of continuous integration.
func simRows(ctx context.Context, b *bench) ([]row, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(1600)) // as in the tests: many short lives
	var rates []float64
	var failure error
	var seed atomic.Uint64
	for range b.rounds {
		var ran atomic.Int64
		var once sync.Once
		var workers sync.WaitGroup
		start := time.Now()
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for time.Since(start) < b.each && ctx.Err() == nil {
					if r := scenario.Run(scenario.Default(seed.Add(1))); r.Failure != nil {
						once.Do(func() { failure = r.Failure })
					}
					ran.Add(1)
				}
			})
		}
		workers.Wait()
		rates = append(rates, float64(ran.Load())/time.Since(start).Seconds())
	}
	return []row{{"simulation, default faults and length", spread(rates, "%.1f") + " seeds/s", "≥ 100"}}, failure
}
