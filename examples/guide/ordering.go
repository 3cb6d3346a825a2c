package main

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"github.com/pabal-go/pabal"
)

// Placed and Paid are payloads of the order service.
type Placed struct {
	OrderNo string `json:"orderNo"`
}

// Paid is one of them.
type Paid struct {
	OrderNo string `json:"orderNo"`
	Amount  int    `json:"amount"`
}

// Two types that must keep order among each other share a topic.
var (
	OrderPlaced = pabal.Define("order-placed", pabal.Key(func(p Placed) string { return p.OrderNo })).On("order")
	OrderPaid   = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo })).On("order")
)

// OrderViewed has no key: nobody orders views.
var OrderViewed = pabal.Define[Placed]("order-viewed")

func ordering(ctx context.Context, s *street) error {
	order, err := s.open(ctx, "order", "")
	if err != nil {
		return err
	}
	warehouse, err := s.open(ctx, "warehouse", "create table step (order_no text, what text)")
	if err != nil {
		return err
	}
	step := func(ctx context.Context, tx *sql.Tx, orderNo, what string) error {
		_, err := tx.ExecContext(ctx, "insert into step values (?, ?)", orderNo, what)
		return err
	}
	var shelfFree atomic.Bool
	consumer := warehouse.Consumer("warehouse", nil)
	pabal.Handle(consumer, OrderPlaced, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Placed]) error {
		if e.Key == "A1" && !shelfFree.Load() {
			return errors.New("no shelf is free") // tried again after 1, 2, 4 s …
		}
		return step(ctx, tx, e.Key, "placed")
	})
	pabal.Handle(consumer, OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		return step(ctx, tx, e.Key, "paid")
	})
	if err := s.start(ctx, warehouse, order); err != nil {
		return err
	}

	for _, no := range []string{"A1", "B1"} {
		if err := order.record(ctx, OrderPlaced.New(Placed{no})); err != nil {
			return err
		}
		if err := order.record(ctx, OrderPaid.New(Paid{no, 100})); err != nil {
			return err
		}
	}
	const steps = "select group_concat(what) from (select what from step where order_no = ? order by rowid)"
	if err := warehouse.until(ctx, "placed,paid", steps, "B1"); err != nil {
		return err
	}
	a1, err := warehouse.text(ctx, steps, "A1")
	if err != nil {
		return err
	}
	shelfFree.Store(true)
	s.say("B1: placed,paid; meanwhile A1, whose first event fails: %q", a1)
	if err := warehouse.until(ctx, "placed,paid", steps, "A1"); err != nil {
		return err
	}
	s.say("A1: placed,paid")
	return nil
}
