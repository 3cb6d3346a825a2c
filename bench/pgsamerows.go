package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/pabalpgx"
)

// What the rows cost that Pabal keeps, whoever writes them: in its tables, an event and its place in the work list with each order, a
// row of the inbox before each handler, which gets a transaction, and one that says when the event came back; with keys, a counter that
// each event moves, and a cursor of each consumer that is locked, read and moved.
const (
	insertSameEvent = `with stored as (
			insert into pabal_event (id, recorded_at, topic, type, key, content_type, version, traceparent, payload, position)
			values ($1, clock_timestamp(), 'order-pay-done', 'order-pay-done', '', 'application/json', '', '', $2, 0)
			returning id, recorded_at, topic
		)
		insert into pabal_pending (id, recorded_at, topic, due_at) select id, recorded_at, topic, recorded_at + interval '30 s' from stored
		returning recorded_at`
	insertSameKeyed = `with moved as (
			insert into pabal_counter as c (topic, key, generation, step, position, last_id, last_at, last_day)
			values ('order-pay-done', $3, 0, 1, 1, $1, clock_timestamp(), current_date)
			on conflict (topic, key) do update set position = c.position + 1, prev_id = c.last_id, prev_position = c.position,
				prev_at = c.last_at, last_id = excluded.last_id, last_at = clock_timestamp()
			returning position, last_at, prev_id, prev_position, prev_at
		), stored as (
			insert into pabal_event (id, recorded_at, topic, type, key, content_type, version, traceparent, payload, position,
				prev_id, prev_position, prev_at)
			select $1, last_at, 'order-pay-done', 'order-pay-done', $3, 'application/json', '', '', $2, position,
				prev_id, prev_position, prev_at from moved
		)
		insert into pabal_pending (id, recorded_at, topic, due_at) select $1, last_at, 'order-pay-done', last_at + interval '30 s' from moved
		returning recorded_at`
	insertSameInbox = `insert into pabal_inbox (consumer, id, source, topic, key, job, type, position, recorded_at, sent_at, received_at, state)
		select $1, e.id, 'order', 'order-pay-done', '', '00000000-0000-0000-0000-000000000000', 'order-pay-done', 0, e.at, e.at,
			clock_timestamp(), 0
		from unnest($2::uuid[], $3::timestamptz[]) as e (id, at)
		on conflict do nothing returning id`
	sameCursor    = `'order', 'order-pay-done', k.key, '00000000-0000-0000-0000-000000000000'::uuid`
	lockSameBatch = `insert into pabal_cursor as c (consumer, source, topic, key, job, moved_at, last_day)
		select $1, ` + sameCursor + `, clock_timestamp(), current_date from unnest($2::text[]) as k (key)
		on conflict (consumer, source, topic, key, job) do update set moved_at = c.moved_at where false`
	readSameBatch = `select c.last_position, c.last_id, c.last_at from unnest($2::text[]) as k (key) cross join lateral (
			select * from pabal_cursor c where (c.consumer, c.source, c.topic, c.key, c.job) = ($1, ` + sameCursor + `) offset 0) c`
	moveSameBatch = `insert into pabal_cursor as c (consumer, source, topic, key, job, begun, last_position, last_id, last_at, moved_at, last_day)
		select $1, ` + sameCursor + `, true, 1, k.id, clock_timestamp(), clock_timestamp(), current_date
		from unnest($2::text[], $3::uuid[]) as k (key, id)
		on conflict (consumer, source, topic, key, job) do update set begun = true, last_position = c.last_position + 1,
			last_id = excluded.last_id, last_at = excluded.last_at, moved_at = excluded.moved_at, last_day = excluded.last_day`
	confirmSame = `with gone as (delete from pabal_pending where id = any ($1::uuid[]) returning recorded_at, id)
		insert into pabal_published (recorded_at, id, published_at) select recorded_at, id, clock_timestamp() from gone`
)

// sameRows is the hand-tuned pipeline with Pabal's rows. It makes no more use of them than what tells a second copy: what an event is
// wrapped in, who decides that it may go, what is out of order, what fails, and all that looks after the tables costs it nothing.
type sameRows struct {
	keyed  bool
	prompt bool // publishes each event after its commit and handles each by itself, as the seed does
}

func (c sameRows) open(ctx context.Context, t *site) (*line, error) {
	o, err := t.sameTables(ctx)
	if err != nil {
		return nil, err
	}
	w, ctx := newWorks(ctx)
	workers, most := 1, handBatch
	if c.prompt {
		workers, most = handWorkers, 1
	}
	for i := range t.service {
		if err := t.subscribe(ctx, w, fmt.Sprint("service", i+1), workers, most, func(ctx context.Context, batch []jetstream.Msg) error {
			return c.handle(ctx, t, i, batch)
		}); err != nil {
			return nil, err
		}
	}
	if err := o.confirm(ctx, w, workers, most, o.markSame); err != nil {
		return nil, err
	}
	enqueue := t.sendNow(ctx)
	if !c.prompt {
		enqueue = t.sendBehind(ctx, w)
	}
	return &line{
		write: func(ctx context.Context, n int) error {
			id, payload := uuid.Must(uuid.NewV7()), payloadOf(n)
			err := t.buy(ctx, n, func(tx pgx.Tx) error { return c.record(ctx, tx, id, payload, n) })
			if err != nil {
				return err
			}
			o.left.Add(1)
			return enqueue(id, payload)
		},
		owed: o.owed, stop: w.stop, check: t.sameSettled,
	}, nil
}

func (c sameRows) record(ctx context.Context, tx pgx.Tx, id uuid.UUID, payload []byte, n int) error {
	query, args := insertSameEvent, []any{id, payload}
	if c.keyed {
		query, args = insertSameKeyed, append(args, keyOf(int64(n)))
	}
	var recordedAt time.Time
	return tx.QueryRow(ctx, query, args...).Scan(&recordedAt)
}

// handle handles what is not in the inbox yet, in one transaction, of which BEGIN travels with the inbox's rows.
func (c sameRows) handle(ctx context.Context, t *site, service int, batch []jetstream.Msg) error {
	ids, err := idsOf(batch)
	if err != nil {
		return err
	}
	times, nos, keys := make([]time.Time, len(batch)), map[uuid.UUID]int64{}, map[string]uuid.UUID{}
	for k, m := range batch {
		no, err := numberOf(m)
		if err != nil {
			return err
		}
		nos[ids[k]], keys[keyOf(no)] = no, ids[k]
		times[k] = time.Unix(ids[k].Time().UnixTime())
	}
	conn, err := t.service[service].Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	name, sorted := fmt.Sprint("service", service+1), make([]string, 0, len(keys))
	for key := range keys {
		sorted = append(sorted, key)
	}
	slices.Sort(sorted)
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	var fresh []uuid.UUID
	b.Queue(insertSameInbox, name, ids, times).Query(func(rows pgx.Rows) (err error) {
		fresh, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	if c.keyed {
		b.Queue(lockSameBatch, name, sorted)
		b.Queue(readSameBatch, name, sorted)
	}
	results := conn.SendBatch(ctx, b)
	if err := results.Close(); err != nil {
		return err
	}
	tx := results.Tx()
	defer tx.Rollback(ctx) //nolint:errcheck // after Commit it does nothing
	effects, last := make([]int64, len(fresh)), make([]uuid.UUID, len(sorted))
	for k, id := range fresh {
		effects[k] = nos[id]
		t.journal.handle(service, int(effects[k])) // behind the rows of the inbox, as Pabal's
	}
	if _, err := tx.Exec(ctx, insertEffects, effects); err != nil {
		return err
	}
	if c.keyed {
		for k, key := range sorted {
			last[k] = keys[key]
		}
		if _, err := tx.Exec(ctx, moveSameBatch, name, sorted, last); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// sameTables makes Pabal's tables in all databases.
func (t *site) sameTables(ctx context.Context) (*outbox, error) {
	for _, pool := range append(t.service[:], t.order) {
		if _, err := pabalpgx.Migrate(ctx, pool, nil); err != nil {
			return nil, err
		}
	}
	return &outbox{site: t}, nil
}

// markSame notes that events have come back.
func (o *outbox) markSame(ctx context.Context, ids []uuid.UUID) error {
	return o.settle(ctx, confirmSame, ids)
}

// sameSettled checks the books: all is confirmed.
func (t *site) sameSettled(ctx context.Context, events int) error {
	return errors.Join(t.holds(ctx, events, `select count(*) from pabal_published`), t.holds(ctx, 0, `select count(*) from pabal_pending`))
}
