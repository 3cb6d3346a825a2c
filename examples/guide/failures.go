package main

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

func failures(ctx context.Context, s *street) error {
	order, err := s.open(ctx, "order", "")
	if err != nil {
		return err
	}
	books, err := s.open(ctx, "books", "create table ledger (consumer text, order_no text, amount integer)")
	if err != nil {
		return err
	}
	var broken atomic.Bool
	broken.Store(true)
	settle := func(consumer string) func(context.Context, *sql.Tx, pabal.Received[Paid]) error {
		return func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
			if broken.Load() && e.Data.Amount == 1 {
				return errors.New("no such account")
			}
			_, err := tx.ExecContext(ctx, "insert into ledger values (?, ?, ?)", consumer, e.Key, e.Data.Amount)
			return err
		}
	}
	settlement := books.Consumer("settlement", &pabal.ConsumerOptions{Tries: 1}) // 10 by default
	pabal.Handle(settlement, OrderPaid, settle("settlement"))
	statistics := books.Consumer("statistics", &pabal.ConsumerOptions{Tries: 1, PassParked: true})
	pabal.Handle(statistics, OrderPaid, settle("statistics"))
	if err := s.start(ctx, books, order); err != nil {
		return err
	}

	for _, paid := range []Paid{{"A1", 1}, {"A1", 2}, {"B1", 3}} {
		if err := order.record(ctx, OrderPaid.New(paid)); err != nil {
			return err
		}
	}
	const ledger = "select group_concat(amount) from (select amount from ledger where consumer = ? order by order_no, rowid)"
	if err := books.until(ctx, "3", ledger, "settlement"); err != nil {
		return err
	}
	if err := books.until(ctx, "2,3", ledger, "statistics"); err != nil {
		return err
	}
	parked, err := books.kept(ctx, "settlement", driver.Parked, 1)
	if err != nil {
		return err
	}
	if _, err := books.kept(ctx, "settlement", driver.Held, 1); err != nil {
		return err
	}
	s.say("settlement has booked 3 of B1; of A1 one event is parked (%s), one is held behind it", parked[0].LastError)
	s.say("statistics, with PassParked, has booked 2 of A1 and 3 of B1")

	broken.Store(false) // the account is opened
	if _, err := books.RetryReceived(ctx, "settlement", parked[0].ID); err != nil {
		return err
	}
	if err := books.until(ctx, "1,2,3", ledger, "settlement"); err != nil {
		return err
	}
	s.say("retried: settlement has booked 1 and 2 of A1, in order")
	return nil
}
