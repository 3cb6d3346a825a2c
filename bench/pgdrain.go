package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

// A backlog, made by the database.
const (
	fillEvents = `insert into pabal_event (recorded_at, id, position, topic, type, key, content_type, version, traceparent, payload)
		select clock_timestamp(), gen_random_uuid(), 0, 'order-pay-done', 'order-pay-done', '', 'application/json', '', '', $2::bytea
		from generate_series(1, $1::bigint)`
	fillPending = `insert into pabal_pending (id, recorded_at, topic, due_at)
		select id, recorded_at, topic, recorded_at from pabal_event`
	fillOutbox = `insert into outbox (id, topic, key, payload)
		select gen_random_uuid(), 'order-pay-done', '', $2::bytea from generate_series(1, $1::bigint)`
)

// drains compares how long it takes to publish what lies unpublished in the table with publishing as much from memory.
func (s *stand) drains(ctx context.Context, b *bench) ([]row, error) {
	var raw, poller, hand, sent, settled, toRaw, toPoller, toHand, own, ownHand []float64
	for range b.rounds {
		r, err := s.drainRaw(ctx, b.backlog)
		if err != nil {
			return nil, fmt.Errorf("raw: %w", err)
		}
		p, err := s.drainPoller(ctx, b.backlog)
		if err != nil {
			return nil, fmt.Errorf("poller: %w", err)
		}
		h, err := s.drainSameRows(ctx, b.backlog)
		if err != nil {
			return nil, fmt.Errorf("poller with Pabal's rows: %w", err)
		}
		accepted, d, err := s.drainPabal(ctx, b.backlog)
		if err != nil {
			return nil, fmt.Errorf("pabal: %w", err)
		}
		raw, poller, hand, sent, settled = append(raw, r), append(poller, p), append(hand, h.rate), append(sent, accepted), append(settled, d.rate)
		toRaw, toPoller, toHand = append(toRaw, accepted/r), append(toPoller, accepted/p), append(toHand, d.rate/h.rate)
		own, ownHand = append(own, d.self), append(ownHand, h.self)
	}
	what := fmt.Sprintf("draining %d unpublished events: ", b.backlog)
	return []row{
		{what + "as many from memory, published asynchronously", spread(raw, "%.0f") + " events/s", ""},
		{what + "SKIP LOCKED poller, published and marked", spread(poller, "%.0f") + " events/s", ""},
		{what + "SKIP LOCKED poller that claims Pabal's rows and confirms what comes back", spread(hand, "%.0f") + " events/s", ""},
		{what + "Pabal, accepted by the broker", spread(sent, "%.0f") + " events/s", ""},
		{what + "Pabal, confirmed", spread(settled, "%.0f") + " events/s", ""},
		{"ratio of Pabal, accepted, to publishing from memory", spread(toRaw, "%.2f"), "≥ 0.40"},
		{"ratio of Pabal, accepted, to the poller", spread(toPoller, "%.2f"), ""},
		{"ratio of Pabal, confirmed, to the poller that does the same", spread(toHand, "%.2f"), ""},
		{"processor time of the process alone, that poller", spread(ownHand, "%.1f") + " µs an event", ""},
		{"processor time of the process alone, Pabal", spread(own, "%.1f") + " µs an event", ""},
	}, nil
}

// drained is what came of a backlog.
type drained struct {
	rate float64 // events a second
	self float64 // µs of processor time that the process takes for each
}

// drainOf does what drains a backlog, and says what came of it.
func (t *site) drainOf(ctx context.Context, events int, do func() error) (d drained, err error) {
	before, err := t.usage(ctx)
	if err != nil {
		return d, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return d, err
	}
	took := time.Since(began)
	after, err := t.usage(ctx)
	if err != nil {
		return d, err
	}
	used := after.minus(before).self
	return drained{float64(events) / took.Seconds(), float64(used.Microseconds()) / float64(events)}, t.sameSettled(ctx, events)
}

// alone opens a site for one of them.
func (s *stand) alone(ctx context.Context, watched bool) (*site, error) {
	t, err := s.open(ctx, watched, false, newJournal(1, services))
	if err != nil && t != nil {
		t.close()
	}
	return t, err
}

func (s *stand) drainRaw(ctx context.Context, events int) (rate float64, err error) {
	t, err := s.alone(ctx, false)
	if err != nil {
		return 0, err
	}
	defer t.close()
	if _, err := t.queueOf(ctx, "record"); err != nil {
		return 0, err
	}
	payload, answers := payloadOf(1), make([]jetstream.PubAckFuture, events)
	began := time.Now()
	for i := range answers {
		if answers[i], err = t.js.PublishAsync(t.subject(), payload, jetstream.WithMsgID(uuid.NewString())); err != nil {
			return 0, err
		}
	}
	for _, a := range answers {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return 0, err
		}
	}
	return float64(events) / time.Since(began).Seconds(), nil
}

func (s *stand) drainPoller(ctx context.Context, events int) (rate float64, err error) {
	t, err := s.alone(ctx, false)
	if err != nil {
		return 0, err
	}
	defer t.close()
	o, err := t.newOutbox(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := t.queueOf(ctx, "record"); err != nil {
		return 0, err
	}
	if err := t.fill(ctx, events, fillOutbox); err != nil {
		return 0, err
	}
	began := time.Now()
	for {
		n, err := o.pollOnce(ctx)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
	}
	took := time.Since(began)
	return float64(events) / took.Seconds(), o.settled(ctx, events)
}

// fill runs statements of which the first takes how many rows, and the payload; then tables and statistics are as after a while.
func (t *site) fill(ctx context.Context, events int, statements ...string) error {
	for i, text := range statements {
		args := []any{events, payloadOf(1)}
		if i > 0 {
			args = nil
		}
		if _, err := t.order.Exec(ctx, text, args...); err != nil {
			return err
		}
	}
	if _, err := t.order.Exec(ctx, "vacuum analyze"); err != nil {
		return err
	}
	return t.checkpoint(ctx)
}

// drainPabal answers how many a second the broker accepted, and what came back.
func (s *stand) drainPabal(ctx context.Context, events int) (accepted float64, d drained, err error) {
	t, err := s.alone(ctx, true)
	if err != nil {
		return 0, d, err
	}
	defer t.close()
	p := &pabalSite{site: t}
	var running context.Context
	p.works, running = newWorks(ctx)
	defer func() { err = errors.Join(err, p.works.stop()) }()
	if p.order, p.store, err = p.client(running, t.order, "order"); err != nil {
		return 0, d, err
	}
	if err := t.fill(ctx, events, fillEvents, fillPending); err != nil {
		return 0, d, err
	}
	d, err = t.drainOf(ctx, events, func() error {
		began := time.Now()
		p.works.run(running, func() error { return p.order.Run(running) })
		for p.seen.confirmed.Load() < int64(events) {
			if accepted == 0 && p.seen.accepted.Load() >= int64(events) {
				accepted = float64(events) / time.Since(began).Seconds()
			}
			if err := running.Err(); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond)
		}
		return nil
	})
	if accepted == 0 {
		accepted = d.rate
	}
	return accepted, d, err
}

// Claimed and committed before anything is sent, as by whoever means to know, after a crash, what may have been sent.
const claimSame = `with due as (
		select id from pabal_pending where topic = 'order-pay-done' and due_at <= clock_timestamp() order by due_at limit $1 for update skip locked
	), claimed as (
		update pabal_pending p set due_at = clock_timestamp() + interval '30 s', sent_at = clock_timestamp(), claims = p.claims + 1
		from due where p.id = due.id returning p.id, p.recorded_at
	)
	select e.id, e.payload from claimed c join pabal_event e on e.recorded_at = c.recorded_at and e.id = c.id`

// drainSameRows is a poller that leaves behind what Pabal does, until all has come back.
func (s *stand) drainSameRows(ctx context.Context, events int) (d drained, err error) {
	t, err := s.alone(ctx, false)
	if err != nil {
		return d, err
	}
	defer t.close()
	o, err := t.sameTables(ctx)
	if err != nil {
		return d, err
	}
	if err := t.fill(ctx, events, fillEvents, fillPending); err != nil {
		return d, err
	}
	o.left.Store(int64(events))
	w, running := newWorks(ctx)
	defer func() { err = errors.Join(err, w.stop()) }()
	return t.drainOf(ctx, events, func() error {
		if err := o.confirm(running, w, 1, handBatch, o.markSame); err != nil {
			return err
		}
		return o.claimAll(running, t.sendBehind(running, w))
	})
}

// claimAll claims and hands over until nothing is owed any more.
func (o *outbox) claimAll(ctx context.Context, enqueue func(uuid.UUID, []byte) error) error {
	for o.owed() > 0 {
		rows, err := o.order.Query(ctx, claimSame, handBatch)
		if err != nil {
			return err
		}
		ids, payloads, err := collectEvents(rows)
		if err != nil {
			return err
		}
		for i, id := range ids {
			if err := enqueue(id, payloads[i]); err != nil {
				return err
			}
		}
		if len(ids) == 0 { // all are on their way
			time.Sleep(2 * time.Millisecond)
		}
	}
	return nil
}
