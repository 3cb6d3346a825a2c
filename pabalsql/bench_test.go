package pabalsql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// BenchmarkRecordOnMariaDB pays orders: one update, and its event, recorded by Pabal or inserted by hand into one table. The
// server does as in production (fsync of both logs at each commit). Rounds of both alternate; the ratio is the median of
// theirs.
//
//	go test -run xxx -bench RecordOnMariaDB -benchtime 15x ./pabalsql
func BenchmarkRecordOnMariaDB(b *testing.B) {
	m := servers.StartMariaDB(b, nil)
	for _, c := range []struct {
		name, parameters string
		workers          int
	}{
		{"1 worker", "", 1}, {"1 worker, interpolated", "interpolateParams=true", 1},
		{"16 workers", "", 16}, {"16 workers, interpolated", "interpolateParams=true", 16},
	} {
		b.Run(c.name, func(b *testing.B) { benchRecord(b, m, c.parameters, c.workers) })
	}
}

func benchRecord(b *testing.B, m *servers.MariaDB, parameters string, workers int) {
	db, err := OpenMySQL(m.Database(b, parameters), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a benchmark
	if _, err := Migrate(b.Context(), db, nil); err != nil {
		b.Fatal(err)
	}
	must(b, db,
		"create table orders (no bigint primary key auto_increment, status varchar(10) not null, paid_at bigint) engine = innodb",
		"create table outbox (id binary(16) primary key, topic varchar(64) not null, type varchar(128) not null, order_no varchar(255) not null, "+
			"payload text not null, published char(1) not null, created_at datetime(6) not null, key outbox_open (published, created_at)) engine = innodb")
	s, err := New(db, nil)
	if err != nil {
		b.Fatal(err)
	}
	p := &payer{db: db, s: s}
	for p.orders.Load() < 20_000 {
		must(b, db, "insert into orders (status) values ('placed')"+manyTimes(", ('placed')", 999))
		p.orders.Add(1000)
	}
	p.round(b, workers, p.byHand) // both meet warm connections
	p.round(b, workers, p.recorded)
	var ratios, hand, pabal []float64
	for b.Loop() {
		h, r := p.round(b, workers, p.byHand), p.round(b, workers, p.recorded)
		hand, pabal, ratios = append(hand, h), append(pabal, r), append(ratios, r/h)
	}
	b.ReportMetric(median(hand), "hand-tx/s")
	b.ReportMetric(median(pabal), "pabal-tx/s")
	b.ReportMetric(median(ratios), "ratio")
}

func manyTimes(s string, n int) string { return string(slices.Repeat([]byte(s), n)) }

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

type payer struct {
	db     *sql.DB
	s      *Store
	orders atomic.Int64
	paid   atomic.Int64
}

// round pays orders and answers how many a second.
func (p *payer) round(b *testing.B, workers int, event func(context.Context, *sql.Tx, int64) error) float64 {
	const each = 400 * time.Millisecond
	ctx := b.Context()
	began := time.Now()
	var n atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for time.Since(began) < each {
				no := p.paid.Add(1)%p.orders.Load() + 1
				if err := p.pay(ctx, no, event); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	all.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}

func (p *payer) pay(ctx context.Context, no int64, event func(context.Context, *sql.Tx, int64) error) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "update orders set status = 'paid', paid_at = ? where no = ?", time.Now().UnixMicro(), no); err != nil {
		return err
	}
	if err := event(ctx, tx, no); err != nil {
		return err
	}
	return tx.Commit()
}

const paidPayload = `{"orderNo":"%020d","memberId":"m-1234","sellerId":"s-12","total":{"amount":24000,"currency":"KRW"},"paymentId":"p-1"}`

func (p *payer) byHand(ctx context.Context, tx *sql.Tx, no int64) error {
	id := uuid.Must(uuid.NewV7())
	_, err := tx.ExecContext(ctx, "insert into outbox (id, topic, type, order_no, payload, published, created_at) values (?, ?, ?, ?, ?, 'N', ?)",
		id[:], "order-pay-done", "order-pay-done", fmt.Sprintf("%020d", no), fmt.Sprintf(paidPayload, no), time.Now().UTC())
	return err
}

func (p *payer) recorded(ctx context.Context, tx *sql.Tx, no int64) error {
	return p.s.Record(ctx, tx, driver.Recording{Lease: 10 * time.Second, Outcome: func(driver.CommitState) {}, Events: []driver.Event{{
		ID: uuid.Must(uuid.NewV7()), Topic: "order-pay-done", Type: "order-pay-done", Key: fmt.Sprintf("%020d", no),
		ContentType: "application/json", Payload: fmt.Appendf(nil, paidPayload, no),
	}}})
}
