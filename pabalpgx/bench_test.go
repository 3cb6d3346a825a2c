package pabalpgx_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// BenchmarkRecord measures transactions that write a row of the application's and an event of 512 bytes, against one without
// an event and one with an insert by hand into a table with a primary key and an index of what is unsent, over 1 and 16
// connections, with fsync. The contenders take turns in slices of 160 transactions each, and what counts is the ratios of
// the medians of their slices: whatever else the machine does, it does to all of them. Of the server in
// PABAL_TEST_POSTGRES its own settings hold.
//
//	go test -run '^$' -bench Record -benchtime 60x .
func BenchmarkRecord(b *testing.B) {
	url := benchmarked(b)
	for _, connections := range []int{1, 16} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			takeTurns(b, connections, contenders(b, url, connections))
		})
	}
}

// benchmarked answers the URL of a schema with Pabal's tables, in a server that writes what it commits.
func benchmarked(b *testing.B) string {
	server := &servers.PostgresServer{URL: os.Getenv("PABAL_TEST_POSTGRES")}
	if server.URL == "" {
		server = servers.Postgres(b, "fsync=on", "synchronous_commit=on", "max_wal_size=4GB")
	}
	must(connect(b, server.URL).Exec(b.Context(), `drop schema if exists bench cascade; create schema bench`))(b)
	url := server.URL + "&search_path=bench"
	pool := connect(b, url)
	must(pabalpgx.Migrate(b.Context(), pool, nil))(b)
	must(pool.Exec(b.Context(), `create table orders (id uuid primary key, status text not null);
		create table outbox (id uuid primary key, topic text not null, key text not null, payload bytea not null,
			created_at timestamptz not null default now(), published_at timestamptz);
		create index on outbox (created_at) where published_at is null`))(b)
	return url
}

type contender struct {
	name string
	run  func(ctx context.Context) error
	took []time.Duration // by slices
}

func contenders(b *testing.B, url string, connections int) []*contender {
	pool := connect(b, fmt.Sprintf("%s&pool_max_conns=%d", url, connections))
	store := newStore(b, pool)
	payload := bytes.Repeat([]byte("x"), 512)
	const insert = `insert into orders values ($1, 'paid')`
	var keys atomic.Int64
	oldKey := func() string { return fmt.Sprintf("order-%d", keys.Add(1)*7919%10_000) }
	in := func(more func(ctx context.Context, tx pgx.Tx) error) func(context.Context) error {
		return func(ctx context.Context) error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx) //nolint:errcheck // after COMMIT it does nothing
			if _, err := tx.Exec(ctx, insert, uuid.Must(uuid.NewV7())); err != nil {
				return err
			}
			if err := more(ctx, tx); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}
	}
	record := func(key func() string) func(context.Context) error {
		return in(func(ctx context.Context, tx pgx.Tx) error { return store.Record(ctx, tx, oneEvent(payload, key())) })
	}
	inTx := func(key func() string, own func(context.Context, *pabalpgx.Tx) error) func(context.Context) error {
		recorder := recorderFunc(func(ctx context.Context, tx pgx.Tx, _ ...pabal.Event) error {
			return store.Record(ctx, tx, oneEvent(payload, key()))
		})
		return func(ctx context.Context) error {
			return store.InTx(ctx, recorder, func(tx *pabalpgx.Tx) error {
				tx.Record(pabal.Event{})
				return own(ctx, tx)
			})
		}
	}
	execs := func(ctx context.Context, tx *pabalpgx.Tx) error {
		_, err := tx.Exec(ctx, insert, uuid.Must(uuid.NewV7()))
		return err
	}
	rides := func(_ context.Context, tx *pabalpgx.Tx) error {
		tx.Queue(insert, uuid.Must(uuid.NewV7()))
		return nil
	}
	noKey := func() string { return "" }
	return []*contender{
		{name: "none", run: in(func(context.Context, pgx.Tx) error { return nil })},
		{name: "by-hand", run: in(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `insert into outbox (id, topic, key, payload) values ($1, $2, $3, $4)`, uuid.Must(uuid.NewV7()), "paid", "", payload)
			return err
		})},
		{name: "record", run: record(noKey)},
		{name: "record-keyed", run: record(oldKey)},
		{name: "record-new-key", run: record(uuid.NewString)},
		{name: "intx", run: inTx(noKey, execs)},
		{name: "intx-keyed", run: inTx(oldKey, execs)},
		{name: "intx-rider", run: inTx(noKey, rides)},
	}
}

// takeTurns runs b.N rounds after two that prepare statements, and reports how each compares.
func takeTurns(b *testing.B, connections int, list []*contender) {
	const slice, warmUp = 160, 2
	for round := range b.N + warmUp {
		for k := range list {
			c := list[(round+k)%len(list)]
			var wg sync.WaitGroup
			start := time.Now()
			for range connections {
				wg.Go(func() {
					for range slice / connections {
						if err := c.run(b.Context()); err != nil {
							b.Errorf("%s: %v", c.name, err)
						}
					}
				})
			}
			wg.Wait()
			if round >= warmUp {
				c.took = append(c.took, time.Since(start))
			}
		}
	}
	median := map[string]float64{}
	for _, c := range list {
		slices.Sort(c.took)
		median[c.name] = c.took[len(c.took)/2].Seconds()
		b.ReportMetric(slice/median[c.name], c.name+"/s")
	}
	for _, c := range list[1:] {
		b.ReportMetric(median["none"]/median[c.name], c.name+":none")
		b.ReportMetric(median["by-hand"]/median[c.name], c.name+":by-hand")
	}
	b.ReportMetric(median["record"]/median["record-keyed"], "record-keyed:record")
	b.ReportMetric(median["intx"]/median["intx-keyed"], "intx-keyed:intx")
	b.ReportMetric(0, "ns/op") // of a round: says nothing
}

type recorderFunc func(ctx context.Context, tx pgx.Tx, events ...pabal.Event) error

func (f recorderFunc) Record(ctx context.Context, tx pgx.Tx, events ...pabal.Event) error {
	return f(ctx, tx, events...)
}

func oneEvent(payload []byte, key string) driver.Recording {
	return driver.Recording{Lease: 10 * time.Second, Outcome: func(driver.CommitState) {}, Events: []driver.Event{{
		ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: "order-paid", Key: key, ContentType: "application/json", Payload: payload,
	}}}
}
