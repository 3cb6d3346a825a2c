package world

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Real returns the real world: tasks are goroutines, clocks are the machine's.
func Real() World { return &real{} }

type real struct {
	tasks sync.WaitGroup
}

var start = time.Now()

func (r *real) Go(_ string, task func(World)) {
	r.tasks.Go(func() { task(&real{}) })
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

func (r *real) Now() Mono       { return Mono(time.Since(start)) }
func (r *real) Wall() time.Time { return time.Now() }
func (r *real) Rand() uint64    { return rand.Uint64() }

func (r *real) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *real) Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func (r *real) NewSignal() Signal { return make(realSignal, 1) }

type realSignal chan struct{}

func (s realSignal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

func (s realSignal) Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-s:
		return true
	default:
	}
	var timeout <-chan time.Time
	switch {
	case d == 0:
		return false
	case d > 0:
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-s:
		return true
	case <-timeout:
		return false
	case <-ctx.Done():
		return false
	}
}
