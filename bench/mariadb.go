package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

const mariadbOrders = 20_000

// mariadbRows compares a transaction that pays an order and records its event with one that inserts its event by hand into a
// table of its own. The server does as in production: an fsync of both its logs for each group of commits.
func mariadbRows(ctx context.Context, b *bench) ([]row, error) {
	return withServers(func(t testing.TB) (rows []row, err error) {
		m := servers.StartMariaDB(t, nil)
		for _, c := range []struct {
			kind    string
			event   pabal.Type[paid]
			workers int
		}{
			{"without key", unkeyed, 1}, {"with key", measured, 1}, {"without key", unkeyed, 16}, {"with key", measured, 16},
		} {
			p, err := openPayer(ctx, m.Database(t, ""), c.event)
			if err != nil {
				return rows, err
			}
			t.Cleanup(func() { _ = p.db.Close() })
			hand, pabal, err := p.compare(ctx, b, c.workers)
			if err != nil {
				return rows, err
			}
			target := ""
			if c.workers == 1 {
				target = "≥ 0.90"
			}
			rows = append(rows, row{
				fmt.Sprintf("MariaDB: pay an order and record it %s, against the event inserted by hand, %d at a time", c.kind, c.workers),
				fmt.Sprintf("%.0f against %.0f transactions/s, ratio %s", median(pabal.rates), median(hand.rates),
					spread(pabal.ratios, "%.2f")), target,
			})
		}
		return rows, nil
	})
}

// payer pays orders of a database. Its client does not run: only the recording transaction is measured.
type payer struct {
	db     *sql.DB
	client *pabal.Client[*sql.Tx]
	event  pabal.Type[paid]
}

const (
	createOrders = `create table orders (no bigint primary key auto_increment, status varchar(10) not null, paid_at bigint) engine = innodb`
	createOutbox = `create table outbox (id binary(16) primary key, topic varchar(64) not null, type varchar(128) not null,
    order_no varchar(255) not null, payload text not null, published char(1) not null, created_at datetime(6) not null,
    key outbox_open (published, created_at)) engine = innodb`
)

func openPayer(ctx context.Context, dsn string, event pabal.Type[paid]) (*payer, error) {
	db, err := pabalsql.OpenMySQL(dsn, nil)
	if err != nil {
		return nil, err
	}
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return nil, err
	}
	some := "insert into orders (status) values ('placed')" + strings.Repeat(", ('placed')", 999)
	statements := []string{createOrders, createOutbox}
	for range mariadbOrders / 1000 {
		statements = append(statements, some)
	}
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return nil, err
		}
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return nil, err
	}
	client, err := pabal.New(ctx, store, newMemoryBroker(), "order", &pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	return &payer{db: db, client: client, event: event}, err
}

// compare has both take turns; the ratio is of Pabal's to what is done by hand.
func (p *payer) compare(ctx context.Context, b *bench, workers int) (hand, pabal *rival, err error) {
	by := func(event func(context.Context, *sql.Tx, int64) error) *rival {
		return &rival{do: func(ctx context.Context, n int64) error { return p.pay(ctx, n%mariadbOrders+1, event) }}
	}
	hand, pabal = by(p.byHand), by(p.record)
	if err := b.inTurn(ctx, workers, hand, pabal); err != nil {
		return nil, nil, err
	}
	for table, want := range map[string]int{"outbox": hand.done, "pabal_event": pabal.done, "pabal_pending": pabal.done} {
		var n int
		if err := p.db.QueryRowContext(ctx, "select count(*) from "+table).Scan(&n); err != nil {
			return nil, nil, err
		}
		if n != want {
			return nil, nil, fmt.Errorf("%d rows in %s, %d were committed", n, table, want)
		}
	}
	return hand, pabal, nil
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

const insertOutbox = "insert into outbox (id, topic, type, order_no, payload, published, created_at) values (?, ?, ?, ?, ?, 'N', ?)"

func (p *payer) byHand(ctx context.Context, tx *sql.Tx, no int64) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	e := paidEvent(int(no))
	payload := fmt.Sprintf(`{"orderNo":%q,"memberId":%q,"amount":%d,"currency":%q}`, e.OrderNo, e.MemberID, e.Amount, e.Currency)
	_, err = tx.ExecContext(ctx, insertOutbox, id[:], "order-pay-done", "order-pay-done", e.OrderNo, payload, time.Now().UTC())
	return err
}

func (p *payer) record(ctx context.Context, tx *sql.Tx, no int64) error {
	return p.client.Record(ctx, tx, p.event.New(paidEvent(int(no))))
}
