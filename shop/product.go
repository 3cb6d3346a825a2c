package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Product is a product as the product service keeps it.
type Product struct {
	ID        string    `json:"id"`
	SellerID  string    `json:"sellerId"`
	Name      string    `json:"name"`
	Price     Money     `json:"price"`
	Stock     int64     `json:"stock"`   // arrived so far; the shop reserves none
	Waiting   int64     `json:"waiting"` // members who wait for a restock
	ChangedAt time.Time `json:"changedAt"`
}

// Pricing is a request to offer a product at a price.
type Pricing struct {
	SellerID string `json:"sellerId"`
	Name     string `json:"name"`
	Price    Money  `json:"price"`
}

// Restocking says that so many pieces of a product arrived.
type Restocking struct {
	Quantity int64 `json:"quantity"`
}

// AlertRequest says who wants to hear of the next restock.
type AlertRequest struct {
	MemberID string `json:"memberId"`
}

// Alert is a member's wish to hear of a product's next restock.
type Alert struct {
	ProductID string `json:"productId"`
	MemberID  string `json:"memberId"`
}

// Products is the product service. All methods are safe for concurrent use.
type Products struct {
	base
}

// OpenProducts opens the product service on its database.
func OpenProducts(ctx context.Context, db *sql.DB, rec Recorder, o *Options) (*Products, error) {
	b, err := open(ctx, "product", db, rec, o)
	return &Products{b}, err
}

// ChangePrice offers a product at a price; created says that it is new. A price that stays as it was is no event.
func (s *Products) ChangePrice(ctx context.Context, id string, p Pricing) (product *Product, created bool, err error) {
	var f findings
	f.id("id", id)
	f.id("sellerId", p.SellerID)
	f.unless(p.Name != "", "name", "is empty")
	f.text("name", p.Name, nameMax)
	f.money("price", p.Price)
	if err := f.problem(); err != nil {
		return nil, false, err
	}
	old, err := s.Get(ctx, id)
	if err != nil && !isProblem(err) {
		return nil, false, err
	}
	created = old == nil
	if !created && old.SellerID != p.SellerID {
		return nil, false, refuse(otherSeller, "product %s is of seller %s", id, old.SellerID)
	}
	at := now()
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		var n int64
		var err error
		name, price := p.Name, p.Price
		if created {
			n, err = s.exec(ctx, tx, "product_insert", id, p.SellerID, name, price.Currency, price.Amount, at.UnixMilli())
		} else {
			n, err = s.exec(ctx, tx, "product_price", name, price.Currency, price.Amount, at.UnixMilli(),
				id, p.SellerID, name, price.Currency, price.Amount)
		}
		if err != nil || n == 0 {
			return err
		}
		return s.rec.Record(ctx, tx, ProductPriceChanged.New(PriceChanged{ProductID: id, SellerID: p.SellerID, Name: name,
			Price: price, ChangedAt: at}))
	})
	product, read := s.Get(ctx, id)
	if err != nil && created && read == nil { // another request was the first
		return s.ChangePrice(ctx, id, p)
	}
	if err != nil {
		return nil, false, fmt.Errorf("change price of product %s: %w", id, err)
	}
	return product, created, read
}

// Restock notes that pieces arrived. All who asked hear of it, once; who asks from now on waits for the next time.
//
// The row of the product is changed first, here and in RequestAlert, so that the two wait for each other, and the order of
// their events is the order in which they found the requests.
func (s *Products) Restock(ctx context.Context, id string, r Restocking) (*Product, error) {
	var f findings
	f.unless(r.Quantity >= 1 && r.Quantity <= 1_000_000, "quantity", "is %d: from 1 to 1000000", r.Quantity)
	if err := f.problem(); err != nil {
		return nil, err
	}
	at := now()
	var product *Product
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.touch(ctx, tx, "product_restock", id, r.Quantity, id); err != nil {
			return err
		}
		if _, err := s.exec(ctx, tx, "requests_delete", id); err != nil {
			return err
		}
		var err error
		if product, err = s.get(ctx, tx, id); err != nil {
			return err
		}
		return s.rec.Record(ctx, tx, ProductRestocked.New(Restocked{ProductID: id, Name: product.Name, Quantity: r.Quantity,
			RestockedAt: at}))
	})
	if err != nil && !isProblem(err) {
		err = fmt.Errorf("restock product %s: %w", id, err)
	}
	return product, err
}

var errWaits = errors.New("waits already")

// RequestAlert notes that a member wants to hear of the next restock; created is false if he had asked already.
func (s *Products) RequestAlert(ctx context.Context, id string, r AlertRequest) (alert *Alert, created bool, err error) {
	var f findings
	f.id("memberId", r.MemberID)
	if err := f.problem(); err != nil {
		return nil, false, err
	}
	at := now()
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.touch(ctx, tx, "product_wait", id, id); err != nil {
			return err
		}
		var n int
		if err := s.row(ctx, tx, "request_exists", id, r.MemberID).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return errWaits // rolls back
		}
		if _, err := s.exec(ctx, tx, "request_insert", id, r.MemberID, at.UnixMilli()); err != nil {
			return err
		}
		return s.rec.Record(ctx, tx, RestockAlertRequested.New(AlertRequested{ProductID: id, MemberID: r.MemberID,
			RequestedAt: at}))
	})
	switch {
	case err == nil || errors.Is(err, errWaits):
		return &Alert{ProductID: id, MemberID: r.MemberID}, err == nil, nil
	case isProblem(err):
		return nil, false, err
	}
	return nil, false, fmt.Errorf("request alert of product %s: %w", id, err)
}

// touch changes, and so locks, the row of a product.
func (s *Products) touch(ctx context.Context, tx *sql.Tx, name, id string, args ...any) error {
	n, err := s.exec(ctx, tx, name, args...)
	if err == nil && n == 0 {
		return refuse(notFound, "product %q", id)
	}
	return err
}

// Get answers a product.
func (s *Products) Get(ctx context.Context, id string) (*Product, error) { return s.get(ctx, nil, id) }

func (s *Products) get(ctx context.Context, tx *sql.Tx, id string) (*Product, error) {
	p := &Product{ID: id}
	var changed int64
	err := s.row(ctx, tx, "product_get", id).
		Scan(&p.SellerID, &p.Name, &p.Price.Currency, &p.Price.Amount, &p.Stock, &p.Waiting, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(notFound, "product %q", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read product %s: %w", id, err)
	}
	p.ChangedAt = fromMillis(changed)
	return p, nil
}
