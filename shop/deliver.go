package shop

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"strings"
)

// Delivery delivers one message to its member, within the context. It is called by several goroutines, and with the same
// message again if its outcome was not recorded: Message.EventID is the idempotency key. An error means that it is tried
// again later, unless it wraps ErrUndeliverable.
type Delivery func(ctx context.Context, m Message) error

// ErrUndeliverable says that no later try will do better.
var ErrUndeliverable = errors.New("undeliverable")

// DeliverByLog writes messages to the log.
func DeliverByLog(log *slog.Logger, level slog.Level) Delivery {
	return func(ctx context.Context, m Message) error {
		log.Log(ctx, level, "message", "event_id", m.EventID, "kind", m.Kind, "member", m.MemberID, "body", m.Body)
		return nil
	}
}

// DeliverByWebhook posts messages as JSON, with the header Idempotency-Key. Every answer 2xx counts as delivered; 408, 425, 429
// and 5xx are tried again, everything else is undeliverable. A nil client is http.DefaultClient.
func DeliverByWebhook(url string, client *http.Client) Delivery {
	if client == nil {
		client = http.DefaultClient
	}
	return func(ctx context.Context, m Message) error {
		body, err := json.Marshal(map[string]string{"eventId": m.EventID, "kind": m.Kind, "memberId": m.MemberID,
			"subject": m.Subject, "body": m.Body})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUndeliverable, err)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUndeliverable, err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", `"`+m.EventID+`"`)
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()                     // nothing is read from it any more
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)) // so that the connection can be used again
		switch code := answer.StatusCode; {
		case code >= 200 && code < 300:
			return nil
		case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
			return fmt.Errorf("webhook answered %s", answer.Status)
		default:
			return fmt.Errorf("%w: webhook answered %s", ErrUndeliverable, answer.Status)
		}
	}
}

// Mail says how DeliverByMail reaches a server.
type Mail struct {
	Addr string    // host:port of an SMTP server, which is spoken to with STARTTLS if it offers that
	From string    // sender's address
	Auth smtp.Auth // nil: none
}

// DeliverByMail sends messages by SMTP. The event's id is part of the Message-ID, by which mail servers and readers know
// repetitions. A refusal of class 5 is undeliverable; a member without an address is tried again, for it may come.
func DeliverByMail(server Mail) (Delivery, error) {
	host, _, err := net.SplitHostPort(server.Addr)
	if err != nil {
		return nil, fmt.Errorf("address of mail server %q: %w", server.Addr, err)
	}
	from, err := mail.ParseAddress(server.From)
	if err != nil {
		return nil, fmt.Errorf("sender's address %q: %w", server.From, err)
	}
	return func(ctx context.Context, m Message) error {
		if m.To.Email == "" {
			return fmt.Errorf("no mail address of member %s is known yet", m.MemberID)
		}
		err := sendMail(ctx, server, host, from.Address, m)
		if refusal := (*textproto.Error)(nil); errors.As(err, &refusal) && refusal.Code >= 500 {
			return fmt.Errorf("%w: %w", ErrUndeliverable, err)
		}
		return err
	}, nil
}

func sendMail(ctx context.Context, server Mail, host, from string, m Message) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", server.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // after Quit it is closed already
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		if err := c.StartTLS(&tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}); err != nil {
			return err
		}
	}
	if server.Auth != nil {
		if err := c.Auth(server.Auth); err != nil {
			return err
		}
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(m.To.Email); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, mailText(from, m)); err != nil {
		return err
	}
	if err := w.Close(); err != nil { // the server has taken it
		return err
	}
	_ = c.Quit()
	return nil
}

// mailText writes a mail (RFC 5322). Names are encoded words and the address was checked when it came: neither can add a
// header.
func mailText(from string, m Message) string {
	_, domain, _ := strings.Cut(from, "@")
	to := mail.Address{Name: m.To.Name, Address: m.To.Email}
	return strings.Join([]string{
		"From: " + (&mail.Address{Name: "Shop", Address: from}).String(),
		"To: " + to.String(),
		"Subject: " + mime.QEncoding.Encode("utf-8", "About "+m.Subject),
		"Date: " + m.CreatedAt.Format("Mon, 02 Jan 2006 15:04:05 -0700"),
		"Message-ID: <" + m.EventID + "@" + domain + ">",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		m.Body,
		"",
	}, "\r\n")
}
