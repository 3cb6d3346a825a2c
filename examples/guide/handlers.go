package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/pabal-go/pabal"
)

func handlers(ctx context.Context, s *street) error {
	order, err := s.open(ctx, "order", "")
	if err != nil {
		return err
	}
	reports, err := s.open(ctx, "reports", `
		create table viewed (event_id text primary key, order_no text not null);
		create table revenue (order_no text primary key, amount integer not null)`)
	if err != nil {
		return err
	}
	revenue := reports.Consumer("revenue", nil)
	pabal.Handle(revenue, OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		_, err := tx.ExecContext(ctx, "insert into revenue values (?, ?)", e.Data.OrderNo, e.Data.Amount)
		return err
	})

	views := reports.Consumer("views", &pabal.ConsumerOptions{Batch: 200})
	pabal.HandleBatch(views, OrderViewed, func(ctx context.Context, tx *sql.Tx, events []pabal.Received[Placed]) error {
		rows, args := make([]string, len(events)), []any{}
		for i, e := range events {
			rows[i], args = "(?, ?)", append(args, e.ID.String(), e.Data.OrderNo)
		}
		_, err := tx.ExecContext(ctx, "insert into viewed values "+strings.Join(rows, ", "), args...) // one statement for all
		return err
	})
	if err := s.start(ctx, reports, order); err != nil {
		return err
	}

	for range 5 {
		var events []pabal.Event
		for range 40 {
			events = append(events, OrderViewed.New(Placed{"A1"}))
		}
		if err := order.record(ctx, events...); err != nil { // many events, still a few statements
			return err
		}
	}
	if err := order.record(ctx, OrderPaid.New(Paid{"A1", 100}), OrderPaid.New(Paid{"A2", 200})); err != nil {
		return err
	}
	if err := reports.until(ctx, "200", "select count(*) from viewed"); err != nil {
		return err
	}
	if err := reports.until(ctx, "300", "select coalesce(sum(amount), 0) from revenue"); err != nil {
		return err
	}
	s.say("200 views in batches, 300 earned")
	return nil
}
