package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

// latencyRate is about a tenth of what `pabal shop --load max` takes on the machine of the targets.
const latencyRate = 60

// latencyRows measures the time from the return of COMMIT to the start of the handler, with two databases and a broker that
// each sync what they acknowledge. One fsync lies on that way, the broker's; beside the traffic the disk is asked what one
// takes.
func latencyRows(ctx context.Context, b *bench) ([]row, error) {
	var p50, p99, over50, over99, sync50, sync99 []float64
	for range b.rounds {
		way, syncs, err := b.latencies(ctx)
		if err != nil {
			return nil, err
		}
		p50, p99 = append(p50, quantile(way, 0.5)), append(p99, quantile(way, 0.99))
		sync50, sync99 = append(sync50, quantile(syncs, 0.5)), append(sync99, quantile(syncs, 0.99))
		over50 = append(over50, quantile(way, 0.5)-quantile(syncs, 0.5))
		over99 = append(over99, quantile(way, 0.99)-quantile(syncs, 0.99))
	}
	return []row{
		{fmt.Sprintf("commit → handler starts, %d/s", latencyRate), "p50 " + spread(p50, "%.2f") + " ms, p99 " + spread(p99, "%.2f") + " ms", ""},
		{"fsync of 4 KiB beside it", "p50 " + spread(sync50, "%.2f") + " ms, p99 " + spread(sync99, "%.2f") + " ms", ""},
		{"the former over the latter", "p50 " + spread(over50, "%.2f") + " ms, p99 " + spread(over99, "%.2f") + " ms", "p50 ≤ 2 ms, p99 ≤ 10 ms"},
	}, nil
}

// latencies returns milliseconds.
func (b *bench) latencies(ctx context.Context) (way, syncs []float64, err error) {
	dir, err := b.path("latency")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	quiet := slog.New(slog.DiscardHandler)
	broker, err := pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	defer broker.Close() //nolint:errcheck // it is temporary
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	started := make(chan time.Time, 1)
	opened := map[string]*pabal.Client[*sql.Tx]{}
	databases := map[string]*sql.DB{}
	for _, name := range []string{"settlement", "order"} {
		db, client, err := openClient(ctx, filepath.Join(dir, name+".db"), broker, name, &pabal.Options{Logger: quiet})
		if err != nil {
			return nil, nil, err
		}
		defer db.Close() //nolint:errcheck // of a temporary file
		opened[name], databases[name] = client, db
		if name == "settlement" {
			consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 1})
			pabal.Handle(consumer, measured, func(context.Context, *sql.Tx, pabal.Received[paid]) error {
				started <- time.Now()
				return nil
			})
		}
		running.Go(func() { _ = client.Run(ctx) })
		if err := client.Ready(ctx); err != nil {
			return nil, nil, err
		}
	}
	disk, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return nil, nil, err
	}
	defer disk.Close() //nolint:errcheck // it is temporary
	ticker := time.NewTicker(time.Second / latencyRate)
	defer ticker.Stop()
	block := make([]byte, 4096)
	for begin := time.Now(); time.Since(begin) < b.each; {
		<-ticker.C
		committed, err := recordOne(ctx, databases["order"], opened["order"], len(way))
		if err != nil {
			return nil, nil, err
		}
		select {
		case at := <-started:
			if len(way) == 0 && at.Sub(committed) > time.Second {
				continue // the topic was made
			}
			way = append(way, float64(at.Sub(committed).Microseconds())/1000)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
		before := time.Now()
		if _, err := disk.Write(block); err != nil {
			return nil, nil, err
		}
		if err := disk.Sync(); err != nil {
			return nil, nil, err
		}
		syncs = append(syncs, float64(time.Since(before).Microseconds())/1000)
	}
	return way, syncs, nil
}

var measured = pabal.Define("order-pay-done", pabal.Key(func(p paid) string { return p.OrderNo }))

func openClient(
	ctx context.Context, file string, broker driver.Broker, name string, o *pabal.Options,
) (*sql.DB, *pabal.Client[*sql.Tx], error) {
	db, err := pabalsql.OpenSQLite(file, nil)
	if err != nil {
		return nil, nil, err
	}
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return nil, nil, err
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return nil, nil, err
	}
	client, err := pabal.New(ctx, store, broker, name, o)
	return db, client, err
}

func recordOne(ctx context.Context, db *sql.DB, client *pabal.Client[*sql.Tx], n int) (time.Time, error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return time.Time{}, err
	}
	if err := client.Record(ctx, tx, measured.New(paid{OrderNo: fmt.Sprintf("A%d", n), Amount: 1, Currency: "KRW"})); err != nil {
		_ = tx.Rollback()
		return time.Time{}, err
	}
	err = tx.Commit()
	return time.Now(), err
}
