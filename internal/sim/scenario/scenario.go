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

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Config is what a run looks like.
type Config struct {
	Seed           uint64
	Faults         sim.Faults
	Weather        time.Duration // how long things go wrong
	Settle         time.Duration // how long afterwards everything may take
	Orders         int           // transactions of each order process
	Keys           int
	Trace          io.Writer
	Database       sim.DatabaseOptions
	RepublishAfter time.Duration
	Broker         sim.BrokerOptions
}

// Default is what continuous integration runs.
func Default(seed uint64) Config {
	return Config{
		Seed: seed, Faults: sim.DefaultFaults(), Weather: 8 * time.Minute, Settle: 60 * time.Minute, Orders: 24, Keys: 5, RepublishAfter: 5 * time.Minute,
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
	broken  atomic.Bool     // failure is set: asked after every step
	orders  map[string]bool // order processes, by whether all their transactions are done
	watch   *watch          // nil in the real world
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

// stepsMost is fifty times what an ordinary run takes: something repeats itself at once.
const stepsMost = 1_000_000

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
	r.broker.OnPublish(r.checkMessage)
	r.watch = newWatch(r)
	r.databases["order"].OnPending(r.watch.pending)
	for _, name := range processes {
		r.start(name, r.program(name))
	}
	r.server.Go("weather", r.weather)
	err := s.Run(c.Weather+c.Settle, func() bool {
		if s.Steps() > stepsMost {
			_ = r.fail("no end: %d steps", s.Steps())
		}
		return r.broken.Load() || r.calm.Load() && s.Steps()%64 == 0 && r.settled()
	})
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
	pool := r.databases[database].Connect(w, p.link("database-"+database))
	options := &pabal.Options{Logger: p.log, RepublishAfter: r.c.RepublishAfter}
	if p.name == "order-2" { // a small one, which has to leave events to the republisher
		options.Queue, options.Lanes = 2, 1
	}
	var store driver.Store[*sim.Tx] = pool
	broker := r.broker.Connect(w, p.link("broker"))
	if r.watch != nil {
		s := &sender{name: p.name, w: w, topics: map[string]*sentTopic{}, flying: map[string]bool{}, queue: options.Queue}
		if s.queue == 0 {
			s.queue = 10_000
		}
		store, broker = &watchedStore{pool, r.watch, s}, &watchedBroker{broker, r.watch, s}
	}
	for {
		client, err := pabal.New(context.Background(), store, broker, source, options)
		if err == nil {
			return client, pool
		}
		_ = w.Sleep(context.Background(), time.Second)
	}
}

func (r *run) logger(p *sim.Process) *slog.Logger {
	return slog.New(logged{
		slog.NewTextHandler(traceWriter{r.s, p.Name}, &slog.HandlerOptions{Level: slog.LevelDebug}), r, p.Name,
	})
}

// hear is told what a process logs.
func (r *run) hear(process, message string) {}

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
