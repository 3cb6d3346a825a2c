package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// LegacyPaid is what the old system reads: its own JSON, and nothing around it. It has a topic of its own.
var LegacyPaid = pabal.Define[Paid]("legacy-pay-done").Bare()

func legacy(ctx context.Context, s *street) error {
	order, err := s.open(ctx, "order", "create table orders (no text primary key, status text not null)")
	if err != nil {
		return err
	}
	settlement, err := s.open(ctx, "settlement", "create table ledger (order_no text, amount integer)")
	if err != nil {
		return err
	}
	consumer := settlement.Consumer("settlement", nil)
	pabal.Handle(consumer, OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		_, err := tx.ExecContext(ctx, "insert into ledger values (?, ?)", e.Data.OrderNo, e.Data.Amount)
		return err
	})
	// The queue of the old system is there; here it has to be made.
	err = s.broker.Check(ctx, driver.Topology{
		Topics: []driver.TopicSpec{{Name: LegacyPaid.Topic()}},
		Queues: []driver.QueueSpec{{Name: "old-system", Topics: []string{LegacyPaid.Topic()}}},
	}, true)
	if err != nil {
		return err
	}
	if err := s.start(ctx, settlement, order); err != nil {
		return err
	}

	if err := payForBoth(ctx, order, Paid{"A1", 100}); err != nil {
		return err
	}
	for n := 0; n == 0 && ctx.Err() == nil; { // the old system's own loop
		received, err := s.broker.Receive(ctx, "old-system", 1)
		if err != nil {
			return err
		}
		for _, m := range received {
			n++
			s.say("the old system reads %s", m.Body)
		}
	}
	if err := settlement.until(ctx, "100", "select coalesce(sum(amount), 0) from ledger"); err != nil {
		return err
	}
	s.say("settlement has booked A1")

	// A program that is not on Pabal publishes a CloudEvent, and again, for it has got no answer.
	event := `{"specversion": "1.0", "id": "erp-7", "source": "erp", "type": "order-pay-done", "data": {"orderNo": "E7", "amount": 50}}`
	for range 2 {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		id := uuid.New()
		v := s.broker.Publish(call, driver.Destination{Topic: OrderPaid.Topic()},
			[]driver.Message{{ID: id, Dedup: id.String(), Body: []byte(event)}})
		cancel()
		if v[0].Kind != driver.Accepted {
			return v[0].Err
		}
	}
	if err := order.record(ctx, OrderPaid.New(Paid{"A2", 1})); err != nil { // comes behind both
		return err
	}
	if err := settlement.until(ctx, "151", "select coalesce(sum(amount), 0) from ledger"); err != nil {
		return err
	}
	s.say("settlement has booked E7 once")
	return nil
}

// payForBoth tells old and new consumers, or nobody.
func payForBoth(ctx context.Context, order *service, paid Paid) error {
	tx, err := order.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, "insert into orders values (?, 'paid')", paid.OrderNo); err != nil {
		return err
	}
	if err := order.Record(ctx, tx, LegacyPaid.New(paid), OrderPaid.New(paid)); err != nil {
		return err
	}
	return tx.Commit()
}
