package shop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// journey is what happens to one order of a load.
type journey struct {
	*loader
	random *rand.Rand
	n      int64
}

// travel places an order and lets it be paid, most of the time; then, for some, whatever can happen to orders.
func (j *journey) travel(ctx context.Context) {
	j.aside(ctx)
	member := fmt.Sprintf("member-%d", j.random.IntN(loadMembers))
	p := placement(member, productID(j.random.IntN(loadProducts)), 1+j.random.Int64N(3))
	key := fmt.Sprintf("%s-%d", j.run, j.n)
	var o Order
	if code := j.call(ctx, http.MethodPost, "/orders", key, p, &o); code != http.StatusCreated {
		j.unless(ctx, code == 0, "placing an order: status %d", code)
		return
	}
	j.placed.Add(1)
	chance := j.random.Float64()
	if chance < 0.02 { // a client that has not heard the answer
		var again Order
		code := j.call(ctx, http.MethodPost, "/orders", key, p, &again)
		j.unless(ctx, code == 0 || code == http.StatusCreated && again.No == o.No,
			"order %s placed again with its key: status %d, order %s", o.No, code, again.No)
	}
	switch chance = j.random.Float64(); {
	case chance < 0.02: // thought better of it
		j.cancel(ctx, &o)
	case chance < 0.04: // forgot to pay
	case chance < 0.07:
		j.payTwice(ctx, &o)
	case chance < 0.10:
		j.payAgainstCancel(ctx, &o)
	default:
		if j.pay(ctx, &o, "first") == http.StatusOK {
			j.paid.Add(1)
		}
		if chance < 0.20 {
			j.cancel(ctx, &o)
		}
	}
	if ctx.Err() == nil && o.Status != "" {
		j.sample(j.random, o)
	}
}

// pay sends a payment; o becomes what is answered.
func (j *journey) pay(ctx context.Context, o *Order, which string) int {
	p := Payment{ID: fmt.Sprintf("pay-%s-%d-%s", j.run, j.n, which), Amount: o.Total}
	begin := time.Now()
	code := j.call(ctx, http.MethodPost, "/orders/"+o.No+"/payment", "", p, o)
	switch code {
	case http.StatusOK:
		j.paying.note(time.Since(begin))
		j.unless(ctx, o.PaymentID == p.ID, "payment %s of order %s was answered as payment %s", p.ID, o.No, o.PaymentID)
	case http.StatusConflict:
		j.refused.Add(1)
	case 0:
		o.Status = "" // nothing is known
	default:
		j.unless(ctx, false, "paying order %s: status %d", o.No, code)
	}
	return code
}

func (j *journey) cancel(ctx context.Context, o *Order) {
	code := j.call(ctx, http.MethodPost, "/orders/"+o.No+"/cancellation", "", Cancellation{Reason: "changed my mind"}, o)
	if code == http.StatusOK && o.Status == statusCancelled {
		j.cancelled.Add(1)
		return
	}
	o.Status = "" // nothing is known
	j.unless(ctx, code == 0, "cancelling order %s: status %d", o.No, code)
}

// payTwice lets two payments meet: one wins, the other is refused.
func (j *journey) payTwice(ctx context.Context, o *Order) {
	a, b := *o, *o
	a.Lines, b.Lines = nil, nil // or both would be decoded into one array
	var first, second int
	var both sync.WaitGroup
	both.Go(func() { first = j.pay(ctx, &a, "first") })
	both.Go(func() { second = j.pay(ctx, &b, "second") })
	both.Wait()
	if first == 0 || second == 0 {
		o.Status = ""
		return
	}
	if *o = a; second == http.StatusOK {
		*o = b
	}
	j.unless(ctx, first+second == http.StatusOK+http.StatusConflict,
		"two payments of order %s: statuses %d and %d", o.No, first, second)
	j.paid.Add(1)
}

// payAgainstCancel lets a payment meet a cancellation: the order ends cancelled, and paid or not as the payment was told.
func (j *journey) payAgainstCancel(ctx context.Context, o *Order) {
	a, b := *o, *o
	a.Lines, b.Lines = nil, nil // or both would be decoded into one array
	var payment int
	var both sync.WaitGroup
	both.Go(func() { payment = j.pay(ctx, &a, "first") })
	both.Go(func() { j.cancel(ctx, &b) })
	both.Wait()
	if payment == 0 || b.Status == "" {
		o.Status = ""
		return
	}
	*o = b
	if payment == http.StatusOK {
		j.paid.Add(1)
	}
	j.unless(ctx, (payment == http.StatusOK) == (b.PaidAt != nil),
		"payment of order %s was answered %d, and its cancellation says paid at %v", o.No, payment, b.PaidAt)
}

// aside does now and then what is not about orders.
func (j *journey) aside(ctx context.Context) {
	chance := j.random.Float64()
	product := j.random.IntN(loadProducts)
	member := fmt.Sprintf("member-%d", j.random.IntN(loadMembers))
	method := http.MethodPost
	var body any
	var path string
	switch {
	case chance < 0.010:
		method, path = http.MethodPut, "/members/"+member+"/profile"
		body = Profile{Name: fmt.Sprintf("Minji %d", j.n), Email: member + "@example.com"}
	case chance < 0.015:
		method, path = http.MethodPut, "/products/"+productID(product)+"/price"
		body = pricing(product, 1+j.random.Int64N(3))
	case chance < 0.025:
		path, body = "/products/"+productID(product)+"/restock-alerts", AlertRequest{MemberID: member}
		if code := j.call(ctx, method, path, "", body, nil); code == 0 { // and once more below: it makes no difference
			return
		}
	case chance < 0.028:
		path, body = "/products/"+productID(product)+"/restock", Restocking{Quantity: 10}
	default:
		return
	}
	code := j.call(ctx, method, path, "", body, nil)
	j.unless(ctx, code == 0 || code/100 == 2, "%s %s: status %d", method, path, code)
}

// unless complains unless all is well, or the load was broken off.
func (j *journey) unless(ctx context.Context, well bool, format string, args ...any) {
	if !well && ctx.Err() == nil {
		j.complain(format, args...)
	}
}

func placement(member, product string, quantity int64) (p Placement) {
	p.MemberID = member
	p.Lines = append(p.Lines, struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	}{product, quantity})
	return p
}
