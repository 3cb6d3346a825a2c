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
package pabaltest

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Tx is a transaction of a database in memory. Its methods Put, Insert and Get keep rows of the test's own, which a handler
// may write beside the inbox row: they roll back and commit with it.
type Tx = *sim.Tx

// Client is a client of a database in memory.
type Client = pabal.Client[Tx]

// Post is a world with one broker and a database for each source.
type Post struct {
	t       testing.TB
	sim     *sim.Sim
	broker  *sim.BrokerServer
	offices []*office
}

// office is one service: a process with a database.
type office struct {
	name     string
	process  *sim.Process
	database *sim.Database
	store    *sim.Store
	client   *Client
	running  bool
}

// New makes a world in which it is 1 January 2026. It ends with the test.
func New(t testing.TB) *Post {
	t.Helper()
	s := sim.New(1, sim.Faults{})
	t.Cleanup(s.Close)
	return &Post{t: t, sim: s, broker: sim.NewBrokerServer(s.Process("broker").World(), sim.BrokerOptions{})}
}

// Client makes the client of a source, with a database of its own and the options' defaults but for the log, which is
// silent. Consumers and handlers are registered before the first InTx, Pass or Settle: then all clients run.
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
	process := p.sim.Process(source)
	w := process.World()
	f := &office{name: source, process: process, database: sim.NewDatabase(p.sim.Process("database-"+source).World(), sim.DatabaseOptions{})}
	f.store = f.database.Connect(w, sim.Direct)
	var err error
	p.do(f, func() {
		f.client, err = pabal.New(context.Background(), f.store, p.broker.Connect(w, sim.Direct), source, &o)
	})
	if err != nil {
		p.t.Fatalf("make the client of %s: %v", source, err)
	}
	p.offices = append(p.offices, f)
	return f.client
}

// InTx runs f in a transaction of the client's database and commits, or rolls back if f returns an error, which it then
// returns.
func (p *Post) InTx(c *Client, f func(tx Tx) error) (err error) {
	p.t.Helper()
	p.run()
	p.advance(time.Millisecond, nil) // no two transactions at the same moment
	at := p.office(c)
	p.do(at, func() {
		ctx := context.Background()
		var tx Tx
		if tx, err = at.store.Begin(ctx); err != nil {
			return
		}
		defer tx.Rollback(ctx) // after Commit it does nothing
		if err = f(tx); err == nil {
			err = tx.Commit(ctx)
		}
	})
	return err
}

// Get returns what handlers and transactions have committed under a key of a table of the test's own; nil: nothing.
func (p *Post) Get(c *Client, table, key string) any {
	return p.office(c).database.Business(table, key)
}

// Pass lets time pass: everything that falls due in it happens.
func (p *Post) Pass(d time.Duration) {
	p.t.Helper()
	p.run()
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
	for _, f := range p.offices {
		if what := f.database.Owed(); what != "" {
			return "in the database of " + f.name + " " + what
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
		if f.running {
			continue
		}
		f.running = true
		f.process.Go("run", func(world.World) {
			if err := f.client.Run(context.Background()); err != nil {
				p.t.Errorf("run the client of %s: %v", f.name, err)
			}
		})
		var err error
		p.do(f, func() {
			ctx, cancel := f.process.World().Deadline(context.Background(), time.Minute)
			defer cancel()
			err = f.client.Ready(ctx)
		})
		if err != nil {
			p.t.Fatalf("the client of %s does not start: %v", f.name, err)
		}
	}
}

// do runs f as a task of an office's process, to its end.
func (p *Post) do(at *office, f func()) {
	p.t.Helper()
	done := false
	at.process.Go("test", func(world.World) {
		f()
		done = true
	})
	p.advance(time.Hour, func() bool { return done })
	if !done {
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
	for _, f := range p.offices {
		for _, e := range f.database.Events() {
			if e.Type != eventType.Name() || e.Topic != eventType.Topic() {
				continue
			}
			data, err := eventType.Decode(e.Payload)
			if err != nil {
				p.t.Fatalf("event %s: %v", e.ID, err)
			}
			found = append(found, pabal.Received[T]{
				ID: e.ID, Source: f.name, Topic: e.Topic, Type: e.Type, Version: e.Version, Key: e.Key, Position: e.Position,
				RecordedAt: e.RecordedAt, Attempt: 1, Data: data,
			})
		}
	}
	slices.SortStableFunc(found, func(a, b pabal.Received[T]) int {
		return cmp.Or(a.RecordedAt.Compare(b.RecordedAt), cmp.Compare(a.Position, b.Position))
	})
	return found
}
