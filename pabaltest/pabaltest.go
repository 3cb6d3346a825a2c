// Package pabaltest runs clients in a test: with databases and a broker in memory, and with time that passes when the test
// says so and costs nothing. What the clients do is what they do in production; only the world around them is made up.
//
//	post := pabaltest.New(t)
//	order, settlement := post.Client("order"), post.Client("settlement")
//	pabal.Handle(settlement.Consumer("settlement", nil), OrderPaid, settle)
//
//	err := post.InTx(order, func(tx pabaltest.Tx) error { return order.Record(t.Context(), tx, OrderPaid.New(paid)) })
//	post.Settle(time.Minute)                  // time passes until nothing is owed
//	got := pabaltest.Recorded(post, OrderPaid)
//
// What an Operator does (Status, Retry, Skip, Redeliver) is called from the test as anywhere. A test runs the same way each
// time. A Post is for one goroutine, the test's own.
//
// What goes wrong, the test says: Kill, Stop, Answer, AnswerNext, Send, Unsubscribe, BrokerAway, DatabaseAway, LoseAnswer. To
// fail the next publish is post.AnswerNext(pabaltest.Again).
//
// # On a database of your own
//
// [Receive] makes what a handler gets, so that a test may call it by hand in a transaction of any database. Clients of real
// databases run in real time; [NewBroker] gives them a broker in memory, [RecordedIn] says what a store has recorded, and
// [AwaitConfirmed] and [AwaitHandled] wait for what is on its way, and say what is owed when it does not come.
package pabaltest

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Tx is a transaction of a database in memory. Its methods Put, Insert and Get keep rows of the test's own, which a handler
// may write beside the inbox row: they roll back and commit with it.
type Tx = *sim.Tx

// Client is a client of a database in memory.
type Client = pabal.Client[Tx]

// Post is a world with one broker and a database for each source. The broker deduplicates within five minutes, does not
// lose messages and delivers in order, unless the test says otherwise.
type Post struct {
	t         testing.TB
	sim       *sim.Sim
	world     world.World
	clock     *sim.Process
	broker    *sim.BrokerServer
	databases []*database
	offices   []*office
	answer    func(Message) Answer
	next      []Answer
}

type database struct {
	*sim.Database
	source string
}

// office is a process with a client.
type office struct {
	source     string
	process    *sim.Process
	database   *database
	store      *sim.Store
	client     *Client
	running    bool
	over       bool // killed, or asked to end
	ended      bool
	err        error // of Run
	stop       context.CancelFunc
	loseAnswer bool
}

// New makes a world in which it is 1 January 2026. It ends with the test.
func New(t testing.TB) *Post {
	t.Helper()
	s := sim.New(1, sim.Faults{})
	t.Cleanup(s.Close)
	p := &Post{t: t, sim: s, clock: s.Process("broker")}
	p.world = p.clock.World()
	p.broker = sim.NewBrokerServer(p.world, sim.BrokerOptions{Dedup: 5 * time.Minute, Answer: p.ask})
	return p
}

// Client makes a client of a source, a process of its own, with the options' defaults but for the log, which is silent.
// Clients of one source share its database. Consumers and handlers are registered before the next InTx, Pass, Settle, Send
// or Stop: then all clients run.
func (p *Post) Client(source string) *Client { return p.ClientWith(source, nil) }

// ClientWith is Client with options.
func (p *Post) ClientWith(source string, options *pabal.Options) *Client {
	p.t.Helper()
	o := pabal.Options{}
	if options != nil {
		o = *options
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &office{source: source, process: p.sim.Process(source), database: p.database(source)}
	w := f.process.World()
	f.store = f.database.Connect(w, link{f.process.Link("database-" + source), f})
	var err error
	p.do(f, func() {
		f.client, err = pabal.New(context.Background(), f.store, p.broker.Connect(w, f.process.Link("broker")), source, &o)
	})
	if err != nil {
		p.t.Fatalf("make the client of %s: %v", source, err)
	}
	p.offices = append(p.offices, f)
	return f.client
}

// database finds the source's, or makes it.
func (p *Post) database(source string) *database {
	for _, d := range p.databases {
		if d.source == source {
			return d
		}
	}
	d := &database{sim.NewDatabase(p.sim.Process("database-"+source).World(), sim.DatabaseOptions{}), source}
	p.databases = append(p.databases, d)
	return d
}

// Now is what time it is.
func (p *Post) Now() time.Time { return p.world.Wall() }

// InTx runs f in a transaction of the client's database and commits, or rolls back if f returns an error, which it then
// returns.
func (p *Post) InTx(c *Client, f func(tx Tx) error) (err error) {
	p.t.Helper()
	p.run()
	p.advance(time.Millisecond, nil) // no two transactions at the same moment
	at := p.office(c)
	err = errKilled
	p.do(at, func() { err = at.transact(f) })
	return err
}

// transact runs f in a transaction, as a task of the office's process.
func (f *office) transact(within func(tx Tx) error) error {
	ctx := context.Background()
	tx, err := f.store.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // after Commit it does nothing
	if err := within(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// Get returns what handlers and transactions have committed under a key of a table of the test's own; nil: nothing.
func (p *Post) Get(c *Client, table, key string) any {
	return p.office(c).database.Business(table, key)
}

// Pass lets time pass: everything that falls due in it happens.
func (p *Post) Pass(d time.Duration) {
	p.t.Helper()
	p.run()
	p.clock.Go("clock", func(w world.World) { _ = w.Sleep(context.Background(), d) }) // although nobody else waits for anything
	p.advance(d, nil)
}

// Settle lets time pass until every event is confirmed or parked, no message is on its way, and no consumer holds an event;
// for at most so long. If something is still owed then, the test fails and says what.
func (p *Post) Settle(most time.Duration) {
	p.t.Helper()
	p.run()
	p.advance(most, func() bool { return p.owed() == "" })
	if owed := p.owed(); owed != "" {
		p.t.Fatalf("%v have passed, and %s", most, owed)
	}
}

// owed says what is still on its way; empty: nothing.
func (p *Post) owed() string {
	for _, d := range p.databases {
		if what := d.Owed(); what != "" {
			return "in the database of " + d.source + " " + what
		}
	}
	return p.broker.Owed()
}

// office finds the client's.
func (p *Post) office(c *Client) *office {
	p.t.Helper()
	for _, f := range p.offices {
		if f.client == c {
			return f
		}
	}
	p.t.Fatalf("the client was not made by this Post")
	return nil
}

// run starts the clients that do not run yet, and waits until their queues are subscribed.
func (p *Post) run() {
	p.t.Helper()
	for _, f := range p.offices {
		if f.running || f.over {
			continue
		}
		f.running = true
		ctx, stop := context.WithCancel(context.Background())
		f.stop = stop
		f.start(ctx, func(err error) { p.t.Errorf("run the client of %s: %v", f.source, err) })
		var err error
		p.do(f, func() {
			ctx, cancel := f.process.World().Deadline(context.Background(), time.Minute)
			defer cancel()
			err = f.client.Ready(ctx)
		})
		if err != nil {
			p.t.Fatalf("the client of %s does not start: %v", f.source, err)
		}
	}
}

// do runs f as a task of an office's process, to its end or the process's.
func (p *Post) do(at *office, f func()) {
	p.t.Helper()
	if !at.process.Alive() {
		p.t.Fatalf("the client of %s was killed", at.source)
	}
	done := false
	at.process.Go("test", func(world.World) {
		f()
		done = true
	})
	p.advance(time.Hour, func() bool { return done || !at.process.Alive() })
	if !done && at.process.Alive() {
		p.t.Fatalf("a transaction has not ended within an hour: two that wait for each other?")
	}
}

func (p *Post) advance(d time.Duration, until func() bool) {
	p.t.Helper()
	if err := p.sim.Run(p.sim.Elapsed()+d, until); err != nil {
		p.t.Fatal(err)
	}
}

// Recorded returns the committed events of a type, of all sources, in the order of their transactions and positions.
func Recorded[T any](p *Post, eventType pabal.Type[T]) []pabal.Received[T] {
	p.t.Helper()
	var found []pabal.Received[T]
	for _, d := range p.databases {
		events := slices.DeleteFunc(d.Events(), func(e driver.Event) bool {
			return e.Type != eventType.Name() || e.Topic != eventType.Topic()
		})
		found = append(found, receivedOf(p.t, d.source, eventType, events)...)
	}
	slices.SortStableFunc(found, func(a, b pabal.Received[T]) int {
		return cmp.Or(a.RecordedAt.Compare(b.RecordedAt), cmp.Compare(a.Position, b.Position))
	})
	return found
}
