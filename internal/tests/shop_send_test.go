package tests

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal/shop"
)

// eventually polls until ok, for ten seconds at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("not within 10 s: " + what)
		}
	}
}

// sending runs the sender of a notification service that has a message about each order.
func sending(t *testing.T, delivery shop.Delivery, orders ...string) *shop.Notifications {
	t.Helper()
	notifications, s := opened[*shop.Notifications](t, "notification", shop.Options{Delivery: delivery})
	s.inTx(t, func(tx *sql.Tx) error {
		profile := shop.ProfileChanged{MemberID: "m", Name: "Kim\r\nBcc: x@example.com", Email: "minji@example.com"}
		return notifications.ProfileChanged(t.Context(), tx, received(profile))
	})
	var run sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	run.Go(func() { _ = notifications.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	for _, no := range orders {
		s.inTx(t, func(tx *sql.Tx) error { return notifications.Paid(t.Context(), tx, received(paid(no, "a", 1200))) })
	}
	return notifications
}

// state lists a member's messages as "order state attempts".
func state(t *testing.T, n *shop.Notifications) string {
	t.Helper()
	messages, err := n.List(t.Context(), "m", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range messages {
		all = append(all, fmt.Sprintf("%s %s %d", m.Subject, m.State, m.Attempts))
	}
	return strings.Join(all, ", ")
}

func TestWebhookGetsEachMessageWithItsEventAsKey(t *testing.T) {
	var mu sync.Mutex
	calls, keys := map[string]int{}, map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line, _ := bufio.NewReader(r.Body).ReadString('\n')
		_, no, _ := strings.Cut(line, `"subject":"`)
		no, _, _ = strings.Cut(no, `"`)
		mu.Lock()
		defer mu.Unlock()
		calls[no]++
		if was := keys[no]; was != "" && was != r.Header.Get("Idempotency-Key") {
			t.Errorf("order %s: key %s, then %s", no, was, r.Header.Get("Idempotency-Key"))
		}
		keys[no] = r.Header.Get("Idempotency-Key")
		switch {
		case no == "slow" && calls[no] == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case no == "bad":
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer server.Close()
	n := sending(t, shop.DeliverByWebhook(server.URL, server.Client()), "good", "slow", "bad")
	eventually(t, "all three are delivered or given up", func() bool {
		return state(t, n) == "bad failed 1, slow sent 2, good sent 1"
	})
	mu.Lock()
	defer mu.Unlock()
	if len(keys["good"]) != 38 || keys["good"] == keys["slow"] {
		t.Errorf("keys are %v", keys)
	}
}

func TestMessageThatFailsIsTriedAgainLater(t *testing.T) {
	tried := make(chan struct{}, 1)
	n := sending(t, func(context.Context, shop.Message) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return errors.New("no line")
	}, "o1")
	<-tried
	eventually(t, "the failure is recorded", func() bool {
		messages, err := n.List(t.Context(), "", "o1", "", 1)
		return err == nil && len(messages) == 1 && messages[0].LastError == "no line" && messages[0].State == "waiting"
	})
}

func TestMailCarriesItsEventAndNoForeignHeader(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	mails := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		mails <- receiveMail(conn)
	}()
	delivery, err := shop.DeliverByMail(shop.Mail{Addr: listener.Addr().String(), From: "shop@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	n := sending(t, delivery, "o1")
	mail := <-mails
	eventually(t, "it is recorded as sent", func() bool { return state(t, n) == "o1 sent 1" })
	messages, err := n.List(t.Context(), "", "o1", "", 1)
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	for _, want := range []string{"Message-ID: <" + messages[0].EventID + "@example.com>\r\n", "<minji@example.com>\r\n",
		"\r\n\r\nWe received 1200 KRW for your order o1. Thank you!\r\n"} {
		if !strings.Contains(mail, want) {
			t.Errorf("mail has no %q:\n%s", want, mail)
		}
	}
	if strings.Contains(mail, "\nBcc:") {
		t.Errorf("a name made a header:\n%s", mail)
	}
	for _, bad := range []shop.Mail{{Addr: "localhost", From: "a@b"}, {Addr: "localhost:25", From: "nobody"}} {
		if _, err := shop.DeliverByMail(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// receiveMail is the least that an SMTP server says (RFC 5321); it answers the text of the mail.
func receiveMail(conn net.Conn) string {
	lines := bufio.NewReader(conn)
	say := func(s string) { _, _ = fmt.Fprintf(conn, "%s\r\n", s) }
	say("220 ready")
	var text strings.Builder
	for data := false; ; {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			return text.String()
		case data && line == ".\r\n":
			data = false
			say("250 taken")
		case data:
			text.WriteString(line)
		case strings.HasPrefix(line, "DATA"):
			data = true
			say("354 go on")
		case strings.HasPrefix(line, "QUIT"):
			say("221 bye")
			return text.String()
		default:
			say("250 ok")
		}
	}
}
