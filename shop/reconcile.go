package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Books are the databases that [Reconcile] compares, and what it has to ask Pabal.
type Books struct {
	Order, Notification, Settlement *sql.DB
	Dialect                         string        // default "sqlite"
	Wait                            time.Duration // how long what is on its way may take to arrive; default 30 s
	// Owed says what events are still on their way in any store: unconfirmed, held or parked; "" if none.
	Owed func(ctx context.Context) (string, error)
	// Events counts the events in the order service's store by type.
	Events func(ctx context.Context) (map[string]Tally, error)
}

// Tally counts the events of a type.
type Tally struct {
	Recorded  int `json:"recorded"`
	Confirmed int `json:"confirmed"`
}

// Report is what [Reconcile] found.
type Report struct {
	Placed        int              `json:"placed"` // orders in all
	Paid          int              `json:"paid"`   // orders that were paid, refunded ones included
	Cancelled     int              `json:"cancelled"`
	Refunded      int              `json:"refunded"`
	Events        map[string]Tally `json:"events"`
	Payments      int              `json:"payments"`      // entries in the ledger
	Reversals     int              `json:"reversals"`     //
	Notifications int              `json:"notifications"` // of payments
	Unsent        int              `json:"unsent"`        // messages that still wait for their delivery, or were given up; no difference
	Net           []Money          `json:"net"`           // paid less refunded, by currency
	Differences   []string         `json:"differences"`   // the first 50
	More          int              `json:"more"`          // differences beyond those
}

// Reconciled reports whether nothing differs.
func (r *Report) Reconciled() bool { return len(r.Differences) == 0 }

const (
	differencesMax = 50
	reconcilePoll  = 200 * time.Millisecond
	reconcileWait  = 30 * time.Second
)

func (r *Report) differs(format string, args ...any) {
	if len(r.Differences) == differencesMax {
		r.More++
		return
	}
	r.Differences = append(r.Differences, fmt.Sprintf(format, args...))
}

func (r *Report) expect(what string, is, want int) {
	if is != want {
		r.differs("%s: %d, not %d", what, is, want)
	}
}

// Reconcile compares the books of the services: every paid order has one event that was recorded and confirmed, one
// payment in the ledger and one message, every cancelled one likewise, every refunded one a reversal; each event was
// handled once; the sums per seller and currency are those of the orders, the days those of the ledger. It waits until
// that is so, at most for b.Wait. It only reads; orders should not change meanwhile.
func Reconcile(ctx context.Context, b Books) (*Report, error) {
	if b.Wait == 0 {
		b.Wait = reconcileWait
	}
	a, err := openAudit(ctx, b)
	if err != nil {
		return nil, err
	}
	defer a.close()
	for end := time.Now().Add(b.Wait); ; {
		last := time.Now().After(end)
		r, err := a.look(ctx, b, last)
		if err != nil {
			return nil, fmt.Errorf("reconcile: %w", err)
		}
		if r != nil && (last || r.Reconciled()) {
			return r, nil
		}
		if !sleep(ctx, reconcilePoll) {
			return nil, ctx.Err()
		}
	}
}

// audit reads the books.
type audit struct{ order, notification, settlement *database }

func openAudit(ctx context.Context, b Books) (a *audit, err error) {
	a = &audit{}
	for _, role := range []struct {
		name string
		db   *sql.DB
		d    **database
	}{{"order", b.Order, &a.order}, {"notification", b.Notification, &a.notification}, {"settlement", b.Settlement, &a.settlement}} {
		if *role.d, err = openDatabase(ctx, role.db, b.Dialect, role.name); err != nil {
			a.close()
			return nil, fmt.Errorf("open books of %s: %w", role.name, err)
		}
	}
	return a, nil
}

func (a *audit) close() {
	for _, d := range []*database{a.order, a.notification, a.settlement} {
		if d != nil {
			_ = d.Close() // only read
		}
	}
}

// look compares the books. As long as something is on its way, or the totals differ, it is not worth to go on, unless this is
// the last look: then it answers nil.
func (a *audit) look(ctx context.Context, b Books, last bool) (*Report, error) {
	owed, err := b.Owed(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask what is on its way: %w", err)
	}
	r := &Report{Differences: []string{}}
	if owed != "" {
		r.differs("still on its way after %v: %s", b.Wait, owed)
	}
	if err := a.totals(ctx, r); err != nil {
		return nil, err
	}
	if !r.Reconciled() && !last {
		return nil, nil
	}
	if r.Events, err = b.Events(ctx); err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	for _, e := range []struct {
		name string
		want int
	}{{OrderPlaced.Name(), r.Placed}, {OrderPaid.Name(), r.Paid}, {OrderCancelled.Name(), r.Cancelled}} {
		r.expect("events "+e.name+" recorded", r.Events[e.name].Recorded, e.want)
		r.expect("events "+e.name+" confirmed", r.Events[e.name].Confirmed, e.want)
	}
	return r, errors.Join(a.orders(ctx, r), a.days(ctx, r))
}

func (a *audit) totals(ctx context.Context, r *Report) error {
	var cancelMessages int
	if err := errors.Join(
		a.order.row(ctx, nil, "totals").Scan(&r.Placed, &r.Paid, &r.Cancelled, &r.Refunded),
		a.settlement.row(ctx, nil, "totals").Scan(&r.Payments, &r.Reversals),
		a.notification.row(ctx, nil, "totals").Scan(&r.Notifications, &cancelMessages, new(int), &r.Unsent),
	); err != nil {
		return err
	}
	r.expect("payments in the ledger", r.Payments, r.Paid)
	r.expect("reversals in the ledger", r.Reversals, r.Refunded)
	r.expect("messages about payments", r.Notifications, r.Paid)
	r.expect("messages about cancellations", cancelMessages, r.Cancelled)
	return nil
}

// orders compares orders, ledger and messages one by one. All are read in the order of their numbers, so that any number
// of them fits into memory.
func (a *audit) orders(ctx context.Context, r *Report) error {
	orders, err := readBook(ctx, a.order, func(s scanner) (no string, o bookedOrder, err error) {
		err = s.Scan(&no, &o.seller, &o.total.Currency, &o.total.Amount, &o.paid, &o.cancelled)
		return no, o, err
	})
	if err != nil {
		return err
	}
	defer orders.close()
	entries, err := readBook(ctx, a.settlement, func(s scanner) (no string, e Entry, err error) {
		err = s.Scan(&no, &e.Kind, &e.SellerID, &e.Day, &e.Amount.Currency, &e.Amount.Amount, &e.handled)
		return no, e, err
	})
	if err != nil {
		return err
	}
	defer entries.close()
	messages, err := readBook(ctx, a.notification, func(s scanner) (no string, m bookedMessage, err error) {
		err = s.Scan(&no, &m.kind, &m.handled)
		return no, m, err
	})
	if err != nil {
		return err
	}
	defer messages.close()
	net := map[string]int64{}
	for {
		no, more := lowest(orders.no(), entries.no(), messages.no())
		if !more {
			break
		}
		compareOrder(r, no, orders.take(no), entries.take(no), messages.take(no), net)
	}
	for _, currency := range slices.Sorted(maps.Keys(net)) {
		r.Net = append(r.Net, Money{net[currency], currency})
	}
	return errors.Join(orders.err, entries.err, messages.err)
}

type bookedOrder struct {
	seller          string
	total           Money
	paid, cancelled bool
}

type bookedMessage struct {
	kind    string
	handled int
}

// compareOrder compares what the services know of one order.
func compareOrder(r *Report, no string, orders []bookedOrder, entries []Entry, messages []bookedMessage, net map[string]int64) {
	if len(orders) == 0 {
		r.differs("order %s: unknown to the order service, %d entries, %d messages", no, len(entries), len(messages))
		return
	}
	o := orders[0]
	var wantEntries, wantMessages, isEntries, isMessages []string
	entry := func(kind, seller string, m Money) string { return fmt.Sprintf("%s of %v for %s", kind, m, seller) }
	if o.paid {
		net[o.total.Currency] += o.total.Amount
		wantEntries = append(wantEntries, entry(entryPayment, o.seller, o.total))
		wantMessages = append(wantMessages, messagePaid)
	}
	if o.cancelled {
		wantMessages = append(wantMessages, messageCancelled)
	}
	if o.paid && o.cancelled {
		net[o.total.Currency] -= o.total.Amount
		wantEntries = append(wantEntries, entry(entryReversal, o.seller, Money{-o.total.Amount, o.total.Currency}))
	}
	for _, e := range entries {
		isEntries = append(isEntries, entry(e.Kind, e.SellerID, e.Amount))
		if e.handled > 1 {
			r.differs("order %s: the event of its %s was handled %d times by settlement", no, e.Kind, e.handled)
		}
	}
	for _, m := range messages {
		isMessages = append(isMessages, m.kind)
		if m.handled > 1 {
			r.differs("order %s: its event %s was handled %d times by notification", no, m.kind, m.handled)
		}
	}
	if !slices.Equal(isEntries, wantEntries) {
		r.differs("order %s: ledger has %s, not %s", no, listOf(isEntries), listOf(wantEntries))
	}
	if !slices.Equal(isMessages, wantMessages) {
		r.differs("order %s: messages are %s, not %s", no, listOf(isMessages), listOf(wantMessages))
	}
}

func listOf(items []string) string {
	if len(items) == 0 {
		return "nothing"
	}
	return strings.Join(items, " and ")
}

// days compares the sums of the ledger with the sellers' days. That the ledger's entries are those of the orders, amount by
// amount, orders has seen.
func (a *audit) days(ctx context.Context, r *Report) error {
	want := map[dayKey]*Settlement{}
	rows, err := a.settlement.query(ctx, nil, "books", 1, nil)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // its error, if any, is that of Err
	for rows.Next() {
		var e Entry
		err := rows.Scan(&e.OrderNo, &e.Kind, &e.SellerID, &e.Day, &e.Amount.Currency, &e.Amount.Amount, &e.handled)
		if err != nil {
			return err
		}
		add(want, e)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows, err = a.settlement.query(ctx, nil, "days", 1, nil)
	all, err := collect(rows, err, scanSettlement)
	if err != nil {
		return err
	}
	for i := range all {
		is := &all[i]
		k := dayKey{is.SellerID, is.Day, is.Net.Currency}
		if w := want[k]; w == nil {
			r.differs("seller %s, %s: settled %v, and the ledger has nothing", is.SellerID, is.Day, is.Net)
		} else if *w != *is {
			r.differs("seller %s, %s: settled %v of %d payments and %d reversals, the ledger's sum is %v of %d and %d",
				is.SellerID, is.Day, is.Net, is.Payments, is.Reversals, w.Net, w.Payments, w.Reversals)
		}
		delete(want, k)
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), dayKey.compare) {
		r.differs("seller %s, %s: not settled, the ledger's sum is %v", k.seller, k.day, want[k].Net)
	}
	return nil
}

// book reads the statement "books" of a service, whose rows are in the order of the orders' numbers, one row ahead.
type book[T any] struct {
	rows  *sql.Rows
	scan  func(scanner) (string, T, error)
	ahead string
	row   T
	more  bool
	err   error
}

func readBook[T any](ctx context.Context, d *database, scan func(scanner) (string, T, error)) (*book[T], error) {
	rows, err := d.query(ctx, nil, "books", 1, nil)
	if err != nil {
		return nil, err
	}
	b := &book[T]{rows: rows, scan: scan}
	b.step()
	return b, nil
}

func (b *book[T]) step() {
	if b.more = b.rows.Next(); !b.more {
		b.err = b.rows.Err()
	} else if b.ahead, b.row, b.err = b.scan(b.rows); b.err != nil {
		b.more = false
	}
}

// no is the number of the order whose row comes next; "" at the end.
func (b *book[T]) no() string {
	if !b.more {
		return ""
	}
	return b.ahead
}

// take reads the rows of an order, if it is the next.
func (b *book[T]) take(no string) (rows []T) {
	for b.more && b.ahead == no {
		rows = append(rows, b.row)
		b.step()
	}
	return rows
}

func (b *book[T]) close() { _ = b.rows.Close() } // its error, if any, is that of Err

// lowest answers the lowest number that is not empty.
func lowest(numbers ...string) (string, bool) {
	low := ""
	for _, no := range numbers {
		if no != "" && (low == "" || no < low) {
			low = no
		}
	}
	return low, low != ""
}
