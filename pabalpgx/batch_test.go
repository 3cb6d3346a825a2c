package pabalpgx_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabalpgx"
)

var (
	loose = pabal.Define[int]("loose")
	keyed = pabal.Define("keyed", pabal.Key(func(n int) string { return fmt.Sprint(n % 10) }))
)

// statements counts those that go over a pool's connections, in batches or by themselves.
type statements struct{ atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.Add(1)
	return ctx
}
func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (s *statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) { s.Add(1) }
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// A batch handler's effects, the inbox's rows and the cursors of a batch are one transaction, of a few statements, however many
// events it has.
func TestBatchIsOneTransactionOfFewStatements(t *testing.T) {
	const events, batch = 400, 100
	w := world.Real()
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{})
	var sent statements
	_, url := open(t)
	cfg := must(pgxpool.ParseConfig(url))(t)
	cfg.ConnConfig.Tracer = &sent
	pool := must(pgxpool.NewWithConfig(t.Context(), pabalpgx.Watch(cfg)))(t)
	t.Cleanup(pool.Close)
	must(pool.Exec(t.Context(), "create table effect (id uuid primary key, n integer not null)"))(t)
	var handled atomic.Int64
	settle := func(ctx context.Context, tx pgx.Tx, events []pabal.Received[int]) error {
		ids, ns := make([]string, len(events)), make([]int, len(events))
		for i, e := range events {
			ids[i], ns[i] = e.ID.String(), e.Data
		}
		handled.Add(int64(len(events)))
		_, err := tx.Exec(ctx, "insert into effect select * from unnest($1::text[]::uuid[], $2::integer[])", ids, ns)
		return err
	}
	// settlement runs the consumer until it is told to stop.
	settlement := func() (stop func()) {
		client := must(pabal.New(t.Context(), must(pabalpgx.New(pool, nil))(t), broker.Connect(w, sim.Direct), "settlement",
			&pabal.Options{Logger: slog.New(slog.DiscardHandler)}))(t)
		consumer := client.Consumer("settlement", &pabal.ConsumerOptions{Batch: batch})
		pabal.HandleBatch(consumer, loose, settle)
		pabal.HandleBatch(consumer, keyed, settle)
		return running(t, client)
	}
	settlement()() // its queue is there
	orders, _ := open(t)
	client := must(pabal.New(t.Context(), must(pabalpgx.New(orders, nil))(t), broker.Connect(w, sim.Direct), "order",
		&pabal.Options{Logger: slog.New(slog.DiscardHandler)}))(t)
	stop := running(t, client)
	for n := range events {
		tx := must(orders.Begin(t.Context()))(t)
		e := loose.New(n)
		if n%2 == 0 {
			e = keyed.New(n)
		}
		if err := client.Record(t.Context(), tx, e); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool {
		var pending int
		return orders.QueryRow(t.Context(), "select count(*) from pabal_pending").Scan(&pending) == nil && pending == 0
	})
	stop()
	sent.Store(0)
	stop = settlement()
	until(t, func() bool { return handled.Load() >= events })
	stop()
	all := sent.Load()
	var effects, together, transactions int
	if err := pool.QueryRow(t.Context(), `select count(*), count(*) filter (where e.xmin = i.xmin), count(distinct e.xmin::text)
		from effect e join pabal_inbox i on i.id = e.id`).Scan(&effects, &together, &transactions); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events in %d transactions, %d statements", effects, transactions, all)
	if effects != events || together != events {
		t.Errorf("%d effects, %d in the transaction of their row in the inbox, want %d", effects, together, events)
	}
	// A batch is of what has come by then, to one of eight lanes.
	if most := events / 8; transactions > most {
		t.Errorf("%d transactions, at most %d", transactions, most)
	}
	if most := int64(12*transactions + 60); all > most { // 60: to open the store, join, sweep and leave
		t.Errorf("%d statements, at most %d", all, most)
	}
}

// running runs a client until it is told to stop.
func running(t *testing.T, client *pabal.Client[pgx.Tx]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	if err := client.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s")
		}
	}
}
