package pabal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Consuming: receive, spread over lanes by key (lanes.go), handle (inbox.go), acknowledge.

// ConsumerOptions of [Client.Consumer]. Nil and zero values are the good defaults.
type ConsumerOptions struct {
	// Concurrency is how many transactions run at a time; events of a key never do. On a database with one writer it is
	// best 1. 1 to 256, default 8.
	Concurrency int
	// Timeout bounds a call of a handler; its context ends then. 100 ms to 1 h, default 30 s.
	Timeout time.Duration
	// Tries is how often a handler is tried before its event is parked. 1 to 100, default 10.
	Tries int
	// Batch is the most events in a call of a batch handler. 1 to 1,000, default 100.
	Batch int
	// PassParked lets the later events of a key be handled although one of them is parked; by default they wait for an
	// operator.
	PassParked bool
}

// Consumer is one service's reader of events: a queue of its name at the broker, and an inbox of its name in the database.
// All processes of a consumer share both.
type Consumer[X any] struct {
	house    *house
	inbox    driver.Inbox[X]
	name     string
	o        ConsumerOptions
	handlers map[string]*handler[X]
	topics   []driver.TopicSpec
	known    names // the receiver's
	err      error

	// guarded by house.mu
	lanes    []*lane[*arrival]
	stays    stays
	offered  meter
	once     time.Duration // what the quickest transaction of a lane lately took
	inflight []*arrival    // received and not acknowledged, in order of arrival
	waiting  int           // arrivals in lanes, running ones included
	swept    int           // those of them that come from the inbox
	acks     []driver.Delivery
	acking   int                  // of them, in the call that is under way
	joined   map[string]time.Time // by source and topic; by topic alone: since when the queue is known to be subscribed
	hung     []error
	ended    bool // no lane runs any more
	acker    world.Signal
	roomy    world.Signal
	due      world.Signal
}

// Consumer makes a consumer of this client's database. The name is its queue's at the broker and must be unique there: 1
// to 64 letters, digits, '-' and '_'. What is wrong with it is reported by [Client.Run].
func (c *Client[X]) Consumer(name string, options *ConsumerOptions) *Consumer[X] {
	o := ConsumerOptions{}
	if options != nil {
		o = *options
	}
	orDefault(&o.Concurrency, 8)
	orDefault(&o.Timeout, 30*time.Second)
	orDefault(&o.Tries, 10)
	orDefault(&o.Batch, 100)
	h := c.house
	consumer := &Consumer[X]{
		house: h, inbox: c.store.Inbox(), name: name, o: o, handlers: map[string]*handler[X]{}, joined: map[string]time.Time{},
		stays: stays{},
		acker: h.w.NewSignal(), roomy: h.w.NewSignal(), due: h.w.NewSignal(),
		err: errors.Join(
			checkName("consumer", name),
			between("Concurrency of consumer "+name, o.Concurrency, 1, 256),
			between("Timeout of consumer "+name, o.Timeout, 100*time.Millisecond, time.Hour),
			between("Tries of consumer "+name, o.Tries, 1, 100),
			between("Batch of consumer "+name, o.Batch, 1, batchMax),
		),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range c.consumers {
		if other.name == name {
			consumer.err = errors.Join(consumer.err, fmt.Errorf("consumer %s is made twice", name))
		}
	}
	if c.running {
		consumer.err = errors.Join(consumer.err, fmt.Errorf("consumer %s is made after Run", name))
	}
	c.consumers = append(c.consumers, consumer)
	return consumer
}

func (c *Consumer[X]) register(err error, topic string, ordered bool, h *handler[X]) {
	if c.handlers[h.name] != nil {
		err = errors.Join(err, fmt.Errorf("type %s has two handlers", h.name))
	}
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("consumer %s: %w", c.name, err))
		return
	}
	c.handlers[h.name] = h
	for i := range c.topics {
		if c.topics[i].Name == topic {
			c.topics[i].Ordered = c.topics[i].Ordered || ordered
			return
		}
	}
	c.topics = append(c.topics, driver.TopicSpec{Name: topic, Ordered: ordered})
}

func (c *Consumer[X]) check() error {
	if c.err == nil && len(c.handlers) == 0 {
		return fmt.Errorf("consumer %s has no handler", c.name)
	}
	return c.err
}

// topology is the consumer's queue with its subscriptions.
func (c *Consumer[X]) topology() driver.Topology {
	t := driver.Topology{Topics: c.topics, Queues: []driver.QueueSpec{{Name: c.name}}}
	for _, topic := range c.topics {
		t.Queues[0].Topics = append(t.Queues[0].Topics, topic.Name)
	}
	return t
}

// runLease is how long a row that is handled from the inbox is left alone by other sweeps.
func (c *Consumer[X]) runLease() time.Duration { return c.o.Timeout + 2*handlerGrace }

// bound is how many arrivals wait in memory at most.
func (c *Consumer[X]) bound() int {
	n := max(2*c.o.Concurrency*c.o.Batch, receiveBatch)
	if c.house.limits.InFlight > 0 {
		n = min(n, c.house.limits.InFlight)
	}
	return n
}

// run consumes until ctx ends, and returns when the handlers that were running have ended; patience cancels them. It calls
// subscribed when its queue is there, at once when it was before.
func (c *Consumer[X]) run(ctx, patience context.Context, w world.World, subscribed func()) {
	remembered := c.remembered(ctx)
	if remembered {
		subscribed() // the broker keeps the queue's copies, whether or not it is there now
	}
	t := c.topology()
	if !c.house.ensure(ctx, t) || !c.subscribed(ctx, w.Now()) {
		return
	}
	if !remembered {
		subscribed()
	}
	for range c.o.Concurrency {
		c.lanes = append(c.lanes, &lane[*arrival]{wake: w.NewSignal()})
	}
	done := w.NewSignal()
	w.Go("acker", func(world.World) { c.runAcker(patience) })
	beating, rest := context.WithCancel(patience)
	if c.house.limits.Hold > 0 {
		w.Go("heartbeat", func(world.World) { c.runHeartbeat(beating) })
	}
	w.Go("lanes", func(w world.World) {
		for _, l := range c.lanes {
			w.Go("lane", func(w world.World) { c.runLane(ctx, patience, w, l) })
		}
		_ = w.Join(context.WithoutCancel(patience)) // lanes end soon after ctx, or patience, has ended
		done.Set()
	})
	w.Go("inbox-sweep", func(world.World) { c.runSweep(ctx) })
	c.runReceiver(ctx)
	for _, l := range c.lanes {
		l.wake.Set()
	}
	done.Wait(context.WithoutCancel(patience), -1)
	rest()
	c.house.mu.Lock()
	c.ended = true
	c.house.mu.Unlock()
	c.acker.Set()
}

func (c *Consumer[X]) runReceiver(ctx context.Context) {
	h := c.house
	most := receiveMost(&h.limits)
	pause := retryFirst
	for ctx.Err() == nil {
		h.mu.Lock()
		c.inflight = compact(c.inflight)
		room := min(most, c.bound()-len(c.inflight)-len(c.acks)-c.acking)
		h.mu.Unlock()
		if room < most/4+1 {
			c.roomy.Wait(ctx, time.Second)
			continue
		}
		deliveries, err := h.broker.Receive(ctx, c.name, room)
		if err != nil && ctx.Err() == nil {
			h.log.Warn("queue cannot be read, trying again", "consumer", c.name, "err", err)
			_ = h.w.Sleep(ctx, pause)
			pause = min(2*pause, retryMost)
			continue
		}
		pause = retryFirst
		c.accept(ctx, deliveries)
	}
}

// accept spreads what was received over the lanes.
func (c *Consumer[X]) accept(ctx context.Context, deliveries []driver.Delivery) {
	now := c.house.w.Wall() // stands in for the times of foreign messages only
	arrivals, envelopes := make([]arrival, len(deliveries)), make([]envelope, len(deliveries))
	for i := range deliveries {
		arrivals[i].arrive(&deliveries[i], &envelopes[i], &c.known, now)
		if a := &arrivals[i]; a.event != nil && a.event.isCanary() {
			c.house.answer(ctx, a.event, c.name)
			a.canary = true
		}
	}
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	c.offered.add(len(arrivals), c.house.w.Now())
	for i := range arrivals {
		a := &arrivals[i]
		if a.canary {
			a.over = true
			c.acks = append(c.acks, *a.delivery)
			c.acker.Set()
			continue
		}
		c.inflight = append(c.inflight, a)
		c.enqueue(a)
	}
}

// process handles a group until its outcome is in the database, waiting while that is away; or until ctx ends.
func (c *Consumer[X]) process(ctx, patience context.Context, w world.World, group []*arrival) {
	whole := group
	for pause := retryFirst; len(group) > 0; pause = min(2*pause, retryMost) {
		work, cancel := context.WithCancel(patience)
		c.house.mu.Lock()
		for _, a := range group {
			a.cancel = cancel
		}
		c.house.mu.Unlock()
		err := c.try(work, w, group)
		lost := work.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
		if group = c.ours(group); lost || len(group) == 0 {
			continue // the others go on by themselves
		}
		c.house.log.Warn("database is away, trying again", "consumer", c.name, "events", len(group), "err", err)
		_ = w.Sleep(ctx, pause)
	}
	c.house.mu.Lock()
	c.left(whole...)
	c.house.mu.Unlock()
	c.roomy.Set()
}

func (c *Consumer[X]) try(ctx context.Context, w world.World, group []*arrival) error {
	if err := c.join(ctx, group); err != nil {
		return err
	}
	if group[0].started > 0 {
		return c.resume(ctx, w, group[0])
	}
	return c.receive(ctx, w, group)
}

// ours returns the arrivals that are not over.
func (c *Consumer[X]) ours(group []*arrival) (ours []*arrival) {
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	for _, a := range group {
		if !a.over {
			ours = append(ours, a)
		}
	}
	return ours
}

// committed takes note of a transaction's outcome and acknowledges.
func (c *Consumer[X]) committed(group []*arrival, r result) {
	for _, t := range r.tally {
		c.house.o.Observer.Count(Count{Step: "consume", Result: t.result, Topic: t.topic, Consumer: c.name, N: t.n})
	}
	for i := range r.parked {
		row := &r.parked[i]
		c.house.log.Error("event parked", "consumer", c.name, "event_id", row.ID, "topic", row.Topic, "key", row.Key, "reason", row.Reason)
	}
	c.done(group)
	if r.wake {
		c.due.Set()
	}
}

// done hands deliveries to the acker.
func (c *Consumer[X]) done(group []*arrival) {
	c.house.mu.Lock()
	for _, a := range group {
		if a.delivery != nil && !a.over {
			a.over = true
			c.acks = append(c.acks, *a.delivery)
		}
	}
	c.house.mu.Unlock()
	c.acker.Set()
}

func (c *Consumer[X]) hang(err error) {
	c.house.mu.Lock()
	c.hung = append(c.hung, fmt.Errorf("consumer %s: %w", c.name, err))
	c.house.mu.Unlock()
}
