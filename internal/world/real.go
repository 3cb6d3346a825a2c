package world

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Real returns the real world: tasks are goroutines, clocks are the machine's.
func Real() World { return &real{pace: 1} }

// Hurried returns the real world with a clock that goes pace times as fast: what waits a minute waits a minute's pace-th
// part. For tests that want goroutines and the race detector without the protocol's long waits.
func Hurried(pace int) World { return &real{pace: time.Duration(pace)} }

type real struct {
	pace  time.Duration
	tasks sync.WaitGroup
}

var start = time.Now()

func (r *real) Go(_ string, task func(World)) {
	r.tasks.Go(func() { task(&real{pace: r.pace}) })
}

func (r *real) Join(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *real) Now() Mono       { return Mono(time.Since(start) * r.pace) }
func (r *real) Wall() time.Time { return start.Add(time.Since(start) * r.pace) }
func (r *real) Rand() uint64    { return rand.Uint64() }

func (r *real) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d / r.pace)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *real) Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d/r.pace)
}

func (r *real) NewSignal() Signal { return &realSignal{make(chan struct{}, 1), r.pace} }

type realSignal struct {
	set  chan struct{}
	pace time.Duration
}

func (s *realSignal) Set() {
	select {
	case s.set <- struct{}{}:
	default:
	}
}

func (s *realSignal) Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-s.set:
		return true
	default:
	}
	var timeout <-chan time.Time
	switch {
	case d == 0:
		return false
	case d > 0:
		timer := time.NewTimer(d / s.pace)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-s.set:
		return true
	case <-timeout:
		return false
	case <-ctx.Done():
		return false
	}
}
