package shop

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pabal-go/pabal"
)

// Entry is a line of the ledger: an order's payment, or its reversal. It never changes.
type Entry struct {
	OrderNo  string    `json:"orderNo"`
	Kind     string    `json:"kind"` // payment, reversal
	EventID  string    `json:"eventId"`
	SellerID string    `json:"sellerId"`
	Day      string    `json:"day"`    // YYYY-MM-DD, UTC
	Amount   Money     `json:"amount"` // below zero in a reversal
	BookedAt time.Time `json:"bookedAt"`

	handled int
	again   bool // by an operator's redelivery: handled before, on purpose
}

const (
	entryPayment  = "payment"
	entryReversal = "reversal"
)

// Settlement is what a seller is owed for a day in one currency.
type Settlement struct {
	SellerID  string `json:"sellerId"`
	Day       string `json:"day"`
	Payments  int64  `json:"payments"`
	Reversals int64  `json:"reversals"`
	Paid      Money  `json:"paid"`
	Reversed  Money  `json:"reversed"` // below zero
	Net       Money  `json:"net"`
}

// Settlements is the settlement service: it books events and answers questions. All methods are safe for concurrent use.
//
// An order has at most one payment and one reversal. Both say everything about themselves, and sums do not care for the
// order of their terms, so that a reversal booked before its payment ends right as well.
type Settlements struct {
	base
}

// OpenSettlements opens the settlement service on its database.
func OpenSettlements(ctx context.Context, db *sql.DB, o *Options) (*Settlements, error) {
	b, err := open(ctx, "settlement", db, nil, o)
	return &Settlements{b}, err
}

// Consume books payments and refunds.
func (s *Settlements) Consume(client *pabal.Client[*sql.Tx]) {
	c := client.Consumer("settlement", &s.consumer)
	pabal.HandleBatch(c, OrderPaid, s.Paid)
	pabal.HandleBatch(c, OrderCancelled, s.Cancelled)
}

// Paid books payments.
func (s *Settlements) Paid(ctx context.Context, tx *sql.Tx, events []pabal.Received[Paid]) error {
	entries := make([]Entry, len(events))
	for i, e := range events {
		entries[i] = Entry{OrderNo: e.Data.OrderNo, Kind: entryPayment, EventID: e.ID.String(), SellerID: e.Data.SellerID,
			Day: day(e.Data.PaidAt), Amount: e.Data.Total, again: e.Job != noJob}
	}
	return s.book(ctx, tx, entryPayment, entries)
}

// Cancelled books reversals of orders that had been paid, on the day of the cancellation.
func (s *Settlements) Cancelled(ctx context.Context, tx *sql.Tx, events []pabal.Received[Cancelled]) error {
	var entries []Entry
	for _, e := range events {
		if e.Data.Paid {
			entries = append(entries, Entry{OrderNo: e.Data.OrderNo, Kind: entryReversal, EventID: e.ID.String(),
				SellerID: e.Data.SellerID, Day: day(e.Data.CancelledAt), again: e.Job != noJob,
				Amount: Money{-e.Data.Total.Amount, e.Data.Total.Currency}})
		}
	}
	return s.book(ctx, tx, entryReversal, entries)
}

// book writes the entries that are not in the ledger yet and adds those to their days: three statements for any number.
func (s *Settlements) book(ctx context.Context, tx *sql.Tx, kind string, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	known, err := s.known(ctx, tx, kind, entries)
	if err != nil {
		return err
	}
	at := now().UnixMilli()
	var fresh, repeated []any
	days := map[dayKey]*Settlement{}
	for _, e := range entries {
		if known[e.OrderNo] {
			if !e.again {
				repeated = append(repeated, e.OrderNo)
			}
			continue
		}
		known[e.OrderNo] = true
		fresh = append(fresh, e.OrderNo, e.Kind, e.EventID, e.SellerID, e.Day, e.Amount.Currency, e.Amount.Amount, at)
		add(days, e)
	}
	var sums []any
	for _, k := range slices.SortedFunc(maps.Keys(days), dayKey.compare) { // one order of locks for all
		d := days[k]
		sums = append(sums, d.SellerID, d.Day, d.Net.Currency, d.Payments, d.Reversals, d.Paid.Amount, d.Reversed.Amount)
	}
	if err := s.execRows(ctx, tx, "ledger_insert", fresh, 8); err != nil {
		return err
	}
	if err := s.execRows(ctx, tx, "settlement_add", sums, 7); err != nil {
		return err
	}
	return s.execRows(ctx, tx, "ledger_again", repeated, 1, kind)
}

// known answers which orders have an entry of a kind.
func (s *Settlements) known(ctx context.Context, tx *sql.Tx, kind string, entries []Entry) (map[string]bool, error) {
	args := []any{kind}
	for _, e := range entries {
		args = append(args, e.OrderNo)
	}
	known := map[string]bool{}
	rows, err := s.query(ctx, tx, "ledger_known", len(entries), args)
	_, err = collect(rows, err, func(r scanner) (no string, err error) {
		err = r.Scan(&no, new(string))
		known[no] = true
		return no, err
	})
	return known, err
}

// dayKey names a seller's day in one currency.
type dayKey struct{ seller, day, currency string }

func (k dayKey) compare(o dayKey) int {
	return cmp.Or(cmp.Compare(k.seller, o.seller), cmp.Compare(k.day, o.day), cmp.Compare(k.currency, o.currency))
}

// add adds an entry to its seller's day.
func add(days map[dayKey]*Settlement, e Entry) {
	k := dayKey{e.SellerID, e.Day, e.Amount.Currency}
	d := days[k]
	if d == nil {
		zero := Money{0, k.currency}
		d = &Settlement{SellerID: k.seller, Day: k.day, Paid: zero, Reversed: zero, Net: zero}
		days[k] = d
	}
	if e.Kind == entryPayment {
		d.Payments++
		d.Paid.Amount += e.Amount.Amount
	} else {
		d.Reversals++
		d.Reversed.Amount += e.Amount.Amount
	}
	d.Net.Amount += e.Amount.Amount
}

// Day answers what a seller is owed for a day, by currency.
func (s *Settlements) Day(ctx context.Context, seller, day string) ([]Settlement, error) {
	var f findings
	f.id("seller", seller)
	_, err := time.Parse(time.DateOnly, day)
	f.unless(err == nil, "day", "is not a date such as 2026-01-31")
	if err := f.problem(); err != nil {
		return nil, err
	}
	rows, err := s.query(ctx, nil, "settlement_get", 1, []any{seller, day})
	all, err := collect(rows, err, scanSettlement)
	if err != nil {
		return nil, fmt.Errorf("read settlement of seller %s: %w", seller, err)
	}
	return all, nil
}

// Ledger answers the entries of an order.
func (s *Settlements) Ledger(ctx context.Context, orderNo string) ([]Entry, error) {
	rows, err := s.query(ctx, nil, "ledger_get", 1, []any{orderNo})
	entries, err := collect(rows, err, func(r scanner) (e Entry, err error) {
		var booked int64
		err = r.Scan(&e.OrderNo, &e.Kind, &e.EventID, &e.SellerID, &e.Day, &e.Amount.Currency, &e.Amount.Amount, &e.handled, &booked)
		e.BookedAt = fromMillis(booked)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read ledger of order %s: %w", orderNo, err)
	}
	if len(entries) == 0 {
		return nil, refuse(notFound, "the ledger has no entry of order %q", orderNo)
	}
	return entries, nil
}

func scanSettlement(r scanner) (s Settlement, err error) {
	err = r.Scan(&s.SellerID, &s.Day, &s.Paid.Currency, &s.Payments, &s.Reversals, &s.Paid.Amount, &s.Reversed.Amount)
	s.Reversed.Currency, s.Net.Currency = s.Paid.Currency, s.Paid.Currency
	s.Net.Amount = s.Paid.Amount + s.Reversed.Amount
	return s, err
}

// day is the day of a booking: the shop settles by days of UTC.
func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
