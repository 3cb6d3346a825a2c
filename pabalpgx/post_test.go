package pabalpgx_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabalpgx"
)

const (
	testLease = 4 * time.Second
	soon      = time.Second // what is not doubtful for the database has reached the broker by then
	inLease   = testLease + 3*soon
)

// paid is an event whose payload is its name in the test.
var paid = pabal.Define[[]byte]("order-paid")

// tapped is a store that notes what became of each event's transaction.
type tapped struct {
	*pabalpgx.Store
	mu     sync.Mutex
	states map[string]driver.CommitState // by payload
}

func (s *tapped) Record(ctx context.Context, tx pgx.Tx, r driver.Recording) error {
	tell, events := r.Outcome, r.Events
	r.Outcome = func(state driver.CommitState) {
		s.mu.Lock()
		for i := range events {
			s.states[string(events[i].Payload)] = state
		}
		s.mu.Unlock()
		tell(state)
	}
	return s.Store.Record(ctx, tx, r)
}

// post is a running client over a broker in memory. Whatever reaches the broker without being in the table fails the test.
type post struct {
	t      *testing.T
	pool   *pgxpool.Pool
	plain  *pgxpool.Pool
	store  *tapped
	client *pabal.Client[pgx.Tx]

	mu        sync.Mutex
	published map[string]chan struct{} // by payload; closed when it reached the broker
}

// openPost runs a client whose own statements go through pool.
func openPost(t *testing.T, pool *pgxpool.Pool, url string) *post {
	t.Helper()
	p := &post{t: t, pool: pool, plain: must(pgxpool.New(t.Context(), url))(t), published: map[string]chan struct{}{}}
	t.Cleanup(func() { go p.plain.Close() })
	p.store = &tapped{Store: must(pabalpgx.New(pool, nil))(t), states: map[string]driver.CommitState{}}
	w := world.Real()
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{})
	broker.OnPublish(func(m *driver.Message) { p.arrived(m.ID) })
	p.client = must(pabal.New(t.Context(), p.store, broker.Connect(w, sim.Direct), "order", &pabal.Options{
		Lease: testLease, PublishTimeout: testLease / 4, Sweep: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}))(t)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.client.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := p.client.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *post) arrived(id uuid.UUID) {
	var name []byte
	err := p.plain.QueryRow(context.Background(), `select payload from pabal_event where id = $1`, id).Scan(&name)
	if err != nil {
		p.t.Errorf("event %s reached the broker, and in the table: %v", id, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.wait(string(name)):
	default:
		close(p.wait(string(name)))
	}
}

// wait returns the channel of a name. The caller holds mu.
func (p *post) wait(name string) chan struct{} {
	if p.published[name] == nil {
		p.published[name] = make(chan struct{})
	}
	return p.published[name]
}

func (p *post) record(tx pgx.Tx, name string) {
	p.t.Helper()
	if err := p.client.Record(p.t.Context(), tx, paid.New([]byte(name))); err != nil {
		p.t.Fatalf("record %s: %v", name, err)
	}
}

// arrives waits until an event has reached the broker.
func (p *post) arrives(name string, within time.Duration) {
	p.t.Helper()
	p.mu.Lock()
	c := p.wait(name)
	p.mu.Unlock()
	start := time.Now()
	select {
	case <-c:
	case <-time.After(2 * inLease):
	}
	if d := time.Since(start); d > within {
		p.t.Errorf("event %s reached the broker after %v, want %v", name, d, within)
	}
}

// absent checks that an event is not in the table. That it does not reach the broker, arrived checks to the end.
func (p *post) absent(name string) {
	p.t.Helper()
	var n int
	if err := p.plain.QueryRow(p.t.Context(), `select count(*) from pabal_event where payload = $1`, []byte(name)).Scan(&n); err != nil || n > 0 {
		p.t.Errorf("event %s is in the table (%v)", name, err)
	}
}

func (p *post) state(name string, want driver.CommitState) {
	p.t.Helper()
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if got, ok := p.store.states[name]; !ok || got != want {
		p.t.Errorf("event %s is %v (%v), want %v", name, got, ok, want)
	}
}

func (p *post) exec(on interface {
	Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error)
}, text string,
) {
	p.t.Helper()
	if _, err := on.Exec(p.t.Context(), text); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
}

// broken is a type whose payload no event can hold.
var broken = pabal.Define[chan int]("broken")

// plainRecorder records one keyed event for each that it is given, and notes the outcome, which must not come before Record
// has returned.
type plainRecorder struct {
	store    *pabalpgx.Store
	returned bool
	states   []driver.CommitState
}

func (r *plainRecorder) Record(ctx context.Context, tx pgx.Tx, events ...pabal.Event) error {
	list := make([]driver.Event, len(events))
	for i := range list {
		list[i] = driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: "order-paid", Type: "order-paid", Key: "a"}
	}
	early := true
	err := r.store.Record(ctx, tx, driver.Recording{Events: list, Outcome: func(s driver.CommitState) {
		if !early && list[0].Position > 0 {
			r.states = append(r.states, s)
		}
	}})
	early, r.returned = false, true
	return err
}
