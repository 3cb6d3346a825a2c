// Package world is the only way in which package pabal meets time, chance and concurrency. The real world is goroutines
// and clocks; the simulated one (internal/sim) runs the same code as coroutines on a virtual clock, ordered by a seed.
// Code written against World is straight-line code in tasks; a task blocks only in a driver's method, in Sleep, in
// Signal.Wait and in Join.
package world

import (
	"context"
	"time"
)

// Mono is a moment of a process's monotonic clock, in nanoseconds since some moment; only differences mean something.
type Mono int64

// Add returns the moment d later.
func (m Mono) Add(d time.Duration) Mono { return m + Mono(d) }

// Sub returns the time from o to m.
func (m Mono) Sub(o Mono) time.Duration { return time.Duration(m - o) }

// World gives a process its time, chance and concurrency.
type World interface {
	// Go starts a task. It never blocks. The task gets a World that knows it as the parent of the tasks it starts.
	Go(name string, task func(World))
	// Join waits until all tasks that were started through this World value have ended, or ctx ends (its error).
	Join(ctx context.Context) error
	// Now is elapsed time only.
	Now() Mono
	// Wall is for ids only, never for decisions.
	Wall() time.Time
	// Rand returns 64 random bits.
	Rand() uint64
	// Sleep waits for d, or until ctx ends (its error).
	Sleep(ctx context.Context, d time.Duration) error
	// Deadline is context.WithTimeout on this world's clock.
	Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// NewSignal makes a signal that is not set.
	NewSignal() Signal
}

// Signal wakes a waiting task. It is sticky: a Set that finds nobody waiting is kept, once, for the next Wait. Set never
// blocks, wakes at most one waiter and may be called from anywhere.
type Signal interface {
	Set()
	// Wait returns true when the signal was set, and unsets it; false after d, or when ctx ends. d < 0 waits for ever, 0
	// only looks.
	Wait(ctx context.Context, d time.Duration) bool
}

// Bringer is implemented by stores that live in a world of their own: a client of such a store lives there too.
type Bringer interface {
	World() World
}
