package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/pabal-go/pabal"
)

func externalCalls(ctx context.Context, s *street) error {
	mail := newMailServer()
	defer mail.Close()
	order, err := s.open(ctx, "order", "")
	if err != nil {
		return err
	}
	notification, err := s.open(ctx, "notification", `
		create table message (event_id text primary key, body text not null, tries integer not null default 0,
			next_at integer not null, sent_at integer, last_error text not null default '')`)
	if err != nil {
		return err
	}
	pabal.Handle(notification.Consumer("notification", nil), OrderPaid,
		func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
			_, err := tx.ExecContext(ctx, "insert into message (event_id, body, next_at) values (?, ?, ?)",
				e.ID.String(), "We received your payment for order "+e.Data.OrderNo, time.Now().UnixMilli())
			return err // nothing is sent here
		})
	if err := s.start(ctx, notification, order); err != nil {
		return err
	}
	if err := order.record(ctx, OrderPaid.New(Paid{"A1", 100})); err != nil {
		return err
	}
	if err := notification.until(ctx, "1", "select count(*) from message"); err != nil {
		return err
	}

	// The sender is killed after the call and before its note: its successor cannot know, and calls once more.
	killed := errors.New("killed")
	if err := sendDue(ctx, notification.db, mail.URL, func() error { return killed }); !errors.Is(err, killed) {
		return fmt.Errorf("it was not killed: %w", err)
	}
	if _, err := notification.db.ExecContext(ctx, "update message set next_at = 0"); err != nil { // its lease is over
		return err
	}
	if err := sendDue(ctx, notification.db, mail.URL, func() error { return nil }); err != nil {
		return err
	}
	calls, sent := mail.count()
	s.say("%d calls, %d message sent", calls, sent)
	return nil
}

const lease = time.Minute // longer than a call may take

// sendDue sends what is due, one message after the other.
func sendDue(ctx context.Context, db *sql.DB, url string, between func() error) error {
	for {
		var id, body string
		var tries int
		now := time.Now()
		err := db.QueryRowContext(ctx, `
			update message set tries = tries + 1, next_at = ?
			where event_id = (select event_id from message where sent_at is null and next_at <= ? order by next_at limit 1)
			returning event_id, body, tries`, now.Add(lease).UnixMilli(), now.UnixMilli()).Scan(&id, &body, &tries)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		called := call(ctx, url, id, body) // outside of any transaction
		if err := between(); err != nil {
			return err
		}
		if called == nil {
			_, err = db.ExecContext(ctx, "update message set sent_at = ? where event_id = ?", time.Now().UnixMilli(), id)
		} else {
			again := time.Now().Add(min(time.Second<<min(tries, 12), time.Hour))
			_, err = db.ExecContext(ctx, "update message set next_at = ?, last_error = ? where event_id = ?",
				again.UnixMilli(), called.Error(), id)
		}
		if err != nil {
			return err
		}
	}
}

// call sends a message; the event's id says that two calls are one.
func call(ctx context.Context, url, eventID, body string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", eventID)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was read, or is of no interest
	if response.StatusCode >= 300 {
		return fmt.Errorf("the mail server answers %s", response.Status)
	}
	return nil
}

// mailServer knows idempotency keys, as those of payment and mail providers do.
type mailServer struct {
	*httptest.Server
	mu    sync.Mutex
	calls int
	sent  map[string]bool
}

func newMailServer() *mailServer {
	m := &mailServer{sent: map[string]bool{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.calls++
		m.sent[r.Header.Get("Idempotency-Key")] = true
	}))
	return m
}

func (m *mailServer) count() (calls, sent int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls, len(m.sent)
}
