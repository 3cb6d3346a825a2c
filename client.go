package pabal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Options of [New]. Nil and zero values are the good defaults; New names the field that is out of bounds.
type Options struct {
	// Lease is how long an event belongs to the process that recorded or claimed it before the republisher takes it: what
	// a killed producer costs. At least three times PublishTimeout. Default 10 s.
	Lease time.Duration
	// PublishTimeout bounds one publish call. 100 ms to 1 min, default 3 s.
	PublishTimeout time.Duration
	// RepublishAfter is when an event that was accepted, and has not come back, is published again: the broker's own
	// redelivery interval is a good measure. 2 min to 24 h, default 5 min.
	RepublishAfter time.Duration
	// Retention is how long confirmed events are kept. At least the broker's longest redelivery plus a day, at most
	// InboxRetention. Default 30 days.
	Retention time.Duration
	// InboxRetention is how long consumers of this client remember which events they had. Default 45 days.
	InboxRetention time.Duration
	// Queue bounds the events that wait in memory for being published; what does not fit is left to the republisher.
	// 1 to 1,000,000, default 10,000.
	Queue int
	// Lanes is how many publish calls may be in flight. Events of a key share a lane. 1 to 256, default 4.
	Lanes int
	// Sweep is the interval of the republisher and of the inbox sweep, each a statement. 100 ms to 1 min, default 3 s.
	Sweep time.Duration
	// FixedTopology forbids to create topics, queues and subscriptions: what is missing is reported instead.
	FixedTopology bool
	Logger        *slog.Logger // default slog.Default()
	Observer      Observer
}

const (
	shutdownTime = 25 * time.Second
	openTime     = 15 * time.Second
)

func (o *Options) fill(l driver.Limits) (Options, error) {
	f := Options{}
	if o != nil {
		f = *o
	}
	orDefault(&f.Lease, 10*time.Second)
	orDefault(&f.PublishTimeout, 3*time.Second)
	orDefault(&f.RepublishAfter, 5*time.Minute)
	orDefault(&f.Retention, max(30*24*time.Hour, l.Redelivery+24*time.Hour))
	orDefault(&f.InboxRetention, max(45*24*time.Hour, f.Retention))
	orDefault(&f.Queue, 10_000)
	orDefault(&f.Lanes, 4)
	orDefault(&f.Sweep, 3*time.Second)
	if f.Logger == nil {
		f.Logger = slog.Default()
	}
	if f.Observer == nil {
		f.Observer = noObserver{}
	}
	return f, errors.Join(
		between("PublishTimeout of pabal.Options", f.PublishTimeout, 100*time.Millisecond, time.Minute),
		between("Lease of pabal.Options", f.Lease, 3*f.PublishTimeout, time.Hour),
		between("RepublishAfter of pabal.Options", f.RepublishAfter, republishLeast, 24*time.Hour),
		between("Retention of pabal.Options", f.Retention, max(time.Hour, l.Redelivery+24*time.Hour), f.InboxRetention),
		between("Queue of pabal.Options", f.Queue, 1, 1_000_000),
		between("Lanes of pabal.Options", f.Lanes, 1, 256),
		between("Sweep of pabal.Options", f.Sweep, 100*time.Millisecond, time.Minute),
	)
}

func orDefault[N int | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
}

func between[N int | time.Duration](field string, value, low, high N) error {
	if value >= low && value <= high {
		return nil
	}
	return fmt.Errorf("%s is %v: from %v to %v", field, value, low, high)
}

// ledger is the half of a driver.Store that needs no transaction of the caller.
type ledger interface {
	Claim(ctx context.Context, s driver.Selection) ([]driver.Claimed, error)
	Settle(ctx context.Context, verdicts []driver.Settlement) error
	Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error)
	Read(ctx context.Context, q driver.Query) (driver.Reading, error)
	Tend(ctx context.Context, c driver.Chore) (int, error)
}

// house is what the stages of a client share: where they live, whom they talk to, and the one mutex. Stages meet in the
// database; of each other they know nothing but what lies here.
type house struct {
	w      world.World
	store  ledger
	broker driver.Broker
	limits driver.Limits
	source string
	o      Options
	log    *slog.Logger

	mu     sync.Mutex // never held across a call that blocks
	topics map[string]*topic
	lastID uuid.UUID // of an event
	// Claims of events that were accepted here, and neither came back here nor have their acceptance written.
	accepted map[uuid.UUID]int
}

// warn says what is wrong, unless ctx has ended: what a process gives up because it was asked to end is no trouble.
func (h *house) warn(ctx context.Context, what string, about ...any) {
	if ctx.Err() == nil {
		h.log.Warn(what, about...)
	}
}

// Client records and publishes the events of one source, and runs the consumers of the same database. X is the handle
// of a transaction: *sql.Tx, pgx.Tx. All methods are safe for concurrent use.
type Client[X any] struct {
	*Operator
	house     *house
	store     driver.Store[X]
	publisher *publisher
	consumers []*Consumer[X]
	running   bool
	unready   int // consumers whose queues are not there yet
	ready     world.Signal
}

// New opens a store and a broker for the events of source, the producing store's name: 1 to 51 letters, digits, '-' and
// '_'. The store keeps it and refuses another one later ([ErrSource]). New checks the tables ([ErrSchema]) and every
// option, and publishes nothing: [Client.Run] does.
func New[X any](
	ctx context.Context, store driver.Store[X], broker driver.Broker, source string, options *Options,
) (*Client[X], error) {
	if err := checkName("source", source); err != nil {
		return nil, err
	}
	if err := within("source "+source, "bytes", len(source), maxName-len(recordQueue("")), ""); err != nil {
		return nil, err
	}
	limits := broker.Limits()
	o, err := options.fill(limits)
	if err != nil {
		return nil, err
	}
	w := world.Real()
	if b, ok := store.(world.Bringer); ok {
		w = b.World()
	}
	ctx, cancel := w.Deadline(ctx, openTime)
	defer cancel()
	if err := store.Open(ctx, source); err != nil {
		return nil, fmt.Errorf("open store of source %s: %w", source, err)
	}
	h := &house{
		w: w, store: store, broker: broker, limits: limits, source: source, o: o,
		log: o.Logger.With("source", source), topics: map[string]*topic{}, accepted: map[uuid.UUID]int{},
	}
	return &Client[X]{
		Operator:  &Operator{w: h.w, store: store, inbox: store.Inbox()},
		house:     h,
		store:     store,
		publisher: newPublisher(h),
		ready:     h.w.NewSignal(),
		unready:   1, // until Run has counted them
	}, nil
}

// Topology is what this client needs at the broker: the queues and subscriptions of its consumers, the topics of the types
// that it publishes, and its record queue, subscribed to those. It is for companies where services may create nothing, and
// for `pabal topology`, which reads it as JSON. Other clients make it by themselves, as they need it.
func (c *Client[X]) Topology(published ...interface{ topicSpec() driver.TopicSpec }) driver.Topology {
	record := driver.QueueSpec{Name: recordQueue(c.house.source)}
	t := driver.Topology{Queues: []driver.QueueSpec{record}}
	topic := func(spec driver.TopicSpec) {
		for i := range t.Topics {
			if t.Topics[i].Name == spec.Name {
				t.Topics[i].Ordered = t.Topics[i].Ordered || spec.Ordered
				return
			}
		}
		t.Topics = append(t.Topics, spec)
	}
	for _, p := range published {
		spec := p.topicSpec()
		topic(spec)
		if q := &t.Queues[0]; !slices.Contains(q.Topics, spec.Name) {
			q.Topics = append(q.Topics, spec.Name)
		}
	}
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	for _, consumer := range c.consumers {
		own := consumer.topology()
		for _, spec := range own.Topics {
			topic(spec)
		}
		t.Queues = append(t.Queues, own.Queues...)
	}
	return t
}

// recordQueue is the queue through which a source's events come back.
func recordQueue(source string) string { return "event-record-" + source }

// Run publishes, confirms, republishes, consumes and forgets, until ctx ends; then it drains: what is queued is published,
// handlers end, leases are given back. It returns within 25 seconds of ctx's end, with nil, or with an error that
// names the handlers that are still running; earlier only with an error that waiting cannot mend, such as bad
// registration of handlers. Run may be called once.
//
// Brokers and databases that are away are no errors: Run waits for them, and says so in the log.
func (c *Client[X]) Run(ctx context.Context) error {
	h := c.house
	h.mu.Lock()
	again := c.running
	c.running = true
	if !again {
		if c.unready = len(c.consumers); c.unready == 0 {
			c.ready.Set()
		}
	}
	consumers := c.consumers
	h.mu.Unlock()
	if again {
		return errors.New("Run was called before")
	}
	for _, consumer := range consumers {
		if err := consumer.check(); err != nil {
			return err
		}
	}
	return c.run(ctx, consumers)
}

// run starts the stages and, once ctx has ended, stops them in the order in which events pass them.
func (c *Client[X]) run(ctx context.Context, consumers []*Consumer[X]) (err error) {
	h := c.house
	ended := h.w.NewSignal()
	h.w.Go("client-"+h.source, func(w world.World) {
		err = c.stages(ctx, w, consumers)
		ended.Set()
	})
	ended.Wait(context.WithoutCancel(ctx), -1)
	return err
}

// Shutdown, from ctx's end: handlers are cancelled, given up; then what is queued is published; then verdicts are written.
const (
	handlersCancelled = 8 * time.Second
	handlersGivenUp   = 14 * time.Second
	publisherGivenUp  = 20 * time.Second
	writerGivenUp     = 24 * time.Second
)

func (c *Client[X]) stages(ctx context.Context, w world.World, consumers []*Consumer[X]) error {
	whole := context.WithoutCancel(ctx)
	patience, cancelHandlers := context.WithCancel(whole)
	publishing, cancelPublisher := context.WithCancel(whole)
	writing, cancelWriter := context.WithCancel(whole)
	defer cancelHandlers()
	defer cancelPublisher()
	defer cancelWriter()

	c.publisher.begin()
	intake := c.stage(w, "intake", func(w world.World) { c.intake(ctx, patience, w, consumers) })
	published := c.stage(w, "publisher", func(w world.World) { c.publisher.run(publishing, w) })
	written := c.stage(w, "writer", func(world.World) { c.publisher.runWriter(writing) })
	w.NewSignal().Wait(ctx, -1) // until ctx ends

	start := w.Now()
	within := func(done world.Signal, d time.Duration) bool { return done.Wait(whole, max(d-w.Now().Sub(start), 0)) }
	if !within(intake, handlersCancelled) {
		cancelHandlers()
		within(intake, handlersGivenUp)
	}
	c.publisher.end()
	if !within(published, publisherGivenUp) {
		cancelPublisher()
		within(published, publisherGivenUp+time.Second)
	}
	if !within(written, writerGivenUp) {
		cancelWriter()
		within(written, shutdownTime)
	}
	h := c.house
	h.mu.Lock()
	defer h.mu.Unlock()
	var hung []error
	for _, consumer := range consumers {
		hung = append(hung, consumer.hung...)
	}
	return errors.Join(hung...)
}

// stage runs a task and sets the signal when it, and what it started, has ended.
func (c *Client[X]) stage(w world.World, name string, task func(world.World)) world.Signal {
	done := w.NewSignal()
	w.Go(name, func(w world.World) {
		task(w)
		done.Set()
	})
	return done
}

// intake runs everything that brings work: it ends when ctx has ended and the handlers have, or are given up.
func (c *Client[X]) intake(ctx, patience context.Context, w world.World, consumers []*Consumer[X]) {
	h := c.house
	republisher := &republisher{house: h, publisher: c.publisher}
	confirmer := newConfirmer(h)
	w.Go("republisher", func(world.World) { republisher.run(ctx) })
	w.Go("confirmer", func(w world.World) { confirmer.run(ctx, w) })
	w.Go("redeliverer", func(world.World) { (&redeliverer{house: h, publisher: c.publisher}).run(ctx) })
	w.Go("keeper", func(world.World) { c.runKeeper(ctx, consumers) })
	for _, consumer := range consumers {
		w.Go("consumer-"+consumer.name, func(w world.World) {
			consumer.run(ctx, patience, w, c.subscribed)
			_ = w.Join(context.WithoutCancel(patience))
		})
	}
	_ = w.Join(context.WithoutCancel(patience))
}

// newID composes a UUIDv7 (RFC 9562, section 5.7): milliseconds of the wall clock, then chance.
func newID(w world.World) (id uuid.UUID) {
	ms, a, b := uint64(w.Wall().UnixMilli()), w.Rand(), w.Rand()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	for i := range 2 {
		id[6+i] = byte(a >> (8 * i))
	}
	for i := range 8 {
		id[8+i] = byte(b >> (8 * i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// following is the next higher id of the same form: its last 56 bits are a counter that chance began (RFC 9562, section 6.2).
func following(id uuid.UUID) uuid.UUID {
	for i := len(id) - 1; i > 8; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}
