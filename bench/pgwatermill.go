package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Watermill's forwarder: the transaction inserts an enveloped message (Watermill's SQL publisher), a daemon reads the table in
// batches of 100 and publishes each message to JetStream, three groups consume. The polling interval is shortened to 10 ms
// from 1 s, acknowledgements are not waited for, each service has several subscribers: one handles one message at a time.
var watermillContender = contender{name: "Watermill", open: openWatermill}

const watermillSubscribers = 8 // of a service

func openWatermill(ctx context.Context, t *site) (*line, error) {
	db := stdlib.OpenDBFromPool(t.order)
	t.closes = append(t.closes, func() { _ = db.Close() })
	schema := wmsql.DefaultPostgreSQLSchema{}
	in, err := wmsql.NewSubscriber(db, wmsql.SubscriberConfig{
		SchemaAdapter: schema, OffsetsAdapter: wmsql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
		PollInterval: 10 * time.Millisecond, BackoffManager: wmsql.NewDefaultBackoffManager(10*time.Millisecond, time.Second),
	}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	if err := in.SubscribeInitialize(watermillTable); err != nil {
		return nil, err
	}
	topic := t.name
	stream := func(string) jetstream.StreamConfig {
		return jetstream.StreamConfig{Name: topic, Subjects: []string{topic}, Retention: jetstream.InterestPolicy}
	}
	if _, err := t.js.CreateStream(ctx, stream("")); err != nil {
		return nil, err
	}
	w, ctx := newWorks(ctx)
	if err := t.watermillServices(ctx, w, topic, stream); err != nil {
		return nil, err
	}
	conn, err := nats.Connect(t.nats.URL)
	if err != nil {
		return nil, err
	}
	out, err := wmjetstream.NewPublisher(wmjetstream.PublisherConfig{Conn: conn, Logger: watermill.NopLogger{}, ConfigureStream: stream})
	if err != nil {
		return nil, err
	}
	daemon, err := forwarder.NewForwarder(in, out, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: watermillTable})
	if err != nil {
		return nil, err
	}
	w.run(ctx, func() error { return daemon.Run(ctx) })
	<-daemon.Running()
	return &line{
		write: func(ctx context.Context, n int) error { return t.watermillBuy(ctx, db, schema, topic, n) },
		owed:  t.handledLeft,
		check: func(ctx context.Context, events int) error {
			return t.holds(ctx, 0, `select count(*) - `+fmt.Sprint(events)+` from "watermill_`+watermillTable+`" m, "watermill_offsets_`+watermillTable+
				`" o where (m.transaction_id, m."offset") <= (o.last_processed_transaction_id, o.offset_acked)`)
		},
		stop: func() error { return errors.Join(daemon.Close(), w.stop(), out.Close()) },
	}, nil
}

const watermillTable = "forwarder"

func (t *site) watermillBuy(ctx context.Context, db *sql.DB, schema wmsql.SchemaAdapter, topic string, n int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, insertOrder, n); err != nil {
		return err
	}
	inner, err := wmsql.NewPublisher(tx, wmsql.PublisherConfig{SchemaAdapter: schema}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	publisher := forwarder.NewPublisher(inner, forwarder.PublisherConfig{ForwarderTopic: watermillTable})
	if err := publisher.Publish(topic, message.NewMessage(watermill.NewUUID(), payloadOf(n))); err != nil {
		return err
	}
	err = tx.Commit()
	t.journal.commit(n)
	return err
}

// watermillServices handle each message in a statement of its own.
func (t *site) watermillServices(ctx context.Context, w *works, topic string, stream wmjetstream.StreamConfigurator) error {
	for i, pool := range t.service {
		for range watermillSubscribers {
			conn, err := nats.Connect(t.nats.URL)
			if err != nil {
				return err
			}
			sub, err := wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
				Conn: conn, Logger: watermill.NopLogger{}, AckAsync: true, ConfigureStream: stream,
				ResourceInitializer: wmjetstream.GroupedConsumer(fmt.Sprint("service", i+1)),
			})
			if err != nil {
				return err
			}
			messages, err := sub.Subscribe(context.WithoutCancel(ctx), topic)
			if err != nil {
				return err
			}
			w.run(ctx, func() error { <-ctx.Done(); return sub.Close() })
			w.run(ctx, func() error {
				for m := range messages {
					var b bill
					if err := json.Unmarshal(m.Payload, &b); err != nil {
						return err
					}
					t.journal.handle(i, int(b.No))
					if _, err := pool.Exec(ctx, insertEffect, b.No); err != nil {
						return err
					}
					m.Ack()
				}
				return nil
			})
		}
	}
	return nil
}
