// Package misbehave wraps any broker, any store and any connector of database/sql so that they do, from a seed, what networks,
// servers and disks do now and then: they refuse, stall, lose answers, carry calls out late or by half, double and shuffle
// messages. A test of a driver, or of a whole application, runs through it and ends in the same assertions as without.
//
//	trouble := misbehave.New(seed, misbehave.Plan{"": {Refused: 0.02, Lost: 0.02}, "Publish": {Late: 0.05}})
//	client, err := pabal.New(ctx, misbehave.Store(store, trouble), misbehave.Broker(broker, trouble), "order", nil)
//	…
//	trouble.Calm() // what was promised "in the end" holds once the faults stop
//
// Everything stays within the contracts of package driver: no fault is one that a driver could not answer with, so whatever breaks
// is a bug of what stands above. The n-th call of a method meets the same fault in every run of a seed; which call is the n-th
// is up to the scheduler. Time is the machine's.
package misbehave

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"
)

// Err is wrapped by every error that is made here.
var Err = errors.New("misbehaves on purpose")

// Rates are probabilities, from 0 to 1, of what happens to a call. Each concerns the methods that it names, or all of them.
type Rates struct {
	Refused float64 // not carried out, an error; a COMMIT is a ROLLBACK
	Lost    float64 // carried out, and yet an error
	// Late: an error, and carried out later, within LateMost: Publish, Settle, Commit.
	Late     float64
	LateMost time.Duration
	// Stalled waits for up to StallMost before it is carried out.
	Stalled   float64
	StallMost time.Duration

	HalfFailed float64 // Publish, Ack: about half of the entries are not carried out, and said so
	Silent     float64 // Publish: carried out or not, and the answer names no entry
	Doubled    float64 // Publish: carried out once more, past deduplication; Settle, Confirm: carried out twice
	Short      float64 // Receive: asks for one to three messages
	Shuffled   float64 // Receive: its messages in another order
	HeldBack   float64 // Receive: about half of the messages come with a later call, behind others
	NotAcked   float64 // Ack: answered as done, not carried out
	Conflict   float64 // Load: a serialization failure
	Doubted    float64 // Record: a commit that was proven, or a rollback, is told as doubtful
}

// Plan has the rates by method of a broker, a store or an inbox; "Commit" is a handler's COMMIT and one of [Connector]. Those of ""
// are for methods that are not named. Limits, Conflict and Close never misbehave, nor does Open unless it is named.
type Plan map[string]Rates

// Trouble decides what goes wrong, and counts it. Its methods are safe for concurrent use.
type Trouble struct {
	seed uint64
	late sync.WaitGroup

	mu    sync.Mutex
	plan  Plan
	calls map[string]uint64
	done  map[string]int
}

// SeedVariable names the variable of the environment that has another seed for suites that run with a fixed one.
const SeedVariable = "PABAL_MISBEHAVE_SEED"

// Seed is the seed that [SeedVariable] has, or the one given.
func Seed(seed uint64) uint64 {
	if other, err := strconv.ParseUint(os.Getenv(SeedVariable), 10, 64); err == nil {
		return other
	}
	return seed
}

// New makes trouble by a plan, which may be nil: none until [Trouble.Set].
func New(seed uint64, plan Plan) *Trouble {
	return &Trouble{seed: seed, plan: maps.Clone(plan), calls: map[string]uint64{}, done: map[string]int{}}
}

// Set changes the plan.
func (t *Trouble) Set(plan Plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plan = maps.Clone(plan)
}

// Calm ends all trouble, and waits for what is carried out late.
func (t *Trouble) Calm() {
	t.Set(nil)
	t.late.Wait()
}

// Done answers how often each thing went wrong, by method and fault: "Publish Lost".
func (t *Trouble) Done() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.done)
}

// call is one call on its way.
type call struct {
	Rates
	t      *Trouble
	method string
	random *rand.Rand
}

func (t *Trouble) call(method string) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.calls[method]
	t.calls[method]++
	rates, named := t.plan[method]
	if !named && method != "Open" {
		rates = t.plan[""]
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(method)) // never fails
	return &call{Rates: rates, t: t, method: method, random: rand.New(rand.NewPCG(t.seed, h.Sum64()+n))}
}

// is decides whether something of this rate happens.
func (c *call) is(fault string, rate float64) bool {
	if c.random.Float64() >= rate {
		return false
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.t.done[c.method+" "+fault]++
	return true
}

func (c *call) err(how string) error { return fmt.Errorf("%s %s: %w", c.method, how, Err) }

func (c *call) upTo(d time.Duration) time.Duration {
	return time.Duration(c.random.Int64N(int64(d) + 1))
}

// stall waits, perhaps; its error is that of a context which ended meanwhile.
func (c *call) stall(ctx context.Context) error {
	if !c.is("Stalled", c.Stalled) {
		return nil
	}
	timer := time.NewTimer(c.upTo(c.StallMost))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do carries a call out, or not, or does not say so.
func (c *call) do(ctx context.Context, f func() error) error {
	if err := c.stall(ctx); err != nil {
		return err
	}
	if c.is("Refused", c.Refused) {
		return c.err("is refused")
	}
	if err := f(); err != nil {
		return err
	}
	if c.is("Lost", c.Lost) {
		return c.err("lost its answer")
	}
	return nil
}

// later carries something out when nobody waits for it any more.
func (c *call) later(ctx context.Context, f func(context.Context)) {
	ctx, d := context.WithoutCancel(ctx), c.upTo(c.LateMost)
	c.t.late.Go(func() {
		<-time.After(d)
		ctx, cancel := context.WithTimeout(ctx, lateTime)
		defer cancel()
		f(ctx)
	})
}

const lateTime = 10 * time.Second // bounds what is carried out late
