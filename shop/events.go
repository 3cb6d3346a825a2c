package shop

import (
	"time"

	"github.com/pabal-go/pabal"
)

// The events of the shop. Their names and fields are read by other services, in any language: fields are added, never
// changed. Times are UTC.
var (
	// OrderPlaced has no key: there is one per order, and nothing that it must keep order with.
	OrderPlaced = pabal.Define[Placed]("order-placed")

	// OrderPaid and OrderCancelled share a topic, so that a consumer sees them in the order in which they happened (P5).
	OrderPaid      = pabal.Define("order-pay-done", pabal.Key(func(e Paid) string { return e.OrderNo }))
	OrderCancelled = pabal.Define("order-cancelled",
		pabal.Key(func(e Cancelled) string { return e.OrderNo })).On("order-pay-done")

	MemberProfileChanged = pabal.Define("member-profile-changed",
		pabal.Key(func(e ProfileChanged) string { return e.MemberID }))
	ProductPriceChanged = pabal.Define("product-price-changed",
		pabal.Key(func(e PriceChanged) string { return e.ProductID }))

	// RestockAlertRequested and ProductRestocked share a topic: who asked before a restock is told of it, who asks after
	// it waits for the next.
	RestockAlertRequested = pabal.Define("restock-alert-requested",
		pabal.Key(func(e AlertRequested) string { return e.ProductID })).On("product-stock")
	ProductRestocked = pabal.Define("product-restocked",
		pabal.Key(func(e Restocked) string { return e.ProductID })).On("product-stock")
)

// Placed is the payload of [OrderPlaced].
type Placed struct {
	OrderNo  string    `json:"orderNo"`
	MemberID string    `json:"memberId"`
	SellerID string    `json:"sellerId"`
	Total    Money     `json:"total"`
	Lines    []Line    `json:"lines"`
	PlacedAt time.Time `json:"placedAt"`
}

// Paid is the payload of [OrderPaid]. It says everything that is needed to settle the order, so that nobody has to ask.
type Paid struct {
	OrderNo   string    `json:"orderNo"`
	MemberID  string    `json:"memberId"`
	SellerID  string    `json:"sellerId"`
	Total     Money     `json:"total"`
	PaymentID string    `json:"paymentId"`
	PaidAt    time.Time `json:"paidAt"`
}

// Cancelled is the payload of [OrderCancelled]. Paid says whether there is something to refund.
type Cancelled struct {
	OrderNo     string    `json:"orderNo"`
	MemberID    string    `json:"memberId"`
	SellerID    string    `json:"sellerId"`
	Total       Money     `json:"total"`
	Paid        bool      `json:"paid"`
	Reason      string    `json:"reason,omitempty"`
	CancelledAt time.Time `json:"cancelledAt"`
}

// ProfileChanged is the payload of [MemberProfileChanged]: the profile as it is now.
type ProfileChanged struct {
	MemberID  string    `json:"memberId"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	ChangedAt time.Time `json:"changedAt"`
}

// PriceChanged is the payload of [ProductPriceChanged]: the product as it is offered now.
type PriceChanged struct {
	ProductID string    `json:"productId"`
	SellerID  string    `json:"sellerId"`
	Name      string    `json:"name"`
	Price     Money     `json:"price"`
	ChangedAt time.Time `json:"changedAt"`
}

// AlertRequested is the payload of [RestockAlertRequested].
type AlertRequested struct {
	ProductID   string    `json:"productId"`
	MemberID    string    `json:"memberId"`
	RequestedAt time.Time `json:"requestedAt"`
}

// Restocked is the payload of [ProductRestocked].
type Restocked struct {
	ProductID   string    `json:"productId"`
	Name        string    `json:"name"`
	Quantity    int64     `json:"quantity"` // that arrived
	RestockedAt time.Time `json:"restockedAt"`
}
