package pabal

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Confirming: what comes back through the record queue has arrived at the broker and left it again. Only here does an
// event become published.

const (
	proofEvery   = 30 * time.Second
	ghostAfter   = 30 * time.Second // an absent event is looked for once more
	rememberFor  = 10 * time.Minute // confirmed ids are read back after a lost connection
	rememberMax  = 20_000
	suspectsMax  = 10_000
	strayLogged  = time.Minute
	retryFirst   = 200 * time.Millisecond
	retryMost    = 5 * time.Second
	receiveBatch = 256 // where the broker has no limit

	// What comes back gathers after each statement: nobody waits for it, and its transactions hold up those that somebody waits for.
	confirmGather = 50 * time.Millisecond
)

// finding is what one message of the record queue turned out to be.
type finding int

const (
	confirmed finding = iota
	repeated          // known already, or older than what we keep
	stray             // not ours, or unreadable
	suspect           // ours, young and absent: looked for once more
	ghost             // absent again: it was published and does not exist
)

func (f finding) String() string {
	return [...]string{"confirmed", "repeated", "stray", "suspect", "ghost"}[f]
}

// classify says what a message is whose event the store answered for. again: it was looked for before.
func classify(answer driver.Confirmation, recordedAt, forgotBefore time.Time, again bool) finding {
	switch {
	case answer == driver.Confirmed:
		return confirmed
	case answer == driver.Known || recordedAt.Before(forgotBefore):
		return repeated
	case again:
		return ghost
	default:
		return suspect
	}
}

// sighting is an event that the confirmer keeps in mind.
type sighting struct {
	ref   driver.Ref
	topic string
	at    world.Mono
}

type confirmer struct {
	*house
	queue    string
	proofs   map[string]time.Time // lowest sentat that came back, by topic, since the last proof; guarded by mu
	dirty    []string             // topics in proofs, in order of appearance
	known    names
	suspects []sighting
	recent   []sighting // confirmed lately
	shaken   bool       // a call of the store failed: confirmed events are read back
	strayAt  world.Mono
	strays   int
}

func newConfirmer(h *house) *confirmer {
	return &confirmer{
		house: h, queue: recordQueue(h.source), proofs: map[string]time.Time{}, strayAt: h.w.Now().Add(-strayLogged),
	}
}

// run confirms until ctx ends. A message that was received is confirmed and acknowledged, or comes again by itself.
func (c *confirmer) run(ctx context.Context, w world.World) {
	if !c.ensureQueue(ctx) {
		return
	}
	w.Go("prover", func(world.World) { c.runProver(ctx) })
	most := receiveMost(&c.limits)
	pause := retryFirst
	for ctx.Err() == nil {
		deliveries, err := c.broker.Receive(ctx, c.queue, most)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("record queue cannot be read, trying again", "queue", c.queue, "err", err)
			_ = c.w.Sleep(ctx, pause)
			pause = min(2*pause, retryMost)
			continue
		}
		pause = retryFirst
		if len(deliveries) > 0 {
			c.confirm(ctx, deliveries)
			if len(deliveries) < most/2 {
				_ = c.w.Sleep(ctx, confirmGather)
			}
		}
	}
}

// receiveMost is how many messages are asked for at a time: as many as the broker gives, and leaves to us.
func receiveMost(l *driver.Limits) int {
	most := receiveBatch
	if l.Receive > 0 {
		most = min(most, l.Receive)
	}
	if l.InFlight > 0 {
		most = min(most, l.InFlight)
	}
	return most
}

// ensureQueue makes, or looks for, the record queue, so that a source without events has one too.
func (c *confirmer) ensureQueue(ctx context.Context) bool {
	return c.ensure(ctx, driver.Topology{Queues: []driver.QueueSpec{{Name: c.queue}}})
}

// ensure checks topology until it is there; false when ctx ended before.
func (h *house) ensure(ctx context.Context, t driver.Topology) bool {
	for pause := retryFirst; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		call, cancel := h.w.Deadline(ctx, openTime)
		err := h.broker.Check(call, t, !h.o.FixedTopology)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			h.log.Error("broker is not ready, trying again", "err", err)
		}
		_ = h.w.Sleep(ctx, pause)
	}
	return false
}

// confirm settles one batch. While the store is away it waits, keeps the messages ours, and receives no more.
func (c *confirmer) confirm(ctx context.Context, deliveries []driver.Delivery) {
	ours := make([]envelope, 0, len(deliveries))
	strays := 0
	var again []string // topics of redelivered events
	for i := range deliveries {
		ours = append(ours, envelope{})
		e := &ours[len(ours)-1]
		err := e.read(&deliveries[i], &c.known)
		if err == nil && e.isCanary() {
			c.answer(ctx, e, c.queue)
			ours = ours[:len(ours)-1]
			continue
		}
		switch {
		case err != nil || e.foreign || e.Source != c.source:
			strays++
			c.stray(e, err)
			ours = ours[:len(ours)-1]
		case e.Job != noJob:
			// It has come back, but to be handled again: consumers that never had the event need a copy without job, so the event
			// stays unconfirmed until one of those has come back.
			again = append(again, e.Topic)
			ours = ours[:len(ours)-1]
		}
	}
	if len(ours) > 0 && !c.settle(ctx, ours, deliveries) {
		return
	}
	c.count(stray, "", strays)
	for _, topic := range again {
		c.count(repeated, topic, 1)
	}
	c.acknowledge(ctx, deliveries)
}

// settle confirms events until the store has answered; false when ctx ended before.
func (c *confirmer) settle(ctx context.Context, ours []envelope, deliveries []driver.Delivery) bool {
	refs := make([]driver.Ref, len(ours))
	for i := range ours {
		refs[i] = ours[i].Ref()
	}
	held := c.w.Now()
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		call, cancel := c.w.Deadline(context.WithoutCancel(ctx), c.o.Lease)
		answers, err := c.store.Confirm(call, refs)
		cancel()
		if err == nil {
			c.sort(ours, answers)
			return true
		}
		c.mu.Lock()
		c.shaken = true
		c.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		c.log.Warn("confirmations cannot be written, trying again", "events", len(ours), "err", err)
		if c.limits.Hold > 0 && c.w.Now().Sub(held) > c.limits.Hold/3 {
			_, _ = c.broker.Extend(ctx, c.queue, deliveries, c.limits.Hold) // lost ones come again, which is harmless
			held = c.w.Now()
		}
		_ = c.w.Sleep(ctx, pause)
	}
}

// sort takes in what the store answered.
func (c *confirmer) sort(ours []envelope, answers []driver.Confirmation) {
	now := c.w.Now()
	var counts []tally
	c.mu.Lock()
	for i := range ours {
		e := &ours[i]
		f := classify(answers[i], e.RecordedAt, time.Time{}, false)
		counts = addTally(counts, f.String(), e.Topic)
		seen := sighting{e.Ref(), e.Topic, now}
		if f != suspect {
			c.came(e.ID)
		}
		switch f {
		case confirmed:
			c.recent = append(c.recent, seen)
		case suspect:
			if len(c.suspects) < suspectsMax {
				c.suspects = append(c.suspects, seen)
			}
			continue
		}
		lowest, known := c.proofs[e.Topic]
		if !known {
			c.dirty = append(c.dirty, e.Topic)
		}
		if !known || e.SentAt.Before(lowest) {
			c.proofs[e.Topic] = e.SentAt
		}
	}
	if over := len(c.recent) - rememberMax; over > 0 {
		c.recent = c.recent[over:]
	}
	c.mu.Unlock()
	for _, t := range counts {
		c.o.Observer.Count(Count{Step: "confirm", Result: t.result, Topic: t.topic, N: t.n})
	}
}

func (c *confirmer) count(f finding, topic string, n int) {
	if n > 0 {
		c.o.Observer.Count(Count{Step: "confirm", Result: f.String(), Topic: topic, N: n})
	}
}

func (c *confirmer) acknowledge(ctx context.Context, deliveries []driver.Delivery) {
	call, cancel := c.w.Deadline(context.WithoutCancel(ctx), c.o.PublishTimeout)
	defer cancel()
	if err := c.broker.Ack(call, c.queue, deliveries); err != nil {
		c.log.Debug("confirmed messages will come again", "queue", c.queue, "err", err)
	}
}

func (c *confirmer) stray(e *envelope, err error) {
	c.strays++
	now := c.w.Now()
	if now.Sub(c.strayAt) < strayLogged {
		return
	}
	c.strayAt = now
	c.log.Warn("record queue holds messages that are not ours", "queue", c.queue, "strays", c.strays,
		"foreign_source", e.Source, "err", err)
}

// runProver does, every 30 s, what is not urgent: it proves topics, and looks again for what was absent.
func (c *confirmer) runProver(ctx context.Context) {
	for c.w.Sleep(ctx, proofEvery) == nil {
		c.prove(ctx)
		call, cancel := c.w.Deadline(ctx, c.o.Lease)
		c.lookAgain(call)
		c.readBack(call)
		cancel()
	}
}

// prove raises proven_at to the lowest sentat that came back since the last time: a backlog still draining proves nothing
// newer than itself.
func (c *confirmer) prove(ctx context.Context) {
	c.mu.Lock()
	dirty, proofs := c.dirty, c.proofs
	c.dirty, c.proofs = nil, map[string]time.Time{}
	c.mu.Unlock()
	call, cancel := c.w.Deadline(ctx, c.o.Lease)
	defer cancel()
	for _, name := range dirty {
		proof := driver.Proof{Topic: name, SentAt: proofs[name]}
		if _, err := c.store.Tend(call, driver.Chore{Prove: &proof}); err != nil {
			c.warn(ctx, "topic cannot be proven now", "topic", name, "err", err)
		}
	}
}

// lookAgain asks once more for events that were absent 30 s ago. What is still absent is a ghost: somebody has it, and
// it does not exist.
func (c *confirmer) lookAgain(ctx context.Context) {
	now := c.w.Now()
	c.mu.Lock()
	n := 0
	for n < len(c.suspects) && n < receiveBatch && now.Sub(c.suspects[n].at) >= ghostAfter {
		n++
	}
	batch := c.suspects[:n:n]
	c.mu.Unlock()
	if n == 0 {
		return
	}
	answers, err := c.store.Confirm(ctx, refsOf(batch))
	if err != nil {
		return // next time
	}
	clock, err := c.store.Read(ctx, driver.Query{})
	if err != nil {
		return
	}
	c.mu.Lock()
	c.suspects = c.suspects[n:]
	c.mu.Unlock()
	for i, s := range batch {
		f := classify(answers[i], s.ref.RecordedAt, clock.Now.Add(-c.o.Retention), true)
		c.count(f, s.topic, 1)
		if f == ghost {
			c.alarm(s.ref.ID, s.topic, "came back from the broker and is not in the store")
		}
	}
}

// readBack looks, after a lost connection, whether what was confirmed lately is still there.
func (c *confirmer) readBack(ctx context.Context) {
	now := c.w.Now()
	c.mu.Lock()
	old := 0
	for old < len(c.recent) && now.Sub(c.recent[old].at) > rememberFor {
		old++
	}
	c.recent = c.recent[old:]
	shaken, recent := c.shaken, c.recent
	c.mu.Unlock()
	if !shaken {
		return
	}
	for start := 0; start < len(recent); start += receiveBatch {
		batch := recent[start:min(start+receiveBatch, len(recent))]
		answers, err := c.store.Confirm(ctx, refsOf(batch))
		if err != nil {
			return
		}
		for i, s := range batch {
			if answers[i] == driver.Absent {
				c.count(ghost, s.topic, 1)
				c.alarm(s.ref.ID, s.topic, "was confirmed and is gone: the database lost commits (see `pabal restored`)")
			}
		}
	}
	c.mu.Lock()
	c.shaken = false
	c.mu.Unlock()
}

func (c *confirmer) alarm(id uuid.UUID, topic, what string) {
	c.log.Error("ghost event", "event_id", id, "topic", topic, "err", what)
}

func refsOf(sightings []sighting) []driver.Ref {
	refs := make([]driver.Ref, len(sightings))
	for i := range sightings {
		refs[i] = sightings[i].ref
	}
	return refs
}
