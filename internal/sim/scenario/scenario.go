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
	Seed           uint64
	Faults         sim.Faults
	Weather        time.Duration // how long things go wrong
	Settle         time.Duration // how long afterwards everything may take
	Orders         int           // transactions of each order process
	Keys           int
	Trace          io.Writer
	Database       sim.DatabaseOptions
	RepublishAfter time.Duration
	RestartEvery   time.Duration // on average; a process is asked to end, and is started again
	Plagues        bool          // some events are wrong
	Operator       bool          // somebody retries, skips and redelivers
	Refusing       bool          // the broker refuses topics for a while, and in the end loses one
	Deaf           bool          // for a while nothing comes back through the record queue
	Joining        bool          // in the end one more service joins
	Forging        bool          // somebody puts messages of his own into queues
	Losing         bool          // the order service's database loses commits
	Odd            bool          // some events are bytes, bare, or hold odd characters; they have headers and traces
	Batches        bool          // handlers get many events of keys at once
	Narrow         bool          // the broker takes and gives little at a time
	Foreign        bool          // others put messages into consumers' queues
	Canaries       bool          // somebody verifies the topology
	Later          time.Duration // at the end everything is off for so long, and then goes on
	Broker         sim.BrokerOptions
	Spare          []string // processes beyond the fewest that the scenario can do with
}

// Default is what continuous integration runs.
func Default(seed uint64) Config {
	c := Config{
		Seed: seed, Faults: sim.DefaultFaults(), Weather: 8 * time.Minute, Settle: 60 * time.Minute, Orders: 24, Keys: 5,
		Broker:         sim.BrokerOptions{Dedup: 5 * time.Minute, Forget: 10, Duplicate: 20, Shuffle: 200, Again: 20},
		Database:       sim.DatabaseOptions{Conflict: 5, SwallowDeadlock: seed%2 == 0},
		RepublishAfter: 5 * time.Minute, RestartEvery: 2 * time.Minute,
		Spare: []string{"order-2", "relay", "settlement-2", "notification-2"},
		Odd:   seed%3 == 1, Narrow: seed%5 == 2, Batches: seed%7 == 3, Foreign: seed%4 == 3, Canaries: seed%4 == 2,
	}
	if c.Batches {
		c.Keys = 20
	}
	switch seed % 8 {
	case 0:
		c.Forging = true
	case 3:
		c.Joining, c.RepublishAfter = true, 2*time.Minute
	case 5:
		c.Deaf, c.RepublishAfter = true, 2*time.Minute
	case 7:
		c.Refusing = true
	case 1:
		c.Plagues, c.RepublishAfter = true, 2*time.Minute
	case 2:
		c.Operator = true
	case 6:
		c.Losing = seed/8%2 == 0
		c.Operator = !c.Losing
	case 4:
		c.Later = []time.Duration{20 * time.Minute, 20 * 24 * time.Hour, 31 * 24 * time.Hour, 46 * 24 * time.Hour}[seed/8%4]
	}
	if c.Losing {
		c.Faults.FailoverEvery = 4 * time.Minute
	}
	return c
}

// Result is what a run came to.
type Result struct {
	Hash      uint64
	Steps     int
	Elapsed   time.Duration
	Recorded  int // events committed
	Published int // messages the broker accepted on topics
	Effects   int // handler runs that committed
	Faults    int // that happened
	Failure   error
}

type paid struct {
	No     string `json:"no"`
	Amount int    `json:"amount"`
	Plague string `json:"plague,omitempty"`
}

var (
	orderPaid   = pabal.Define("order-pay-done", pabal.Key(func(p paid) string { return p.No }))
	orderViewed = pabal.Define[paid]("order-viewed")
	orderNoted  = pabal.Define("order-noted", pabal.Key(func(p paid) string { return p.No })).On("order-pay-done") // nobody handles it

	consumersOf = []string{"settlement", "notification"}
)

type run struct {
	c         Config
	s         *sim.Sim // nil in the real world
	broker    *sim.BrokerServer
	databases map[string]*sim.Database
	server    *sim.Process
	calm      atomic.Bool

	mended  atomic.Bool // nothing is wrong with plagues any more
	over    atomic.Bool // the conductor has come to the end
	off     bool        // crashed processes stay so
	running map[string]*incarnation

	processes []string                // that take part
	bells     map[string]world.Signal // of order processes

	mu       sync.Mutex
	failure  error
	target   map[string]int             // orders that a process is to place
	operator map[string]*pabal.Operator // by database: the latest client's
	broken   atomic.Bool                // failure is set: asked after every step
	orders   map[string]bool            // order processes, by whether all their transactions are done
	bodies   [][]byte                   // published, where they are needed again
	watch    *watch                     // nil in the real world
	calmly   calmly
	losses   losses
}

// calmly is what the conductor arranges when it is calm.
type calmly struct {
	oneKey   string                      // of all orders; empty: any
	refused  map[string]time.Duration    // topics, until when
	late     bool                        // the next transaction takes long
	hesitate bool                        // the next keyed event is not accepted at once
	deaf     time.Duration               // until then nothing comes back
	joined   bool                        // the reporting service has subscribed
	before   map[uuid.UUID]bool          // accepted before
	since    map[uuid.UUID]bool          // accepted for the first time since
	forged   map[string]string           // rows that forgeries parked, with their reasons
	ghosts   map[uuid.UUID]time.Duration // forged, since when
	alarms   map[uuid.UUID]int

	canaries  map[uuid.UUID]bool
	strangers []stranger
	hidden    map[uuid.UUID]bool // in attributes of what nobody can read
}

// process is a process of either world.
type process struct {
	name    string
	ctx     context.Context // its end asks the process to end
	link    func(server string) sim.Link
	crash   func()
	running func(bool) // told whether Run runs
	log     *slog.Logger
	in      *incarnation // nil in the real world
}

// incarnation is one life of a simulated process.
type incarnation struct {
	p       *sim.Process
	stop    world.Signal
	runs    bool       // Run does
	since   world.Mono // it does
	hung    bool       // a handler was given up
	stopped world.Mono // when it was asked to end; 0: it was not
}

// run runs a client.
func (p *process) run(client *pabal.Client[*sim.Tx]) error {
	p.running(true)
	defer p.running(false)
	return client.Run(p.ctx)
}

// program is what a process runs.
type program func(process, world.World)

var processes = []string{
	"order-1", "order-2", "relay", "settlement-1", "settlement-2", "notification-1", "notification-2",
}

func newRun(c Config, s *sim.Sim) *run {
	return &run{
		c: c, s: s, databases: map[string]*sim.Database{}, orders: map[string]bool{}, target: map[string]int{},
		processes: c.processes(), running: map[string]*incarnation{}, bells: map[string]world.Signal{}, operator: map[string]*pabal.Operator{},
		calmly: calmly{
			refused: map[string]time.Duration{}, before: map[uuid.UUID]bool{}, since: map[uuid.UUID]bool{}, forged: map[string]string{},
			ghosts: map[uuid.UUID]time.Duration{}, alarms: map[uuid.UUID]int{},
			canaries: map[uuid.UUID]bool{}, hidden: map[uuid.UUID]bool{},
		},
		losses: newLosses(),
	}
}

// services are those that have a database.
func (r *run) services() []string {
	names := []string{"order", "settlement", "notification"}
	if r.c.Joining {
		names = append(names, reporting)
	}
	return names
}

// program returns what the process of a name runs.
func (r *run) program(name string) program {
	switch service, _, _ := strings.Cut(name, "-"); service {
	case "order":
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.target[name] == 0 { // else it begins once more
			r.orders[name], r.target[name] = false, r.c.Orders
		}
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
	broker := r.brokerOptions()
	broker.Answer, broker.Forget = r.answer, 0
	r.broker = sim.NewBrokerServer(r.server.World(), broker)
	r.watch = newWatch(r)
	for _, name := range r.services() {
		o := c.Database
		if c.Losing && name == "order" {
			o.Undo = 50
		}
		d := sim.NewDatabase(s.Process("database-"+name).World(), o)
		r.databases[name] = d
		d.OnRow(r.watch.row)
		d.OnDisorder(func(what string) { _ = r.fail("locks: %s locks %s", name, what) })
	}
	r.broker.OnPublish(r.checkMessage)
	r.databases["order"].OnPending(r.watch.pending)
	for _, name := range r.processes {
		r.bells[name] = r.server.World().NewSignal()
		r.start(name, r.program(name))
	}
	r.server.Go("conductor", r.conduct)
	err := s.Run(c.Weather+c.Settle+c.Later*11/10, func() bool {
		if s.Steps() > stepsMost {
			_ = r.fail("no end: %d steps", s.Steps())
		}
		return r.broken.Load() || r.over.Load()
	})
	result := Result{Hash: s.Hash(), Steps: s.Steps(), Elapsed: s.Elapsed(), Published: r.broker.Accepted(), Faults: s.Befell()}
	r.conclude(&result, err)
	return result
}

func (r *run) conclude(result *Result, err error) {
	result.Recorded = r.databases["order"].Recorded()
	result.Effects = r.databases["settlement"].Count("effect") + r.databases["notification"].Count("effect")
	result.Failure = errors.Join(err, r.failed())
	if r.s != nil && result.Failure == nil && !r.over.Load() {
		if missing := r.unparked(); r.c.Plagues && r.sick() && missing != "" {
			result.Failure = fmt.Errorf("P1 no loss: what is %s is not parked in the end", missing)
			return
		}
		result.Failure = errors.Join(fmt.Errorf("P1 no loss: in the end it is owed: %s", r.owed()), r.checkEnd())
		return
	}
	if result.Failure == nil {
		result.Failure = r.checkEnd()
	}
}

// start starts a process, and again whenever it has crashed.
func (r *run) start(name string, main program) {
	p := r.s.Process(name)
	in := &incarnation{p: p, stop: r.server.World().NewSignal()}
	r.running[name] = in
	life, end := context.WithCancel(context.Background())
	running := func(runs bool) { in.runs, in.since = runs, r.server.World().Now() }
	self := process{name, life, p.Link, p.Crash, running, r.logger(p), in}
	p.Go("main", func(w world.World) {
		main(self, w)
		p.Crash()
	})
	p.Go("stopper", func(world.World) {
		in.stop.Wait(context.Background(), -1)
		end()
	})
	dead := r.server.World().NewSignal()
	p.OnDead(dead.Set)
	r.server.Go("supervisor-"+name, func(w world.World) {
		dead.Wait(context.Background(), -1)
		if r.off {
			return
		}
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(20*time.Second)))
		if r.off || r.running[name] != in { // meanwhile all was switched off, or even begun again
			return
		}
		r.start(name, main)
	})
}

func (r *run) client(p process, w world.World, database, source string) (*pabal.Client[*sim.Tx], *sim.Store) {
	pool := r.databases[database].Connect(w, p.link("database-"+database))
	options := &pabal.Options{Logger: p.log, RepublishAfter: r.c.RepublishAfter}
	idle := database != "order" // it publishes nothing, and its inbox is swept when something becomes due here
	switch long := r.c.Later > 24*time.Hour; {
	case idle && long:
		options.Sweep = 30 * time.Second
	case idle || long:
		options.Sweep = 10 * time.Second
	}
	if p.name == "order-2" { // a small one, which has to leave events to the republisher
		options.Queue, options.Lanes = 2, 1
	}
	hasty := *options
	if hasty.Retention = time.Hour; r.watch != nil {
		if _, err := pabal.New(context.Background(), pool, r.broker.Connect(w, p.link("broker")), source, &hasty); err == nil {
			_ = r.fail("P7 no theft: events may be forgotten before the broker delivers them for the last time")
		}
	}
	var store driver.Store[*sim.Tx] = pool
	broker := r.broker.Connect(w, p.link("broker"))
	if r.watch != nil {
		s := newSender(p, w, options.Queue)
		options.Observer = r.watch.counts
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
