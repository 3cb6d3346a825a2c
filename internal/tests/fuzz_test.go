package tests

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pabal-go/pabal/shop"
)

// FuzzHTTP mounts every service: whatever a request holds, the shop answers it with JSON and never with a fault of its own.
func FuzzHTTP(f *testing.F) {
	for _, c := range [][4]string{
		{"POST", "/orders", "k1", teaFor}, {"POST", "/orders", "a b", "{"}, {"GET", "/orders", "", ""},
		{"GET", "/orders?limit=x&after=%zz", "", ""}, {"POST", "/orders/A1/payment", "", `{"paymentId":"p","amount":{"amount":1,"currency":"KRW"}}`},
		{"POST", "/orders/%00/cancellation", "", ""}, {"PUT", "/orders", "", "[1e999]"},
		{"PUT", "/members/m1/profile", "", `{"name":"Minji","email":"minji@example.com"}`}, {"GET", "/members/%2e%2e", "", ""},
		{"PUT", "/products/tea/price", "", `{"sellerId":"a","name":"Tea","price":{"amount":-1,"currency":"KRW"}}`},
		{"POST", "/products/tea/restock", "", `{"quantity":9223372036854775807}`}, {"POST", "/products/tea/restock-alerts", "", `{"memberId":"m"}`},
		{"GET", "/settlements?seller=a&day=2026-02-30", "", ""}, {"GET", "/settlements/ledger/A1", "", ""},
		{"GET", "/notifications?subject=A1&member=m&before=%00&limit=1", "", ""}, {"GET", "/problems/invalid", "", ""},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	orders, _ := openOrders(f)
	members, _ := opened[*shop.Members](f, "member", shop.Options{})
	products, _ := opened[*shop.Products](f, "product", shop.Options{})
	settlements, _ := opened[*shop.Settlements](f, "settlement", shop.Options{})
	notifications, _ := opened[*shop.Notifications](f, "notification", shop.Options{})
	h := shop.Handler(orders, members, products, settlements, notifications)
	f.Fuzz(func(t *testing.T, method, target, key, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://shop"+target, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(target, "/") {
			return // no request
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header["Idempotency-Key"] = []string{key}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		answer, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code >= 500 {
			t.Fatalf("%s %q %q answers %d %s", method, target, body, w.Code, answer)
		}
		if strings.Contains(w.Header().Get("Content-Type"), "json") && !json.Valid(answer) {
			t.Fatalf("%s %q %q answers %s", method, target, body, answer)
		}
	})
}
