package shop

import (
	"context"
	"net/http"
)

// list is the body of an answer that lists things, a page at a time.
type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // address of the next page
}

func listed[T any](items []T, link string) answer {
	return answer{link: link, body: list[T]{items, link}}
}

// createdAt answers 201 and where the thing is, or 200 for one that was there.
func createdAt(created bool, location string, body any) answer {
	if created {
		return answer{status: http.StatusCreated, location: location, body: body}
	}
	return answer{body: body}
}

// Mount registers:
//
//	POST /orders                       place; header Idempotency-Key
//	POST /orders/{no}/payment          pay
//	POST /orders/{no}/cancellation     cancel
//	GET  /orders/{no}
//	GET  /orders?member=&before=&limit=
func (s *Orders) Mount(mux *http.ServeMux) {
	s.serve(mux, "POST /orders", func(ctx context.Context, r *http.Request) (answer, error) {
		key, err := idempotencyKey(r)
		if err != nil {
			return answer{}, err
		}
		p, err := decode[Placement](r)
		if err != nil {
			return answer{}, err
		}
		o, err := s.Place(ctx, p, key)
		if err != nil {
			return answer{}, err
		}
		return createdAt(true, "/orders/"+o.No, o), nil
	})
	s.serve(mux, "POST /orders/{no}/payment", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := decode[Payment](r)
		if err != nil {
			return answer{}, err
		}
		o, err := s.Pay(ctx, r.PathValue("no"), p)
		return answer{body: o}, err
	})
	s.serve(mux, "POST /orders/{no}/cancellation", func(ctx context.Context, r *http.Request) (answer, error) {
		c, err := decodeOptional[Cancellation](r)
		if err != nil {
			return answer{}, err
		}
		o, err := s.Cancel(ctx, r.PathValue("no"), c)
		return answer{body: o}, err
	})
	s.serve(mux, "GET /orders/{no}", func(ctx context.Context, r *http.Request) (answer, error) {
		o, err := s.Get(ctx, r.PathValue("no"))
		return answer{body: o}, err
	})
	s.serve(mux, "GET /orders", func(ctx context.Context, r *http.Request) (answer, error) {
		q, limit, next, err := page(r, "member")
		if err != nil {
			return answer{}, err
		}
		orders, err := s.List(ctx, q.Get("member"), q.Get("before"), limit)
		if err != nil || len(orders) == 0 {
			return listed(orders, ""), err
		}
		return listed(orders, next(len(orders), orders[len(orders)-1].No)), nil
	})
}

// Mount registers:
//
//	PUT /members/{id}/profile          change
//	GET /members/{id}
func (s *Members) Mount(mux *http.ServeMux) {
	s.serve(mux, "PUT /members/{id}/profile", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := decode[Profile](r)
		if err != nil {
			return answer{}, err
		}
		m, created, err := s.ChangeProfile(ctx, r.PathValue("id"), p)
		return createdAt(created, "/members/"+r.PathValue("id"), m), err
	})
	s.serve(mux, "GET /members/{id}", func(ctx context.Context, r *http.Request) (answer, error) {
		m, err := s.Get(ctx, r.PathValue("id"))
		return answer{body: m}, err
	})
}

// Mount registers:
//
//	PUT  /products/{id}/price          offer at a price
//	POST /products/{id}/restock        pieces arrived
//	POST /products/{id}/restock-alerts who wants to hear of that
//	GET  /products/{id}
func (s *Products) Mount(mux *http.ServeMux) {
	s.serve(mux, "PUT /products/{id}/price", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := decode[Pricing](r)
		if err != nil {
			return answer{}, err
		}
		product, created, err := s.ChangePrice(ctx, r.PathValue("id"), p)
		return createdAt(created, "/products/"+r.PathValue("id"), product), err
	})
	s.serve(mux, "POST /products/{id}/restock", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := decode[Restocking](r)
		if err != nil {
			return answer{}, err
		}
		product, err := s.Restock(ctx, r.PathValue("id"), p)
		return answer{body: product}, err
	})
	s.serve(mux, "POST /products/{id}/restock-alerts", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := decode[AlertRequest](r)
		if err != nil {
			return answer{}, err
		}
		alert, created, err := s.RequestAlert(ctx, r.PathValue("id"), p)
		return createdAt(created, "", alert), err
	})
	s.serve(mux, "GET /products/{id}", func(ctx context.Context, r *http.Request) (answer, error) {
		p, err := s.Get(ctx, r.PathValue("id"))
		return answer{body: p}, err
	})
}

// Mount registers:
//
//	GET /settlements?seller=&day=      what a seller is owed for a day (YYYY-MM-DD, UTC), by currency
//	GET /settlements/ledger/{orderNo}  the entries of an order
func (s *Settlements) Mount(mux *http.ServeMux) {
	s.serve(mux, "GET /settlements", func(ctx context.Context, r *http.Request) (answer, error) {
		q := r.URL.Query()
		days, err := s.Day(ctx, q.Get("seller"), q.Get("day"))
		return listed(days, ""), err
	})
	s.serve(mux, "GET /settlements/ledger/{orderNo}", func(ctx context.Context, r *http.Request) (answer, error) {
		entries, err := s.Ledger(ctx, r.PathValue("orderNo"))
		return listed(entries, ""), err
	})
}

// Mount registers:
//
//	GET /notifications?subject=&member=&before=&limit=   of an order or a product, or of a member, or all
func (s *Notifications) Mount(mux *http.ServeMux) {
	s.serve(mux, "GET /notifications", func(ctx context.Context, r *http.Request) (answer, error) {
		q, limit, next, err := page(r, "subject", "member")
		if err != nil {
			return answer{}, err
		}
		messages, err := s.List(ctx, q.Get("member"), q.Get("subject"), q.Get("before"), limit)
		if err != nil || len(messages) == 0 {
			return listed(messages, ""), err
		}
		return listed(messages, next(len(messages), messages[len(messages)-1].EventID)), nil
	})
}
