package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What contenders by hand are made of: a stream with a queue for each service, read in batches.

const (
	handBatch   = 256
	handWorkers = 8 // of a queue, where messages are handled one by one
	handLinger  = 10 * time.Millisecond
)

// line is a running contender.
type line struct {
	write func(ctx context.Context, n int) error // commits order n with its event
	owed  func() int                             // events recorded and not settled: confirmed, or what the contender has for that
	check func(ctx context.Context, events int) error
	stop  func() error // ends all that runs

	repeated func() int // events published more than once; nil: not told
}

// bill is the payload: 512 bytes of JSON.
type bill struct {
	No   int64  `json:"no"`
	Text string `json:"text"`
}

const payloadBytes = 512

func billOf(n int) bill {
	b := bill{No: int64(n)}
	empty, _ := json.Marshal(b) // it always can
	const filler = "Seoul, Songpa-gu, two portions of bibimbap, one without egg; please ring twice. "
	for len(b.Text) < payloadBytes-len(empty) {
		b.Text += filler
	}
	b.Text = b.Text[:payloadBytes-len(empty)]
	return b
}

func payloadOf(n int) []byte {
	b, _ := json.Marshal(billOf(n)) // it always can
	return b
}

// works runs tasks until stop, and keeps their first error.
type works struct {
	all    sync.WaitGroup
	cancel context.CancelFunc
	mu     sync.Mutex
	err    error
}

func newWorks(ctx context.Context) (*works, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	return &works{cancel: cancel}, ctx
}

func (w *works) run(ctx context.Context, task func() error) {
	w.all.Go(func() {
		if err := task(); err != nil && ctx.Err() == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = errors.Join(w.err, err)
		}
	})
}

func (w *works) stop() error {
	w.cancel()
	w.all.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// queueOf makes the stream of a run, once, and a durable consumer of it.
func (t *site) queueOf(ctx context.Context, name string) (jetstream.Consumer, error) {
	_, err := t.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: t.name, Subjects: []string{t.subject()}, Retention: jetstream.InterestPolicy, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return nil, err
	}
	return t.js.CreateOrUpdateConsumer(ctx, t.name, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 8192,
	})
}

func (t *site) subject() string { return t.name + ".order-pay-done" }

// subscribe has take handle what a queue brings, up to most messages at a time; they are acknowledged when it returns.
// Batches form while the one before is handled; under load, when several come at a time, they are given time to. A batch that has
// begun when ctx ends is handled to its end.
func (t *site) subscribe(ctx context.Context, w *works, name string, workers, most int,
	take func(context.Context, []jetstream.Msg) error) error {
	queue, err := t.queueOf(ctx, name)
	if err != nil {
		return err
	}
	messages := make(chan jetstream.Msg, 2*handBatch)
	pull, err := queue.Consume(func(m jetstream.Msg) {
		select {
		case messages <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(2*handBatch))
	if err != nil {
		return err
	}
	w.run(ctx, func() error { <-ctx.Done(); pull.Stop(); return nil })
	for range workers {
		w.run(ctx, func() error {
			return gather(ctx, messages, most, func(batch []jetstream.Msg) error {
				if err := take(context.WithoutCancel(ctx), batch); err != nil {
					return err
				}
				for _, m := range batch {
					if err := m.Ack(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return nil
}

// gather hands over what lies in a channel, up to most at a time.
func gather[T any](ctx context.Context, from <-chan T, most int, take func([]T) error) error {
	for {
		var batch []T
		select {
		case one := <-from:
			batch = append(batch, one)
		case <-ctx.Done():
			return nil
		}
		for more := true; more && len(batch) < most; {
			select {
			case one := <-from:
				batch = append(batch, one)
			default:
				more = false
			}
		}
		if err := take(batch); err != nil {
			return err
		}
		if len(batch) > 1 && len(batch) < most/2 {
			time.Sleep(handLinger)
		}
	}
}

func numberOf(m jetstream.Msg) (int64, error) {
	var b bill
	err := json.Unmarshal(m.Data(), &b)
	return b.No, err
}

// noOf reads an event's number, and notes that its handler starts.
func (t *site) noOf(service int, m jetstream.Msg) (int64, error) {
	no, err := numberOf(m)
	if err == nil {
		t.journal.handle(service, int(no))
	}
	return no, err
}

const insertEffect = `insert into effect values ($1)`

// effectsOneByOne handles each message in a transaction of its own, several at a time.
func (t *site) effectsOneByOne(ctx context.Context, w *works) error {
	for i, pool := range t.service {
		err := t.subscribe(ctx, w, fmt.Sprint("service", i+1), handWorkers, 1, func(ctx context.Context, batch []jetstream.Msg) error {
			no, err := t.noOf(i, batch[0])
			if err == nil {
				_, err = pool.Exec(ctx, insertEffect, no)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	createInbox   = `create table if not exists inbox (id uuid primary key, at timestamptz not null default clock_timestamp())`
	insertEffects = `insert into effect select unnest($1::bigint[])`
	insertInbox   = `with fresh as (insert into inbox (id) select unnest($1::uuid[]) on conflict do nothing returning id)
		insert into effect select e.no from fresh join unnest($1::uuid[], $2::bigint[]) as e (id, no) on e.id = fresh.id`
)

// effectsInBatches handles many messages in one statement; with an inbox row for each, an event that comes twice has no
// second effect.
func (t *site) effectsInBatches(ctx context.Context, w *works, inbox bool) error {
	for i, pool := range t.service {
		if inbox {
			if _, err := pool.Exec(ctx, createInbox); err != nil {
				return err
			}
		}
		err := t.subscribe(ctx, w, fmt.Sprint("service", i+1), 1, handBatch, func(ctx context.Context, batch []jetstream.Msg) error {
			ids, nos := make([]uuid.UUID, len(batch)), make([]int64, len(batch))
			for k, m := range batch {
				var err error
				if nos[k], err = t.noOf(i, m); err != nil {
					return err
				}
				if ids[k], err = uuid.Parse(m.Headers().Get(nats.MsgIdHdr)); err != nil {
					return err
				}
			}
			if !inbox {
				_, err := pool.Exec(ctx, insertEffects, nos)
				return err
			}
			_, err := pool.Exec(ctx, insertInbox, ids, nos)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// send publishes events in one go and waits for all answers.
func (t *site) send(ctx context.Context, ids []uuid.UUID, payloads [][]byte) error {
	answers := make([]jetstream.PubAckFuture, len(ids))
	for i, id := range ids {
		var err error
		if answers[i], err = t.js.PublishAsync(t.subject(), payloads[i], jetstream.WithMsgID(id.String())); err != nil {
			return err
		}
	}
	for _, a := range answers {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

const (
	createOutboxPG = `create table outbox (id uuid primary key, topic text not null, key text not null, payload bytea not null,
			created_at timestamptz not null default clock_timestamp(), published_at timestamptz);
		create index outbox_open on outbox (created_at) where published_at is null`
	insertOutboxPG = `insert into outbox (id, topic, key, payload) values ($1, 'order-pay-done', $2, $3)`
	markOutbox     = `update outbox set published_at = clock_timestamp() where id = any ($1::uuid[]) and published_at is null`
	unpublished    = `select count(*) from outbox where published_at is null`
)

// outbox is the table by hand, and how many of its events are not settled yet.
type outbox struct {
	*site
	left atomic.Int64
}

func (t *site) newOutbox(ctx context.Context) (*outbox, error) {
	_, err := t.order.Exec(ctx, createOutboxPG)
	return &outbox{site: t}, err
}

func (o *outbox) owed() int { return int(o.left.Load()) }

// settled checks the books at the end.
func (o *outbox) settled(ctx context.Context, events int) error {
	return errors.Join(o.holds(ctx, events, `select count(*) from outbox`), o.holds(ctx, 0, unpublished))
}

// write records event n; then, what is to be done with it after COMMIT.
func (o *outbox) write(ctx context.Context, n int, then func(id uuid.UUID, payload []byte) error) error {
	id, payload := uuid.Must(uuid.NewV7()), payloadOf(n)
	err := o.buy(ctx, n, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertOutboxPG, id, "", payload)
		return err
	})
	if err != nil {
		return err
	}
	o.left.Add(1)
	return then(id, payload)
}

// confirm has note take what comes back from the broker.
func (o *outbox) confirm(ctx context.Context, w *works, workers, most int, note func(context.Context, []uuid.UUID) error) error {
	return o.subscribe(ctx, w, "record", workers, most, func(ctx context.Context, batch []jetstream.Msg) error {
		ids, err := idsOf(batch)
		if err != nil {
			return err
		}
		return note(ctx, ids)
	})
}

// mark notes that events are published.
func (o *outbox) mark(ctx context.Context, ids []uuid.UUID) error {
	return o.settle(ctx, markOutbox, ids)
}

func (o *outbox) settle(ctx context.Context, statement string, ids []uuid.UUID) error {
	tag, err := o.order.Exec(ctx, statement, ids)
	o.left.Add(-tag.RowsAffected())
	return err
}

func idsOf(batch []jetstream.Msg) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(batch))
	for i, m := range batch {
		var err error
		if ids[i], err = uuid.Parse(m.Headers().Get(nats.MsgIdHdr)); err != nil {
			return nil, err
		}
	}
	return ids, nil
}
