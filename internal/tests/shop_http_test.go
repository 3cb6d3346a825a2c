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

// request sends a request to a handler; header is "Name: value", "" for the content type alone.
func request(t *testing.T, h http.Handler, method, path, header, body string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	data, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(data)
}

const teaFor = `{"memberId":"m","lines":[{"productId":"tea","quantity":2}]}`

func TestEndpointsAnswerWithTheRightStatus(t *testing.T) {
	orders, _ := openOrders(t)
	members, _ := opened[*shop.Members](t, "member", shop.Options{})
	products, _ := opened[*shop.Products](t, "product", shop.Options{})
	settlements, _ := opened[*shop.Settlements](t, "settlement", shop.Options{})
	notifications, _ := opened[*shop.Notifications](t, "notification", shop.Options{})
	h := shop.Handler(orders, members, products, settlements, notifications)
	placed := place(t, orders)
	order, next := "/orders/"+placed.No, "/orders/"+place(t, orders).No
	payment := `{"paymentId":"p1","amount":{"amount":200,"currency":"KRW"}}`
	other := `{"paymentId":"p2","amount":{"amount":200,"currency":"KRW"}}`
	price := `{"sellerId":"a","name":"Tea","price":{"amount":100,"currency":"KRW"}}`
	for _, c := range []struct {
		method, path, header, body string
		status                     int
		want                       string // in the body
	}{
		{"POST", "/orders", "Idempotency-Key: k1", teaFor, 201, `"total":{"amount":200,"currency":"KRW"}`},
		{"POST", "/orders", `Idempotency-Key: "k1"`, " " + teaFor, 201, `"status":"placed"`},
		{"POST", "/orders", "Idempotency-Key: k1", strings.Replace(teaFor, "2", "3", 1), 422, "idempotency-key-reused"},
		{"POST", "/orders", "Idempotency-Key: a b", teaFor, 400, "printable"},
		{"POST", "/orders", "Content-Type: text/plain", teaFor, 415, "media-type"},
		{"POST", "/orders", "", "", 400, "the body is empty"},
		{"POST", "/orders", "", "{", 400, "malformed"},
		{"POST", "/orders", "", teaFor + teaFor, 400, "more than one JSON value"},
		{"POST", "/orders", "", `{"memberId":"m","colour":"red"}`, 400, "colour"},
		{"POST", "/orders", "", `{"memberId":7}`, 422, `"field":"memberId"`},
		{"POST", "/orders", "", strings.Replace(teaFor, "2", "2.5", 1), 422, `quantity"`},
		{"POST", "/orders", "", `{"memberId":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "too-large"},
		{"POST", "/orders", "", strings.Replace(teaFor, "tea", "sock", 1), 422, "unknown-product"},
		{"POST", order + "/payment", "", payment, 200, `"status":"paid"`},
		{"POST", order + "/payment", "", payment, 200, `"paymentId":"p1"`},
		{"POST", order + "/payment", "", other, 409, "order-state"},
		{"POST", order + "/payment", "", `{"paymentId":"p2"}`, 422, "amount"},
		{"POST", "/orders/none/payment", "", payment, 404, "not-found"},
		{"POST", order + "/cancellation", "", `{"reason":"too late"}`, 200, `"status":"cancelled"`},
		{"POST", order + "/payment", "", other, 409, "cancelled and refunded"},
		{"POST", next + "/cancellation", "", "", 200, `"status":"cancelled"`},
		{"POST", next + "/payment", "", payment, 409, "order-state"},
		{"GET", order, "", "", 200, `"cancelReason":"too late"`},
		{"GET", "/orders/none", "", "", 404, "not-found"},
		{"GET", "/orders?limit=1", "", "", 200, `"next":"/orders?before=`},
		{"GET", "/orders?member=nobody", "", "", 200, `{"items":[]}`},
		{"GET", "/orders?limit=0", "", "", 422, "limit"},
		{"GET", "/orders?colour=red", "", "", 422, "colour"},
		{"PATCH", "/orders", "", "", 405, "/problems/method"},
		{"GET", "/nothing", "", "", 404, "/problems/not-found"},
		{"GET", "/problems/order-state", "", "", 200, "409 order is not in a state for that"},
		{"GET", "/problems/none", "", "", 404, "not-found"},
		{"PUT", "/members/m1/profile", "", `{"name":"Minji","email":"minji@example.com"}`, 201, `"id":"m1"`},
		{"PUT", "/members/m1/profile", "", `{"name":"Minji","email":"minji@example.com"}`, 200, `"id":"m1"`},
		{"PUT", "/members/m1/profile", "", `{"name":"Minji","email":"minji"}`, 422, `"field":"email"`},
		{"PUT", "/members/-/profile", "", `{"name":"Minji","email":"minji@example.com"}`, 422, `"field":"id"`},
		{"GET", "/members/m1", "", "", 200, "Minji"},
		{"GET", "/members/m2", "", "", 404, "not-found"},
		{"PUT", "/products/tea/price", "", price, 201, `"amount":100`},
		{"PUT", "/products/tea/price", "", strings.Replace(price, `"a"`, `"b"`, 1), 409, "other-seller"},
		{"PUT", "/products/tea/price", "", strings.Replace(price, "KRW", "XXX", 1), 422, "ISO 4217"},
		{"POST", "/products/tea/restock-alerts", "", `{"memberId":"m"}`, 201, `"memberId":"m"`},
		{"POST", "/products/tea/restock-alerts", "", `{"memberId":"m"}`, 200, `"memberId":"m"`},
		{"POST", "/products/tea/restock", "", `{"quantity":3}`, 200, `"stock":3`},
		{"POST", "/products/sock/restock", "", `{"quantity":3}`, 404, "not-found"},
		{"GET", "/products/tea", "", "", 200, `"name":"Tea"`},
		{"GET", "/settlements?seller=a&day=2026-03-01", "", "", 200, `{"items":[]}`},
		{"GET", "/settlements?seller=a", "", "", 422, `"field":"day"`},
		{"GET", "/settlements/ledger/none", "", "", 404, "not-found"},
		{"GET", "/notifications?member=m", "", "", 200, `{"items":[]}`},
	} {
		answer, body := request(t, h, c.method, c.path, c.header, c.body)
		if answer.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.60s: %d %s, want %d with %s", c.method, c.path, c.body, answer.StatusCode, body, c.status, c.want)
		}
		if c.status >= 400 {
			var p shop.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != c.status || p.Type == "" || p.Title == "" ||
				answer.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s: no problem detail: %s %s", c.method, c.path, answer.Header.Get("Content-Type"), body)
			}
		}
	}
}

func TestAnswersSayWhereTheThingIs(t *testing.T) {
	orders, _ := openOrders(t)
	h := shop.Handler(orders)
	answer, body := request(t, h, "POST", "/orders", "", teaFor)
	location := answer.Header.Get("Location")
	if _, got := request(t, h, "GET", location, "", ""); got != body || location == "" {
		t.Errorf("at %q is %s, not %s", location, got, body)
	}
	place(t, orders)
	answer, _ = request(t, h, "GET", "/orders?limit=1&member=m", "", "")
	link := answer.Header.Get("Link")
	path, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if _, got := request(t, h, "GET", path, "", ""); !ok || !strings.Contains(got, location[len("/orders/"):]) {
		t.Errorf("link %q leads to %s", link, got)
	}
	answer, _ = request(t, h, "DELETE", "/orders", "", "")
	if allow := answer.Header.Get("Allow"); answer.StatusCode != 405 || !strings.Contains(allow, "POST") {
		t.Errorf("DELETE: %d, Allow %q", answer.StatusCode, allow)
	}
}
