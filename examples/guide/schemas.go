package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/pabal-go/pabal"
)

// PaidNow is Paid two versions later: a field was added, and another one has got a better name.
type PaidNow struct {
	OrderNo  string `json:"orderNo"`
	Total    int    `json:"total"`
	Amount   int    `json:"amount"` // the old name of Total: written until nobody reads it
	Currency string `json:"currency"`
}

// UnmarshalJSON reads what was recorded before, too.
func (p *PaidNow) UnmarshalJSON(text []byte) error {
	type plain PaidNow
	if err := json.Unmarshal(text, (*plain)(p)); err != nil {
		return err
	}
	p.Total = cmp.Or(p.Total, p.Amount)
	p.Currency = cmp.Or(p.Currency, "KRW") // what it always was
	return nil
}

// OrderPaidNow is the same type of event: its name stays.
var OrderPaidNow = pabal.Define("order-pay-done", pabal.Key(func(p PaidNow) string { return p.OrderNo })).On("order").Version("2")

// PaidLines is what no old consumer could make sense of: a type of its own, on the topic of the old one.
type PaidLines struct {
	OrderNo string `json:"orderNo"`
	Lines   []int  `json:"lines"` // the amount of each
}

// OrderPaidLines has a name of its own, and the topic of the old type.
var OrderPaidLines = pabal.Define("order-pay-done.lines", pabal.Key(func(p PaidLines) string { return p.OrderNo })).On("order")

func schemas(ctx context.Context, s *street) error {
	order, err := s.open(ctx, "order", "")
	if err != nil {
		return err
	}
	books, err := s.open(ctx, "books", "create table ledger (consumer text, line text)")
	if err != nil {
		return err
	}
	book := func(ctx context.Context, tx *sql.Tx, consumer, format string, args ...any) error {
		_, err := tx.ExecContext(ctx, "insert into ledger values (?, ?)", consumer, fmt.Sprintf(format, args...))
		return err
	}
	pabal.Handle(books.Consumer("old", nil), OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		return book(ctx, tx, "old", "%s %d", e.Key, e.Data.Amount)
	})
	pabal.Handle(books.Consumer("now", nil), OrderPaidNow, func(ctx context.Context, tx *sql.Tx, e pabal.Received[PaidNow]) error {
		return book(ctx, tx, "now", "%s %d %s", e.Key, e.Data.Total, e.Data.Currency)
	})
	pabal.Handle(books.Consumer("lines", nil), OrderPaidLines, func(ctx context.Context, tx *sql.Tx, e pabal.Received[PaidLines]) error {
		return book(ctx, tx, "lines", "%s of %d lines", e.Key, len(e.Data.Lines))
	})
	if err := s.start(ctx, books, order); err != nil {
		return err
	}

	// The order service as it was, as it is, and with a second type beside the first.
	if err := order.record(ctx, OrderPaid.New(Paid{OrderNo: "A1", Amount: 100})); err != nil {
		return err
	}
	now := PaidNow{OrderNo: "A1", Total: 200, Amount: 200, Currency: "USD"}
	if err := order.record(ctx, OrderPaidNow.New(now)); err != nil {
		return err
	}
	lines := PaidLines{OrderNo: "A1", Lines: []int{150, 50}}
	if err := order.record(ctx, OrderPaidNow.New(now), OrderPaidLines.New(lines)); err != nil {
		return err
	}
	for _, is := range [][2]string{
		{"old", "A1 100, A1 200, A1 200"},
		{"now", "A1 100 KRW, A1 200 USD, A1 200 USD"},
		{"lines", "A1 of 2 lines"},
	} {
		if err := books.until(ctx, is[1], "select group_concat(line, ', ') from (select line from ledger where consumer = ? order by rowid)", is[0]); err != nil {
			return err
		}
		s.say("%s: %s", is[0], is[1])
	}
	return nil
}
