package main

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
)

// contender is a way to get an event from a transaction to three services, and to know that it arrived.
type contender struct {
	name    string
	watched bool // by Pabal
	open    func(ctx context.Context, t *site) (*line, error)
}

// The contenders by hand, from what one writes first to what one ends up with.
var byHand = []contender{
	{name: "the seed by hand", open: openSeed},
	{name: "SKIP LOCKED poller", open: openPoller},
	{name: "hand-tuned", open: tuned{}.open},
	{name: "hand-tuned, inbox rows", open: tuned{inbox: true}.open},
	{name: "hand-tuned, Pabal's rows", open: sameRows{}.open},
}

// promptRows is the seed by hand with Pabal's rows: the least that they leave of the time until a handler starts.
var promptRows = contender{name: "the seed by hand, Pabal's rows", open: sameRows{prompt: true}.open}

const sweepEvery = 5 * time.Minute

// openSeed is the design that Pabal comes from: each event is published after its commit and waits for the broker's answer;
// one message a transaction; a record consumer notes what came back; a sweep every five minutes publishes what did not.
func openSeed(ctx context.Context, t *site) (*line, error) {
	o, err := t.newOutbox(ctx)
	if err != nil {
		return nil, err
	}
	w, ctx := newWorks(ctx)
	if err := t.effectsOneByOne(ctx, w); err != nil {
		return nil, err
	}
	if err := o.confirm(ctx, w, handWorkers, 1, o.mark); err != nil {
		return nil, err
	}
	w.run(ctx, func() error {
		for tick := time.NewTicker(sweepEvery); ; {
			select {
			case <-tick.C:
				if err := o.sweep(ctx); err != nil {
					return err
				}
			case <-ctx.Done():
				tick.Stop()
				return nil
			}
		}
	})
	publish := t.sendNow(ctx)
	return &line{
		write: func(ctx context.Context, n int) error { return o.write(ctx, n, publish) },
		owed:  o.owed, check: o.settled, stop: w.stop,
	}, nil
}

// sendNow answers what publishes an event, and waits for the answer.
func (t *site) sendNow(ctx context.Context) func(uuid.UUID, []byte) error {
	return func(id uuid.UUID, payload []byte) error {
		_, err := t.js.Publish(ctx, t.subject(), payload, jetstream.WithMsgID(id.String()))
		return err
	}
}

const selectOld = `select id, payload from outbox where published_at is null and created_at < clock_timestamp() - interval '5 minutes'`

func (o *outbox) sweep(ctx context.Context) error {
	rows, err := o.order.Query(ctx, selectOld)
	if err != nil {
		return err
	}
	ids, payloads, err := collectEvents(rows)
	if err != nil {
		return err
	}
	return o.send(ctx, ids, payloads)
}

func collectEvents(rows pgx.Rows) (ids []uuid.UUID, payloads [][]byte, err error) {
	var id uuid.UUID
	var payload []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &payload}, func() error {
		ids, payloads = append(ids, id), append(payloads, payload)
		payload = nil
		return nil
	})
	return ids, payloads, err
}

const (
	pollEvery    = 5 * time.Millisecond
	pollBatch    = 1000
	selectLocked = `select id, payload from outbox where published_at is null order by created_at limit $1 for update skip locked`
)

// openPoller polls the table: what nobody else has is locked, published, and marked when the broker has answered, in one
// transaction. Published means accepted: nobody looks whether it comes back.
func openPoller(ctx context.Context, t *site) (*line, error) {
	o, err := t.newOutbox(ctx)
	if err != nil {
		return nil, err
	}
	w, ctx := newWorks(ctx)
	if err := t.effectsInBatches(ctx, w, false); err != nil {
		return nil, err
	}
	w.run(ctx, func() error { return o.poll(ctx, pollEvery) })
	nothing := func(uuid.UUID, []byte) error { return nil }
	return &line{
		write: func(ctx context.Context, n int) error { return o.write(ctx, n, nothing) },
		owed:  o.owed, check: o.settled, stop: w.stop,
	}, nil
}

func (o *outbox) poll(ctx context.Context, every time.Duration) error {
	for ctx.Err() == nil {
		n, err := o.pollOnce(ctx)
		if err != nil {
			return err
		}
		if n < pollBatch/4 {
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

func (o *outbox) pollOnce(ctx context.Context) (n int, err error) {
	err = pgx.BeginFunc(ctx, o.order, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectLocked, pollBatch)
		if err != nil {
			return err
		}
		ids, payloads, err := collectEvents(rows)
		if n = len(ids); err != nil || n == 0 {
			return err
		}
		if err := o.send(ctx, ids, payloads); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, markOutbox, ids)
		return err
	})
	if err == nil {
		o.left.Add(-int64(n))
	}
	return n, err
}

type committed struct {
	id      uuid.UUID
	payload []byte
}

// tuned is a pipeline as quick as one gets it by hand: what was committed is published from memory in batches, handled in
// batches, and confirmed in batches. What Pabal guarantees beside that it does not: an event that is in memory when
// the process ends is lost, nothing is ordered, nobody looks after the table, nothing bounds an outage.
type tuned struct {
	inbox  bool // a row before each effect
	copies int  // of each process; 0: one
}

func (c tuned) open(ctx context.Context, t *site) (*line, error) {
	o, err := t.newOutbox(ctx)
	if err != nil {
		return nil, err
	}
	w, ctx := newWorks(ctx)
	var enqueue []func(uuid.UUID, []byte) error
	for range max(c.copies, 1) {
		if err := t.effectsInBatches(ctx, w, c.inbox); err != nil {
			return nil, err
		}
		if err := o.confirm(ctx, w, 1, handBatch, o.mark); err != nil {
			return nil, err
		}
		enqueue = append(enqueue, t.sendBehind(ctx, w))
	}
	return &line{
		write: func(ctx context.Context, n int) error { return o.write(ctx, n, enqueue[n%len(enqueue)]) },
		owed:  o.owed, check: o.settled, stop: w.stop,
	}, nil
}

// sendBehind starts what publishes in batches, and answers what puts an event into its queue.
func (t *site) sendBehind(ctx context.Context, w *works) func(id uuid.UUID, payload []byte) error {
	queue := make(chan committed, 10_000)
	for range 2 {
		w.run(ctx, func() error {
			return gather(ctx, queue, handBatch, func(batch []committed) error {
				ids, payloads := make([]uuid.UUID, len(batch)), make([][]byte, len(batch))
				for i, c := range batch {
					ids[i], payloads[i] = c.id, c.payload
				}
				return t.send(ctx, ids, payloads)
			})
		})
	}
	return func(id uuid.UUID, payload []byte) error {
		select {
		case queue <- committed{id, payload}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
