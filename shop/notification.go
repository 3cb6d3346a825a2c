package shop

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/pabal-go/pabal"
)

// Message is something that a member is told.
type Message struct {
	EventID   string     `json:"eventId"` // the idempotency key of its delivery
	Kind      string     `json:"kind"`    // paid, cancelled, restocked
	MemberID  string     `json:"memberId"`
	Subject   string     `json:"subject"` // the number of an order, the id of a product
	Body      string     `json:"body"`
	State     string     `json:"state"` // waiting, sent, failed
	Attempts  int        `json:"attempts"`
	SentAt    *time.Time `json:"sentAt,omitempty"`
	LastError string     `json:"lastError,omitempty"`
	CreatedAt time.Time  `json:"createdAt"`

	// To is whom it goes to, as far as the service has heard.
	To struct{ Name, Email string } `json:"-"`
}

const (
	messagePaid      = "paid"
	messageCancelled = "cancelled"
)

// Notifications is the notification service. Its handlers only write messages, in the transaction in which Pabal counts
// the event as handled; a task sends them after commit, for what happens outside the database cannot be rolled back. All
// methods are safe for concurrent use.
type Notifications struct {
	base
	delivery Delivery
	wake     chan struct{} // something may be about to be committed
}

// OpenNotifications opens the notification service on its database.
func OpenNotifications(ctx context.Context, db *sql.DB, o *Options) (*Notifications, error) {
	b, err := open(ctx, "notification", db, nil, o)
	if err != nil {
		return nil, err
	}
	s := &Notifications{base: b, wake: make(chan struct{}, 1)}
	if s.delivery = DeliverByLog(b.log, slog.LevelDebug); o != nil && o.Delivery != nil {
		s.delivery = o.Delivery
	}
	return s, nil
}

// Consume turns events into messages, and keeps the addresses and the requests that it needs for that.
func (s *Notifications) Consume(client *pabal.Client[*sql.Tx]) {
	c := client.Consumer("notification", &s.consumer)
	pabal.HandleBatch(c, OrderPaid, s.Paid)
	pabal.HandleBatch(c, OrderCancelled, s.Cancelled)
	pabal.HandleBatch(c, MemberProfileChanged, s.ProfileChanged)
	pabal.HandleBatch(c, RestockAlertRequested, s.AlertRequested)
	pabal.HandleBatch(c, ProductRestocked, s.Restocked)
}

// Paid tells members that their orders are paid.
func (s *Notifications) Paid(ctx context.Context, tx *sql.Tx, events []pabal.Received[Paid]) error {
	return tell(ctx, tx, s, messagePaid, events, func(e Paid) (member, order, body string) {
		return e.MemberID, e.OrderNo, fmt.Sprintf("We received %v for your order %s. Thank you!", e.Total, e.OrderNo)
	})
}

// Cancelled tells members that their orders are cancelled.
func (s *Notifications) Cancelled(ctx context.Context, tx *sql.Tx, events []pabal.Received[Cancelled]) error {
	return tell(ctx, tx, s, messageCancelled, events, func(e Cancelled) (member, order, body string) {
		body = fmt.Sprintf("Your order %s is cancelled.", e.OrderNo)
		if e.Paid {
			body += fmt.Sprintf(" You get %v back.", e.Total)
		}
		return e.MemberID, e.OrderNo, body
	})
}

// tell writes a message for every event, in one statement.
func tell[T any](ctx context.Context, tx *sql.Tx, s *Notifications, kind string, events []pabal.Received[T],
	about func(T) (member, order, body string),
) error {
	at := now().UnixMilli()
	var rows []any
	for _, e := range events {
		handled := 1
		if e.Job != noJob {
			handled = 0 // an operator's wish, and no second handling
		}
		member, order, body := about(e.Data)
		rows = append(rows, e.ID.String(), kind, member, order, body, handled, at, at)
	}
	defer s.rouse()
	return s.execRows(ctx, tx, "message_insert", rows, 8)
}

// ProfileChanged keeps names and addresses.
func (s *Notifications) ProfileChanged(ctx context.Context, tx *sql.Tx, events []pabal.Received[ProfileChanged]) error {
	var rows []any
	for e := range latest(events, func(e ProfileChanged) string { return e.MemberID }) {
		rows = append(rows, e.MemberID, e.Name, e.Email)
	}
	return s.execRows(ctx, tx, "contact_put", rows, 3)
}

// AlertRequested keeps who waits for a restock.
func (s *Notifications) AlertRequested(ctx context.Context, tx *sql.Tx, events []pabal.Received[AlertRequested]) error {
	var rows []any
	for _, e := range events {
		rows = append(rows, e.ID.String(), e.Data.ProductID, e.Data.MemberID)
	}
	return s.execRows(ctx, tx, "alert_insert", rows, 3)
}

// Restocked tells all who wait for a product that it is back. The key of each message is the event of its request, for a
// request is answered once.
func (s *Notifications) Restocked(ctx context.Context, tx *sql.Tx, events []pabal.Received[Restocked]) error {
	defer s.rouse()
	at := now().UnixMilli()
	for _, e := range events {
		body := fmt.Sprintf("%s is back: %d pieces arrived.", e.Data.Name, e.Data.Quantity)
		if _, err := s.exec(ctx, tx, "alert_messages", body, at, at, e.Data.ProductID); err != nil {
			return err
		}
		if _, err := s.exec(ctx, tx, "alerts_delete", e.Data.ProductID); err != nil {
			return err
		}
	}
	return nil
}

// List answers up to limit messages, the newest first, older than the event before ("": from the newest), about a
// subject, or else of a member, or else all.
func (s *Notifications) List(ctx context.Context, member, subject, before string, limit int) ([]Message, error) {
	if before == "" {
		before = "z" // above every id, which is hexadecimal
	}
	name, args := "message_list", []any{before, limit}
	switch {
	case subject != "":
		name, args = "message_list_subject", []any{subject, before, limit}
	case member != "":
		name, args = "message_list_member", []any{member, before, limit}
	}
	rows, err := s.query(ctx, nil, name, 1, args)
	return collect(rows, err, scanMessage)
}

func scanMessage(r scanner) (m Message, err error) {
	var sent sql.NullInt64
	var created int64
	err = r.Scan(&m.EventID, &m.Kind, &m.MemberID, &m.Subject, &m.Body, &m.State, &m.Attempts, &sent, &m.LastError, &created,
		&m.To.Name, &m.To.Email)
	m.SentAt, m.CreatedAt = fromNullMillis(sent), fromMillis(created)
	return m, err
}
