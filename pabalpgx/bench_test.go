package pabalpgx_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// BenchmarkRecord measures transactions that write a row of the application's and an event of 512 bytes, against one without an
// event and one with an insert by hand into a table with a primary key and an index of what is unsent. The contenders take
// turns within each iteration, over one connection, with fsync: what counts is their ratios, which are reported. Of the
// server in PABAL_TEST_POSTGRES its own settings hold.
//
//	go test -run '^$' -bench Record -benchtime 2000x .
func BenchmarkRecord(b *testing.B) {
	server := &servers.PostgresServer{URL: os.Getenv("PABAL_TEST_POSTGRES")}
	if server.URL == "" {
		server = servers.Postgres(b, "fsync=on", "synchronous_commit=on")
	}
	pool := connect(b, server.URL)
	must(pool.Exec(b.Context(), `drop schema if exists bench cascade; create schema bench`))(b)
	pool = connect(b, server.URL+"&search_path=bench")
	must(pabalpgx.Migrate(b.Context(), pool, nil))(b)
	must(pool.Exec(b.Context(), `create table orders (id uuid primary key, status text not null);
		create table outbox (id uuid primary key, topic text not null, key text not null, payload bytea not null,
			created_at timestamptz not null default now(), published_at timestamptz);
		create index on outbox (created_at) where published_at is null`))(b)
	store := newStore(b, pool)
	payload := bytes.Repeat([]byte("x"), 512)
	ctx := b.Context()
	in := func(more func(tx pgx.Tx) error) func() error {
		return func() error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx) //nolint:errcheck // after COMMIT it does nothing
			if _, err := tx.Exec(ctx, `insert into orders values ($1, 'paid')`, uuid.Must(uuid.NewV7())); err != nil {
				return err
			}
			if err := more(tx); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}
	}
	record := func(key func() string) func(tx pgx.Tx) error {
		return func(tx pgx.Tx) error { return store.Record(ctx, tx, oneEvent(payload, key())) }
	}
	recorder := recorderFunc(func(ctx context.Context, tx pgx.Tx, _ ...pabal.Event) error {
		return store.Record(ctx, tx, oneEvent(payload, ""))
	})
	inTx := func(rides bool) func() error {
		return func() error {
			return store.InTx(ctx, recorder, func(tx *pabalpgx.Tx) error {
				tx.Record(pabal.Event{})
				if rides {
					tx.Queue(`insert into orders values ($1, 'paid')`, uuid.Must(uuid.NewV7()))
					return nil
				}
				_, err := tx.Exec(ctx, `insert into orders values ($1, 'paid')`, uuid.Must(uuid.NewV7()))
				return err
			})
		}
	}
	contenders := []struct {
		name string
		run  func() error
		took []time.Duration
	}{
		{name: "none", run: in(func(pgx.Tx) error { return nil })},
		{name: "by-hand", run: in(func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `insert into outbox (id, topic, key, payload) values ($1, $2, $3, $4)`, uuid.Must(uuid.NewV7()), "paid", "", payload)
			return err
		})},
		{name: "record", run: in(record(func() string { return "" }))},
		{name: "record-keyed", run: in(record(func() string { return uuid.NewString() }))},
		{name: "intx", run: inTx(false)},
		{name: "intx-rider", run: inTx(true)},
	}
	for i := range b.N + 50 { // the first ones prepare statements
		for k := range contenders {
			c := &contenders[(i+k)%len(contenders)]
			start := time.Now()
			if err := c.run(); err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
			if i >= 50 {
				c.took = append(c.took, time.Since(start))
			}
		}
	}
	median := func(k int) float64 {
		slices.Sort(contenders[k].took)
		return float64(contenders[k].took[len(contenders[k].took)/2].Microseconds())
	}
	for k := range contenders {
		b.ReportMetric(median(k), contenders[k].name+"-µs")
	}
	for k := 2; k < len(contenders); k++ {
		b.ReportMetric(median(1)/median(k), contenders[k].name+"/by-hand")
		b.ReportMetric(median(0)/median(k), contenders[k].name+"/none")
	}
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
