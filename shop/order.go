package shop

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pabal-go/pabal"
)

// Order is an order as the order service keeps it.
type Order struct {
	No           string     `json:"no"`
	MemberID     string     `json:"memberId"`
	SellerID     string     `json:"sellerId"`
	Total        Money      `json:"total"`
	Lines        []Line     `json:"lines"`
	Status       string     `json:"status"` // placed, paid, cancelled
	PlacedAt     time.Time  `json:"placedAt"`
	PaymentID    string     `json:"paymentId,omitempty"`
	PaidAt       *time.Time `json:"paidAt,omitempty"`
	CancelledAt  *time.Time `json:"cancelledAt,omitempty"`
	CancelReason string     `json:"cancelReason,omitempty"`
}

// States of an order. A cancelled order with PaidAt is refunded.
const (
	statusPlaced    = "placed"
	statusPaid      = "paid"
	statusCancelled = "cancelled"
)

// Line is a product in an order, at the price of that moment.
type Line struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
	Price     Money  `json:"price"`
}

// Placement is a request for an order: products of one seller, priced in one currency.
type Placement struct {
	MemberID string `json:"memberId"`
	Lines    []struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	} `json:"lines"`
}

// Payment says that an order was paid. ID is the payment provider's: the same payment told twice is one payment.
type Payment struct {
	ID     string `json:"paymentId"`
	Amount Money  `json:"amount"`
}

// Cancellation asks for an order to be cancelled.
type Cancellation struct {
	Reason string `json:"reason"`
}

const (
	linesMax    = 50
	quantityMax = 1000
	reasonMax   = 200
)

// Orders is the order service: place, pay, cancel. All methods are safe for concurrent use.
type Orders struct {
	base
}

// OpenOrders opens the order service on its database.
func OpenOrders(ctx context.Context, db *sql.DB, rec Recorder, o *Options) (*Orders, error) {
	b, err := open(ctx, "order", db, rec, o)
	return &Orders{b}, err
}

// Consume keeps the copy of the prices.
func (s *Orders) Consume(client *pabal.Client[*sql.Tx]) {
	c := client.Consumer("order", &s.consumer)
	pabal.HandleBatch(c, ProductPriceChanged, s.Priced)
}

// Place places an order. With a key, the same request again answers the same order, and another one is refused. Of
// requests that come at the same time one places the order, and all answer it.
func (s *Orders) Place(ctx context.Context, p Placement, key string) (*Order, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	hash := p.hash()
	if key != "" {
		if o, err := s.placed(ctx, key, hash); o != nil || err != nil {
			return o, err
		}
	}
	o, err := s.price(ctx, p)
	if err != nil {
		return nil, err
	}
	if o.No, err = newOrderNo(); err != nil {
		return nil, err
	}
	lines, err := json.Marshal(o.Lines)
	if err != nil {
		return nil, err
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := s.exec(ctx, tx, "order_insert", o.No, o.MemberID, o.SellerID, o.Total.Currency, o.Total.Amount, string(lines),
			sql.NullString{String: key, Valid: key != ""}, hash, o.PlacedAt.UnixMilli()); err != nil {
			return err
		}
		return s.rec.Record(ctx, tx, OrderPlaced.New(Placed{OrderNo: o.No, MemberID: o.MemberID, SellerID: o.SellerID,
			Total: o.Total, Lines: o.Lines, PlacedAt: o.PlacedAt}))
	})
	if err != nil && key != "" { // perhaps another request with the key was faster: the unique index decides
		if other, replayed := s.placed(ctx, key, hash); other != nil || isProblem(replayed) {
			return other, replayed
		}
	}
	if err != nil {
		return nil, fmt.Errorf("place order: %w", err)
	}
	return o, nil
}

// placed answers the order that was placed with a key, as it was then, or nil.
func (s *Orders) placed(ctx context.Context, key, hash string) (*Order, error) {
	var with string
	o, err := scanOrder(s.row(ctx, nil, "order_by_key", key), &with)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read order of idempotency key: %w", err)
	case with != hash:
		return nil, refuse(keyReused, "key %s placed order %s", key, o.No)
	}
	o.Status, o.PaymentID, o.PaidAt, o.CancelledAt, o.CancelReason = statusPlaced, "", nil, nil, ""
	return &o, nil
}

// price makes the order of a placement from the service's own copy of the prices.
func (s *Orders) price(ctx context.Context, p Placement) (*Order, error) {
	type offer struct {
		seller string
		price  Money
	}
	offers := map[string]offer{}
	ids := make([]any, len(p.Lines))
	for i, l := range p.Lines {
		ids[i] = l.ProductID
	}
	rows, err := s.query(ctx, nil, "prices", len(ids), ids)
	if _, err = collect(rows, err, func(r scanner) (id string, err error) {
		var o offer
		err = r.Scan(&id, &o.seller, &o.price.Currency, &o.price.Amount)
		offers[id] = o
		return id, err
	}); err != nil {
		return nil, fmt.Errorf("read prices: %w", err)
	}
	o := &Order{MemberID: p.MemberID, Status: statusPlaced, PlacedAt: now(), Lines: make([]Line, len(p.Lines))}
	var f findings
	for i, l := range p.Lines {
		offer, known := offers[l.ProductID]
		if !known {
			return nil, refuse(unknownProduct, "product %s", l.ProductID)
		}
		if o.SellerID == "" {
			o.SellerID = offer.seller
		}
		field := fmt.Sprintf("lines[%d]", i)
		f.unless(o.SellerID == offer.seller, field, "is of seller %s, the first of %s: one order per seller", offer.seller, o.SellerID)
		sum, err := offer.price.Times(l.Quantity)
		if err == nil {
			o.Total, err = o.Total.Plus(sum)
		}
		f.unless(err == nil, field, "does not fit the order's total: %v", err)
		o.Lines[i] = Line{ProductID: l.ProductID, Quantity: l.Quantity, Price: offer.price}
	}
	return o, f.problem()
}

// Pay marks an order as paid. Of two payments one wins, the other is refused; the same payment again answers the order.
func (s *Orders) Pay(ctx context.Context, no string, p Payment) (*Order, error) {
	var f findings
	f.id("paymentId", p.ID)
	f.money("amount", p.Amount)
	if err := f.problem(); err != nil {
		return nil, err
	}
	return s.change(ctx, no, func(o *Order) (bool, error) {
		if o.PaymentID == p.ID {
			return false, nil
		}
		if o.Status != statusPlaced {
			return false, refuse(orderState, "order %s is %s", o.No, o.describe())
		}
		f.unless(p.Amount == o.Total, "amount", "is %v, the order's total is %v", p.Amount, o.Total)
		return true, f.problem()
	}, func(tx *sql.Tx, o *Order, at time.Time) (int64, error) {
		o.Status, o.PaymentID, o.PaidAt = statusPaid, p.ID, &at
		return s.exec(ctx, tx, "order_pay", p.ID, at.UnixMilli(), o.No)
	}, func(o *Order) pabal.Event {
		return OrderPaid.New(Paid{OrderNo: o.No, MemberID: o.MemberID, SellerID: o.SellerID, Total: o.Total,
			PaymentID: o.PaymentID, PaidAt: *o.PaidAt})
	})
}

// Cancel cancels an order, paid or not. Cancelling a cancelled order answers it as it is.
func (s *Orders) Cancel(ctx context.Context, no string, c Cancellation) (*Order, error) {
	var f findings
	f.text("reason", c.Reason, reasonMax)
	if err := f.problem(); err != nil {
		return nil, err
	}
	return s.change(ctx, no, func(o *Order) (bool, error) {
		return o.Status != statusCancelled, nil
	}, func(tx *sql.Tx, o *Order, at time.Time) (int64, error) {
		was := o.Status
		o.Status, o.CancelledAt, o.CancelReason = statusCancelled, &at, c.Reason
		return s.exec(ctx, tx, "order_cancel", at.UnixMilli(), c.Reason, o.No, was)
	}, func(o *Order) pabal.Event {
		return OrderCancelled.New(Cancelled{OrderNo: o.No, MemberID: o.MemberID, SellerID: o.SellerID, Total: o.Total,
			Paid: o.PaidAt != nil, Reason: o.CancelReason, CancelledAt: *o.CancelledAt})
	})
}

// changeTries is enough: an order's state only moves on, and has three values.
const changeTries = 3

var errChanged = errors.New("order changed meanwhile")

// change moves an order to another state. What does not change of an order is read before the transaction, so that the
// transaction is one update and one Record; the update says by its condition whether the state is still the one that
// may decided on.
func (s *Orders) change(
	ctx context.Context, no string,
	may func(o *Order) (bool, error), update func(tx *sql.Tx, o *Order, at time.Time) (int64, error),
	event func(o *Order) pabal.Event,
) (*Order, error) {
	for range changeTries {
		o, err := s.Get(ctx, no)
		if err != nil {
			return nil, err
		}
		if ok, err := may(o); !ok || err != nil {
			return o, err
		}
		err = s.inTx(ctx, func(tx *sql.Tx) error {
			n, err := update(tx, o, now())
			if err == nil && n == 0 {
				err = errChanged
			}
			if err != nil {
				return err
			}
			return s.rec.Record(ctx, tx, event(o))
		})
		if err == nil {
			return o, nil
		}
		if !errors.Is(err, errChanged) {
			return nil, fmt.Errorf("change order %s: %w", no, err)
		}
	}
	return nil, fmt.Errorf("change order %s: %w", no, errChanged)
}

// Get answers an order.
func (s *Orders) Get(ctx context.Context, no string) (*Order, error) {
	o, err := scanOrder(s.row(ctx, nil, "order_get", no))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(notFound, "order %q", no)
	}
	if err != nil {
		return nil, fmt.Errorf("read order %s: %w", no, err)
	}
	return &o, nil
}

// List answers up to limit orders, the newest first, older than the order before ("": from the newest), of a member or,
// without one, of all.
func (s *Orders) List(ctx context.Context, member, before string, limit int) ([]Order, error) {
	if before == "" {
		before = "Z" // above every order number until the year 10889
	}
	name, args := "order_list", []any{before, limit}
	if member != "" {
		name, args = "order_list_member", []any{member, before, limit}
	}
	rows, err := s.query(ctx, nil, name, 1, args)
	return collect(rows, err, func(r scanner) (Order, error) { return scanOrder(r) })
}

// Priced keeps the copy of the prices.
func (s *Orders) Priced(ctx context.Context, tx *sql.Tx, events []pabal.Received[PriceChanged]) error {
	var rows []any
	for e := range latest(events, func(e PriceChanged) string { return e.ProductID }) {
		rows = append(rows, e.ProductID, e.SellerID, e.Price.Currency, e.Price.Amount)
	}
	return s.execRows(ctx, tx, "price_put", rows, 4)
}

func scanOrder(r scanner, more ...any) (o Order, err error) {
	var lines string
	var placed int64
	var paid, cancelled sql.NullInt64
	var payment, reason sql.NullString
	err = r.Scan(append([]any{&o.No, &o.MemberID, &o.SellerID, &o.Total.Currency, &o.Total.Amount, &lines, &o.Status, &placed,
		&payment, &paid, &cancelled, &reason}, more...)...)
	if err != nil {
		return o, err
	}
	o.PlacedAt, o.PaidAt, o.CancelledAt = fromMillis(placed), fromNullMillis(paid), fromNullMillis(cancelled)
	o.PaymentID, o.CancelReason = payment.String, reason.String
	return o, json.Unmarshal([]byte(lines), &o.Lines)
}

func (o *Order) describe() string {
	if o.Status == statusCancelled && o.PaidAt != nil {
		return "cancelled and refunded"
	}
	return o.Status
}

func (p *Placement) check() error {
	var f findings
	f.id("memberId", p.MemberID)
	f.unless(len(p.Lines) >= 1 && len(p.Lines) <= linesMax, "lines", "has %d lines: from 1 to %d", len(p.Lines), linesMax)
	if len(f) > 0 {
		return f.problem()
	}
	for i, l := range p.Lines {
		f.id(fmt.Sprintf("lines[%d].productId", i), l.ProductID)
		f.unless(l.Quantity >= 1 && l.Quantity <= quantityMax, fmt.Sprintf("lines[%d].quantity", i),
			"is %d: from 1 to %d", l.Quantity, quantityMax)
	}
	return f.problem()
}

// hash tells requests apart; white space and the order of JSON's members do not count.
func (p *Placement) hash() string {
	data, _ := json.Marshal(p) // strings and integers always encode
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// crockford is a base 32 whose digits are in ASCII order and hard to misread (Douglas Crockford).
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// newOrderNo makes an order number of 20 letters and digits: 48 bits of milliseconds, so that numbers grow with time and a
// page of the index fills before the next begins, and 48 of chance; the primary key refuses a number that exists.
func newOrderNo() (string, error) {
	var b [12]byte
	ms := time.Now().UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	if _, err := rand.Read(b[6:]); err != nil {
		return "", err
	}
	return crockford.EncodeToString(b[:]), nil
}
