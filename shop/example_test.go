package shop_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"strings"

	"github.com/pabal-go/pabal/shop"
)

// The services themselves need a database: their examples are those of the directory examples/market.

// What must be at the broker before a role runs there, for whoever makes it: Topology says it as data.
func ExampleTopology() {
	for _, q := range shop.Topology("settlement", "member").Queues {
		fmt.Println(q.Name, q.Topics)
	}
	fmt.Println(len(shop.Topology().Queues), "queues of", shop.Roles())
	// Output:
	// event-record-settlement []
	// settlement [order-pay-done]
	// event-record-member [member-profile-changed]
	// 8 queues of [order member product notification settlement]
}

// Sums are of whole minor units, and of one currency.
func ExampleMoney() {
	tea := shop.Money{Amount: 1250, Currency: "USD"}
	three, err := tea.Times(3)
	fmt.Println(three, err)
	sum, err := three.Plus(tea)
	fmt.Println(sum, err)
	_, err = sum.Plus(shop.Money{Amount: 12000, Currency: "KRW"})
	fmt.Println(err)
	fmt.Println(shop.Money{Amount: 100, Currency: "XXX"}.Check())
	// Output:
	// 37.50 USD <nil>
	// 50.00 USD <nil>
	// USD and KRW do not add up
	// currency "XXX" is not an ISO 4217 code
}

func ExampleDeliverByLog() {
	untimed := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: untimed}))
	deliver := shop.DeliverByLog(log, slog.LevelInfo) // for shop.Options.Delivery
	_ = deliver(context.Background(), shop.Message{EventID: "0192", Kind: "paid", MemberID: "m1", Body: "Thank you"})
	// Output: level=INFO msg=message event_id=0192 kind=paid member=m1 body="Thank you"
}

// The receiver knows a message that it has had by the event's id. What it refuses is not sent again.
func ExampleDeliverByWebhook() {
	had := map[string]bool{}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		body, _ := io.ReadAll(r.Body)
		switch {
		case had[key]:
			fmt.Println("had it:", key)
		case strings.Contains(string(body), `"memberId":"nobody"`):
			w.WriteHeader(http.StatusNotFound)
		default:
			fmt.Println(key, string(body))
		}
		had[key] = true
	}))
	defer receiver.Close()
	deliver := shop.DeliverByWebhook(receiver.URL, receiver.Client())
	for range 2 {
		_ = deliver(context.Background(), shop.Message{EventID: "0192", Kind: "paid", MemberID: "m1", Subject: "A1", Body: "Thank you"})
	}
	err := deliver(context.Background(), shop.Message{EventID: "0193", MemberID: "nobody"})
	fmt.Println(errors.Is(err, shop.ErrUndeliverable), err)
	// Output:
	// "0192" {"body":"Thank you","eventId":"0192","kind":"paid","memberId":"m1","subject":"A1"}
	// had it: "0192"
	// true undeliverable: webhook answered 404 Not Found
}

// A member whose address has not come yet is tried again later; a server that refuses is not.
func ExampleDeliverByMail() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close() //nolint:errcheck // of an example
	go refuseMail(listener)

	deliver, err := shop.DeliverByMail(shop.Mail{Addr: listener.Addr().String(), From: "shop@example.com"})
	if err != nil {
		panic(err)
	}
	m := shop.Message{EventID: "0192", Kind: "paid", MemberID: "m1", Subject: "A1", Body: "Thank you"}
	err = deliver(context.Background(), m)
	fmt.Println(errors.Is(err, shop.ErrUndeliverable), err)
	m.To.Name, m.To.Email = "Minji", "minji@example.com"
	err = deliver(context.Background(), m)
	fmt.Println(errors.Is(err, shop.ErrUndeliverable), err)
	// Output:
	// false no mail address of member m1 is known yet
	// true undeliverable: 550 "no such mailbox"
}

// refuseMail is a mail server without mailboxes.
func refuseMail(listener net.Listener) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // of an example
	say := func(line string) { _, _ = fmt.Fprint(conn, line, "\r\n") }
	say("220 mail.example.com")
	in := textproto.NewReader(bufio.NewReader(conn))
	for {
		line, err := in.ReadLine()
		switch {
		case err != nil:
			return
		case strings.HasPrefix(line, "RCPT"):
			say("550 no such mailbox")
		default:
			say("250 OK")
		}
	}
}

// A benchmark of the order service alone tells it the prices itself, which a Load orders at.
func ExampleLoadPrices() {
	prices := shop.LoadPrices()
	fmt.Println(len(prices), prices[0].Name, prices[0].Price)
	// Output: 40 Tea no. 0 100 KRW
}
