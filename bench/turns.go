package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const turn = 400 * time.Millisecond

// rival is one of several ways to do something, which take turns.
type rival struct {
	do     func(ctx context.Context, n int64) error // n is another one at each call
	done   int                                      // calls so far
	rates  []float64                                // a second, by round: the median of its turns
	ratios []float64                                // to the first rival, by round: the median of its turns
}

// inTurn alternates turns of all rivals until rounds are full: b.each for two.
func (b *bench) inTurn(ctx context.Context, workers int, rivals ...*rival) error {
	var next atomic.Int64
	for _, r := range rivals { // all meet warm connections
		if _, err := r.turn(ctx, workers, &next); err != nil {
			return err
		}
	}
	for range b.rounds {
		rates, ratios := make([][]float64, len(rivals)), make([][]float64, len(rivals))
		for began := time.Now(); time.Since(began) < b.each*time.Duration(len(rivals))/2; {
			for i, r := range rivals {
				rate, err := r.turn(ctx, workers, &next)
				if err != nil {
					return err
				}
				rates[i] = append(rates[i], rate)
				ratios[i] = append(ratios[i], rate/rates[0][len(rates[0])-1])
			}
		}
		for i, r := range rivals {
			r.rates, r.ratios = append(r.rates, median(rates[i])), append(r.ratios, median(ratios[i]))
		}
	}
	return nil
}

func (r *rival) turn(ctx context.Context, workers int, next *atomic.Int64) (rate float64, err error) {
	var n atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, workers)
	began := time.Now()
	for w := range workers {
		all.Go(func() {
			for time.Since(began) < turn && errs[w] == nil {
				if errs[w] = r.do(ctx, next.Add(1)); errs[w] == nil {
					n.Add(1)
				}
			}
		})
	}
	all.Wait()
	r.done += int(n.Load())
	return float64(n.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}
