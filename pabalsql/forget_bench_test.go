package pabalsql

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
)

// BenchmarkForgettingOnMariaDB removes 50,000 old events while four recorders insert new ones, and one transaction that has
// recorded stays open for 3 s, as a slow one does: by dropping a partition, tried again each second as the lock wait ends, and
// by deleting a thousand at a time. It is the measurement of docs/decisions/0003-….
//
//	go test -run xxx -bench Forgetting -benchtime 3x ./pabalsql
func BenchmarkForgettingOnMariaDB(b *testing.B) {
	m := servers.StartMariaDB(b, nil)
	const columns = "id binary(16) not null, topic varchar(64) not null, payload blob not null, recorded_at bigint not null"
	for _, c := range []struct {
		name, table string
		forget      func(ctx context.Context, c *sql.Conn) (done bool, err error)
	}{
		{"drop a partition", "create table ev (" + columns + ", primary key (id, recorded_at), key (recorded_at, id)) engine = innodb " +
			"partition by range (recorded_at) (partition p0 values less than (1000000), partition p1 values less than (2000000), " +
			"partition p2 values less than maxvalue)",
			func(ctx context.Context, c *sql.Conn) (bool, error) {
				_, err := c.ExecContext(ctx, "alter table ev drop partition p0")
				if isMySQL(err, lockWaitTimeout) {
					return false, nil
				}
				return true, err
			}},
		{"delete by the thousand", "create table ev (" + columns + ", primary key (id), key (recorded_at, id)) engine = innodb",
			func(ctx context.Context, c *sql.Conn) (bool, error) {
				r, err := c.ExecContext(ctx, "delete e from (select x.id from ev x force index (recorded_at) where x.recorded_at < 1000000 "+
					"order by x.recorded_at limit 1000) old straight_join ev e force index (primary) on e.id = old.id")
				if err != nil {
					return true, err
				}
				n, err := r.RowsAffected()
				return n == 0, err
			}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var worst, mean, took time.Duration
			n := 0
			for b.Loop() {
				w, m, d := forgetOnce(b, m, c.table, c.forget)
				worst, mean, took, n = max(worst, w), mean+m, took+d, n+1
			}
			b.ReportMetric(float64(worst.Milliseconds()), "worst-insert-ms")
			b.ReportMetric(float64(mean.Microseconds())/float64(n), "mean-insert-µs")
			b.ReportMetric(took.Seconds()/float64(n), "forgetting-s")
		})
	}
}

func forgetOnce(b *testing.B, m *servers.MariaDB, table string, forget func(context.Context, *sql.Conn) (bool, error)) (worst, mean, took time.Duration) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	db, err := OpenMySQL(m.Database(b, ""), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a benchmark
	must(b, db, table, "insert into ev select unhex(lpad(hex(n), 32, '0')), 'paid', repeat('x', 300), n from "+manyNumbers+" where n < 50000")
	slow, err := db.BeginTx(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	const insert = "insert into ev values (unhex(concat('ff', hex(random_bytes(15)))), 'paid', repeat('x', 300), 3000000)"
	must(b, slow, insert)
	time.AfterFunc(3*time.Second, func() { _ = slow.Commit() })
	var inserts, total, longest atomic.Int64
	var all sync.WaitGroup
	recording, enough := context.WithCancel(ctx)
	for range 4 {
		all.Go(func() {
			for recording.Err() == nil {
				began := time.Now()
				if _, err := db.ExecContext(ctx, insert); err != nil {
					b.Error(err)
					return
				}
				d := int64(time.Since(began))
				inserts.Add(1)
				total.Add(d)
				for old := longest.Load(); d > old && !longest.CompareAndSwap(old, d); old = longest.Load() {
					continue
				}
			}
		})
	}
	c, err := db.Conn(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // of a benchmark
	if _, err := c.ExecContext(ctx, "set lock_wait_timeout = 1, transaction_isolation = 'READ-COMMITTED'"); err != nil {
		if _, err = c.ExecContext(ctx, "set lock_wait_timeout = 1, tx_isolation = 'READ-COMMITTED'"); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	for {
		done, err := forget(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		if done {
			break
		}
	}
	took = time.Since(began)
	enough()
	all.Wait()
	return time.Duration(longest.Load()), time.Duration(total.Load() / max(inserts.Load(), 1)), took
}
