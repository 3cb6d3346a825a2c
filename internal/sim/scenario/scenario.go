// Package scenario runs the whole of Pabal in the simulated world and checks its promises: an order service in two processes, a
// relay, two processes each of a settlement and a notification service, on databases of their own, while everything goes
// wrong that can; then calm, and everything must have arrived, once, in order.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Config is what a run looks like.
type Config struct {
	Seed     uint64
	Faults   sim.Faults
	Weather  time.Duration // how long things go wrong
	Settle   time.Duration // how long afterwards everything may take
	Orders   int           // transactions of each order process
	Keys     int
	Trace    io.Writer
	Database sim.DatabaseOptions
	Broker   sim.BrokerOptions
}

// Default is what continuous integration runs.
func Default(seed uint64) Config {
	return Config{
		Seed: seed, Faults: sim.DefaultFaults(), Weather: 8 * time.Minute, Settle: 60 * time.Minute, Orders: 24, Keys: 5,
		Broker:   sim.BrokerOptions{Dedup: 5 * time.Minute, Forget: 10, Duplicate: 20, Shuffle: 200, Again: 20},
		Database: sim.DatabaseOptions{Conflict: 5, SwallowDeadlock: seed%2 == 0},
	}
}

// Result is what a run came to.
type Result struct {
	Hash      uint64
	Steps     int
	Elapsed   time.Duration
	Recorded  int // events committed
	Published int // messages the broker accepted on topics
	Effects   int // handler runs that committed
	Failure   error
}

type paid struct {
	No     string `json:"no"`
	Amount int    `json:"amount"`
}

var (
	orderPaid   = pabal.Define("order-pay-done", pabal.Key(func(p paid) string { return p.No }))
	orderViewed = pabal.Define[paid]("order-viewed")
)

type run struct {
	c         Config
	s         *sim.Sim // nil in the real world
	broker    *sim.BrokerServer
	databases map[string]*sim.Database
	server    *sim.Process
	calm      atomic.Bool

	mu      sync.Mutex
	failure error
	broken  atomic.Bool // failure is set: asked after every step
	orders  map[string]bool // order processes, by whether all their transactions are done
}

// process is a process of either world.
type process struct {
	name  string
	ctx   context.Context // its end asks the process to end
	link  func(server string) sim.Link
	crash func()
	log   *slog.Logger
}

// program is what a process runs.
type program func(process, world.World)

var processes = []string{
	"order-1", "order-2", "relay", "settlement-1", "settlement-2", "notification-1", "notification-2",
}

func newRun(c Config, s *sim.Sim) *run {
	return &run{c: c, s: s, databases: map[string]*sim.Database{}, orders: map[string]bool{}}
}

// program returns what the process of a name runs.
func (r *run) program(name string) program {
	switch service, _, _ := strings.Cut(name, "-"); service {
	case "order":
		r.orders[name] = false
		return r.order
	case "relay":
		return r.relay
	default:
		return r.consumer(service)
	}
}

// Run runs one scenario.
func Run(c Config) Result {
	s := sim.New(c.Seed, c.Faults)
	defer s.Close()
	if c.Trace != nil {
		s.TraceTo(c.Trace)
	}
	r := newRun(c, s)
	r.server = s.Process("server")
	r.broker = sim.NewBrokerServer(r.server.World(), c.Broker)
	for _, name := range []string{"order", "settlement", "notification"} {
		r.databases[name] = sim.NewDatabase(s.Process("database-"+name).World(), c.Database)
	}
	r.broker.OnPublish(r.checkGhost)
	for _, name := range processes {
		r.start(name, r.program(name))
	}
	r.server.Go("weather", r.weather)
	err := s.Run(c.Weather+c.Settle, func() bool { return r.broken.Load() || r.calm.Load() && s.Steps()%64 == 0 && r.settled() })
	result := Result{Hash: s.Hash(), Steps: s.Steps(), Elapsed: s.Elapsed(), Published: r.broker.Accepted()}
	r.conclude(&result, err)
	return result
}

func (r *run) conclude(result *Result, err error) {
	result.Recorded = r.databases["order"].Recorded()
	result.Effects = r.databases["settlement"].Count("effect") + r.databases["notification"].Count("effect")
	result.Failure = errors.Join(err, r.failed())
	if result.Failure == nil {
		result.Failure = r.checkEnd()
	}
}

// start starts a process, and again whenever it has crashed.
func (r *run) start(name string, main program) {
	p := r.s.Process(name)
	self := process{name, context.Background(), p.Link, p.Crash, r.logger(p)}
	p.Go("main", func(w world.World) { main(self, w) })
	dead := r.server.World().NewSignal()
	p.OnDead(dead.Set)
	r.server.Go("supervisor-"+name, func(w world.World) {
		dead.Wait(context.Background(), -1)
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(20*time.Second)))
		r.start(name, main)
	})
}

func (r *run) client(p process, w world.World, database, source string) (*pabal.Client[*sim.Tx], *sim.Store) {
	store := r.databases[database].Connect(w, p.link("database-"+database))
	broker := r.broker.Connect(w, p.link("broker"))
	for {
		client, err := pabal.New(context.Background(), store, broker, source, &pabal.Options{Logger: p.log})
		if err == nil {
			return client, store
		}
		_ = w.Sleep(context.Background(), time.Second)
	}
}

func (r *run) logger(p *sim.Process) *slog.Logger {
	if r.c.Trace == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(traceWriter{r.s, p.Name}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type traceWriter struct {
	s    *sim.Sim
	name string
}

func (t traceWriter) Write(b []byte) (int, error) {
	if i := len("time=2026-01-01T00:00:00.000Z "); len(b) > i+1 {
		t.s.Note(t.name, "log "+string(b[i:len(b)-1]))
	}
	return len(b), nil
}

// order is a process of the order service: it records and publishes.
func (r *run) order(p process, w world.World) {
	client, store := r.client(p, w, "order", "order")
	w.Go("run", func(world.World) { _ = client.Run(p.ctx) })
	for r.broker.Subscribers(orderPaid.Topic()) < 2 || r.broker.Subscribers(orderViewed.Topic()) < 2 {
		_ = w.Sleep(context.Background(), time.Second) // what is recorded before anybody subscribes is nobody's
	}
	_ = w.Sleep(context.Background(), 10*time.Second) // more than clocks differ
	done := r.databases["order"].Business("progress", p.name)
	n, _ := done.(int)
	for ; n < r.c.Orders && p.ctx.Err() == nil; n++ {
		for p.ctx.Err() == nil && !r.placeOrder(w, client, store, p.name, n) {
			_ = w.Sleep(context.Background(), time.Second)
		}
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*r.c.Weather/time.Duration(r.c.Orders))))
	}
	r.mu.Lock()
	r.orders[p.name] = n == r.c.Orders // also when it was so before it was restarted
	r.mu.Unlock()
	_ = w.Join(context.Background())
}

var errChanged = errors.New("the customer changed his mind")

// placeOrder is a transaction of the application; it reports whether order n is over.
func (r *run) placeOrder(w world.World, client *pabal.Client[*sim.Tx], store *sim.Store, name string, n int) bool {
	ctx, cancel := w.Deadline(context.Background(), 20*time.Second)
	defer cancel()
	tx, err := store.Begin(ctx)
	if err != nil {
		return false
	}
	if done, err := tx.Get(ctx, "progress", name); err != nil || done != nil && done.(int) > n {
		tx.Rollback(ctx)
		return err == nil // an answer of COMMIT was lost: it is done
	}
	err = r.orderStatements(ctx, w, client, tx, name, n)
	if errors.Is(err, errChanged) {
		tx.Rollback(ctx)
		return w.Rand()%2 == 0
	}
	if err != nil && w.Rand()%4 != 0 { // one in four programs ignores errors and commits
		tx.Rollback(ctx)
		return false
	}
	return tx.Commit(ctx) == nil
}

func (r *run) orderStatements(
	ctx context.Context, w world.World, client *pabal.Client[*sim.Tx], tx *sim.Tx, name string, n int,
) error {
	key := func() string { return fmt.Sprintf("A%d", w.Rand()%uint64(r.c.Keys)) }
	if err := tx.Put(ctx, "progress", name, n+1); err != nil {
		return err
	}
	events := []pabal.Event{orderPaid.New(paid{No: key(), Amount: n}), orderViewed.New(paid{No: key()})}
	for range w.Rand() % 3 {
		events = append(events, orderPaid.New(paid{No: key(), Amount: n}))
	}
	if err := client.Record(ctx, tx, events...); err != nil {
		return err
	}
	switch w.Rand() % 12 {
	case 0: // a part of it is taken back
		savepoint := tx.Savepoint()
		if err := client.Record(ctx, tx, orderPaid.New(paid{No: key(), Amount: -1})); err != nil {
			return err
		}
		tx.RollbackTo(savepoint)
	case 1: // slow, once in a while longer than the lease
		_ = w.Sleep(ctx, time.Duration(w.Rand()%uint64(14*time.Second)))
	case 2:
		return errChanged
	}
	return nil
}

// relay has no application in it.
func (r *run) relay(p process, w world.World) {
	client, _ := r.client(p, w, "order", "order")
	_ = client.Run(p.ctx)
}

// consumer is a process of a service that handles events.
func (r *run) consumer(name string) program {
	return func(p process, w world.World) {
		client, _ := r.client(p, w, name, name)
		consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 3, Tries: 100, Timeout: 20 * time.Second})
		pabal.Handle(consumer, orderPaid, func(ctx context.Context, tx *sim.Tx, e pabal.Received[paid]) error {
			return r.handle(ctx, p, w, tx, name, e)
		})
		pabal.HandleBatch(consumer, orderViewed, func(ctx context.Context, tx *sim.Tx, es []pabal.Received[paid]) error {
			for _, e := range es {
				if err := r.handle(ctx, p, w, tx, name, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err := client.Run(p.ctx); err != nil && p.ctx.Err() == nil {
			_ = r.fail("consumer ended: %w", err)
		}
	}
}

// handle counts the effect in the consumer's database and checks order.
func (r *run) handle(
	ctx context.Context, p process, w world.World, tx *sim.Tx, name string, e pabal.Received[paid],
) error {
	if err := r.misbehave(ctx, p, w); err != nil {
		return err
	}
	effect := e.ID.String()
	if v, err := tx.Get(ctx, "effect", effect); err != nil {
		return err
	} else if v != nil {
		return r.fail("P4 one effect: %s handles %s again", name, e.ID)
	}
	if err := tx.Put(ctx, "effect", effect, 1); err != nil {
		return err
	}
	if e.Key == "" {
		return nil
	}
	last, err := tx.Get(ctx, "seen", e.Key)
	if err != nil {
		return err
	}
	if before, _ := last.(int64); before >= e.Position {
		return r.fail("P5 order: %s handles position %d of %s after %d", name, e.Position, e.Key, before)
	}
	return tx.Put(ctx, "seen", e.Key, e.Position)
}

// misbehave is what handlers do wrong.
func (r *run) misbehave(ctx context.Context, p process, w world.World) error {
	if r.calm.Load() {
		return nil
	}
	switch w.Rand() % 100 {
	case 0, 1, 2:
		return errors.New("handler is not in the mood")
	case 3:
		panic("handler panics")
	case 4:
		_ = w.Sleep(ctx, time.Duration(w.Rand()%uint64(30*time.Second)))
	case 5:
		if w.Rand()%4 == 0 {
			p.crash()
		}
	case 6:
		_ = w.Sleep(context.Background(), 40*time.Second) // ignores its context
	}
	return nil
}

func (r *run) fail(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil {
		r.failure = err
		r.broken.Store(true)
	}
	return err
}

func (r *run) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// weather makes things go wrong, and then calm.
func (r *run) weather(w world.World) {
	f := r.c.Faults
	servers := []string{"database-order", "database-settlement", "database-notification", "broker"}
	event := func(name string, every time.Duration, happen func()) {
		if every <= 0 {
			return
		}
		w.Go(name, func(w world.World) {
			for !r.calm.Load() {
				_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*every)))
				if !r.calm.Load() {
					happen()
				}
			}
		})
	}
	pick := func(from []string) string { return from[w.Rand()%uint64(len(from))] }
	upTo := func(d time.Duration) time.Duration { return time.Duration(w.Rand() % uint64(d+1)) }
	event("crashes", f.CrashEvery, func() { r.s.Crash(pick(processes)) })
	event("stalls", f.StallEvery, func() { r.s.Stall(pick(processes), upTo(f.StallMost)) })
	event("outages", f.OutageEvery, func() { r.s.Outage(pick(servers), upTo(f.OutageMost)) })
	event("partitions", f.PartitionEvery, func() { r.s.Partition(pick(processes), pick(servers), upTo(f.PartitionMost)) })
	_ = w.Sleep(context.Background(), r.c.Weather)
	r.calm.Store(true)
	r.s.Calm()
	r.broker.Calm()
	for _, name := range []string{"order", "settlement", "notification"} {
		r.databases[name].Calm()
	}
}

// checkGhost is P2, at the moment when the broker takes a message.
func (r *run) checkGhost(id uuid.UUID) {
	if !r.databases["order"].Has(id) {
		_ = r.fail("P2 no ghost: %s is published and not committed", id)
	}
}

// settled reports whether nothing is owed any more.
func (r *run) settled() bool {
	r.mu.Lock()
	for _, done := range r.orders {
		if !done {
			r.mu.Unlock()
			return false
		}
	}
	r.mu.Unlock()
	return r.databases["order"].Unconfirmed() == 0 && r.owed("settlement") == 0 && r.owed("notification") == 0
}

func (r *run) owed(consumer string) int {
	return r.databases["order"].Recorded() - r.databases[consumer].Count("effect")
}

// checkEnd checks what must hold once the faults have stopped and everything had its time.
func (r *run) checkEnd() error {
	order := r.databases["order"]
	for _, e := range order.Events() {
		found := order.PendingOf(e.ID)
		if found != nil && !found.Parked() {
			return fmt.Errorf("P1 no loss: %s is not confirmed in the end: %+v", e.ID, *found)
		}
		if found != nil {
			return fmt.Errorf("P1 no loss: %s is parked: %s", e.ID, found.LastError)
		}
		for _, consumer := range []string{"settlement", "notification"} {
			if r.databases[consumer].Business("effect", e.ID.String()) == nil {
				return fmt.Errorf("P4 one effect: %s has not handled %s %s at %s/%d: %s", consumer, e.Type, e.ID, e.Key, e.Position,
					r.databases[consumer].Explain(consumer, e.ID))
			}
		}
	}
	return r.checkPositions()
}

// checkPositions is P7's second half and the ground of P5: positions of a key follow without gaps within a run.
func (r *run) checkPositions() error {
	last := map[string]driver.Event{}
	for _, e := range r.databases["order"].ByPosition() {
		if e.Key == "" {
			continue
		}
		before, known := last[e.Key]
		if known && (e.Position != before.Position+1 || e.Prev.ID != before.ID) {
			return fmt.Errorf("P5 order: position %d of %s follows %d", e.Position, e.Key, before.Position)
		}
		last[e.Key] = e
	}
	return nil
}
