package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
)

// variants are Pabal's own: with keys, with several processes.
func (s *stand) variants(ctx context.Context, b *bench) (rows []row, err error) {
	plain := pabals[0]
	keyed := contender{name: "ordered", watched: true, open: pabalLine{keyed: true}.open}
	many := contender{name: "four of each", watched: true, open: pabalLine{relays: 3, copies: 4}.open}
	hand, manyHands := contender{name: "by hand", open: tuned{}.open}, contender{name: "by hand, four of each", open: tuned{copies: 4}.open}
	sameLoose, sameKeyed := contender{name: "Pabal's rows by hand", open: sameRows{}.open}, contender{name: "by hand, ordered", open: sameRows{keyed: true}.open}
	all, err := s.rounds(ctx, b, pgLoad{each: b.each}, plain, keyed, many, hand, manyHands, sameLoose, sameKeyed)
	if err != nil {
		return nil, err
	}
	return []row{
		{fmt.Sprintf("%s, Record with %d keys", whatPipeline, orderKeys), spread(all.each(keyed.name, pgResult.rate), "%.0f") +
			fmt.Sprintf(" events/s; an event: %.0f bytes of WAL", median(all.each(keyed.name, func(r pgResult) float64 { return r.per(float64(r.used.wal)) }))), ""},
		{"ratio to without keys", spread(all.ratio(keyed.name, plain.name), "%.2f"), "≥ 0.75"},
		{"the same ratio of the hand-tuned pipeline with Pabal's rows", spread(all.ratio(sameKeyed.name, sameLoose.name), "%.2f"), ""},
		{whatPipeline + ", four relays and four of each consumer, in one process", fmt.Sprintf("%s events/s, %.0f published again",
			spread(all.each(many.name, pgResult.rate), "%.0f"),
			median(all.each(many.name, func(r pgResult) float64 { return float64(r.repeated) }))), "0 published again"},
		{"ratio to one of each", spread(all.ratio(many.name, plain.name), "%.2f"), "≥ 1.0"},
		{"the same ratio of the hand-tuned pipeline", spread(all.ratio(manyHands.name, hand.name), "%.2f"), ""},
	}, nil
}

// sqlSweeps is what the sweeps have cost, of the client's and of the inboxes': the first statement of each.
const sqlSweeps = `select coalesce(sum(s.calls), 0)::bigint, coalesce(sum(s.total_exec_time), 0), coalesce(max(s.max_exec_time), 0)
	from pg_stat_statements s join pg_database d on d.oid = s.dbid
	where d.datname like $1 || '\_%' and (s.query like 'with recursive other%' or s.query like 'select exists (select from pabal_inbox%')`

// snapshotRun is traffic at full rate, beside a transaction that holds a snapshot and the event tables' locks open, or not.
type snapshotRun struct {
	held    bool
	rate    float64
	sweeps  string
	longest atomic.Int64 // of the transactions, in ns
}

// heldSnapshot looks at what the sweeps cost when vacuum may remove nothing, and how long a transaction takes at most while the
// retention tries once a second to drop a day that a query holds.
func (s *stand) heldSnapshot(ctx context.Context, b *bench) (rows []row, err error) {
	runs := [2]snapshotRun{{held: false}, {held: true}}
	for i := range runs {
		one := &runs[i]
		r, err := s.do(ctx, contender{name: "Pabal", watched: true, open: one.open}, pgLoad{each: b.long, counted: true})
		if err != nil {
			return rows, err
		}
		what, ratio := fmt.Sprintf("sweeps at full rate for %v", b.long), ""
		if one.rate = r.rate(); one.held {
			what += ", beside a transaction with a snapshot from before and the retention's attempts"
			ratio = fmt.Sprintf(", ratio %.2f", one.rate/runs[0].rate)
		}
		rows = append(rows, row{what, fmt.Sprintf("%s; %.0f events/s%s; the longest transaction %.0f ms", one.sweeps, one.rate, ratio,
			float64(one.longest.Load())/1e6), ""})
	}
	return rows, nil
}

func (r *snapshotRun) open(ctx context.Context, t *site) (*line, error) {
	l, err := pabalLine{}.open(ctx, t)
	if err != nil {
		return nil, err
	}
	release := func() error { return nil }
	if r.held {
		if release, err = t.hold(ctx); err != nil {
			return l, err
		}
	}
	write, stop, check := l.write, l.stop, l.check
	l.write = func(ctx context.Context, n int) error {
		start := time.Now()
		err := write(ctx, n)
		for took := int64(time.Since(start)); ; {
			if most := r.longest.Load(); took <= most || r.longest.CompareAndSwap(most, took) {
				return err
			}
		}
	}
	l.stop = func() error { return errors.Join(release(), stop()) }
	l.check = func(ctx context.Context, events int) error {
		var calls int64
		var sum, most float64
		if err := t.admin.QueryRow(ctx, sqlSweeps, t.name).Scan(&calls, &sum, &most); err != nil {
			return err
		}
		r.sweeps = fmt.Sprintf("%.2f ms each (at most %.1f)", sum/float64(max(calls, 1)), most)
		return check(ctx, events)
	}
	return l, nil
}

// hold holds a snapshot of the producer's database open, with a query over all days of events, and once a second has the
// retention try to drop one.
func (t *site) hold(ctx context.Context) (release func() error, err error) {
	store, err := pabalpgx.New(t.order, nil)
	if err != nil {
		return nil, err
	}
	c, err := pgx.Connect(ctx, t.pg.Database(t.name+"_order"))
	if err != nil {
		return nil, err
	}
	if _, err = c.Exec(ctx, createPast); err == nil {
		_, err = c.Exec(ctx, "begin isolation level repeatable read; select count(*) from pabal_event")
	}
	attempts, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-attempts.Done():
				done <- nil
				return
			case <-tick.C:
			}
			forget := driver.Chore{Forget: &driver.Forget{Before: time.Now().AddDate(0, 0, -7), Limit: 100}}
			if _, err := store.Tend(attempts, forget); err != nil && attempts.Err() == nil {
				done <- err
				return
			}
		}
	}()
	return func() error {
		stop()
		return errors.Join(<-done, c.Close(context.Background()))
	}, err
}

// A past of events, spread over the days that are kept.
const (
	createPast = `do $$ declare parent text; part text; begin
		for i in 1 .. 30 loop
			foreach parent in array array['pabal_event', 'pabal_published'] loop
				part := parent || '_' || to_char(current_date - i, 'YYYYMMDD');
				execute format('create table %I (like %I including all)', part, parent);
				execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, part,
					(current_date - i)::timestamp at time zone 'UTC', (current_date - i + 1)::timestamp at time zone 'UTC');
			end loop;
		end loop;
	end $$`
	fillPast = `with past as (
			insert into pabal_event (recorded_at, id, position, topic, type, key, content_type, version, traceparent, payload)
			select current_date::timestamp at time zone 'UTC' - n * interval '30 days' / $1::bigint, gen_random_uuid(), 0, 'order-pay-done',
				'order-pay-done', '', 'application/json', '', '', $2::bytea
			from generate_series(1, $1::bigint) n
			returning recorded_at, id
		)
		insert into pabal_published (recorded_at, id, published_at) select recorded_at, id, recorded_at + interval '1 second' from past`
	fillInbox = `insert into pabal_inbox (consumer, source, id, job, recorded_at, sent_at, received_at, position, state, topic, key, type)
		select $2::text, 'order', gen_random_uuid(), '00000000-0000-0000-0000-000000000000', at, at, at, 0, 0, 'order-pay-done', '', 'order-pay-done'
		from (select current_date::timestamp at time zone 'UTC' - n * interval '30 days' / $1::bigint as at
			from generate_series(1, $1::bigint) n) past`
)

// confirmedBefore compares full tables with empty ones: the producer's and each consumer's.
func (s *stand) confirmedBefore(ctx context.Context, b *bench) ([]row, error) {
	var sites [2]*site
	var lines [2]*line
	for i := range sites {
		t, err := s.open(ctx, true, false, newJournal(1, services))
		if t != nil {
			defer t.close()
		}
		if err != nil {
			return nil, err
		}
		p, err := pabalLine{}.start(ctx, t)
		if err != nil {
			return nil, err
		}
		sites[i], lines[i] = t, &line{write: p.record, owed: p.owed, stop: p.works.stop}
	}
	defer lines[0].stop() //nolint:errcheck // on the way out
	defer lines[1].stop() //nolint:errcheck // on the way out
	if err := sites[1].past(ctx, b.confirmed); err != nil {
		return nil, err
	}
	var rates [2][]float64
	var ratio []float64
	for range b.rounds {
		for i, t := range sites {
			r, err := t.again(ctx, lines[i], pgLoad{each: b.each})
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], r.rate())
		}
		ratio = append(ratio, rates[1][len(rates[1])-1]/rates[0][len(rates[0])-1])
	}
	return []row{
		{whatPipeline + ", into empty tables", spread(rates[0], "%.0f") + " events/s", ""},
		{fmt.Sprintf("the same with %d confirmed events in the producer's tables, and as many in each inbox", b.confirmed),
			spread(rates[1], "%.0f") + " events/s", ""},
		{"ratio of the two", spread(ratio, "%.2f"), "≥ 0.92"},
	}, errors.Join(lines[0].stop(), lines[1].stop())
}

// past fills a site's tables.
func (t *site) past(ctx context.Context, events int) error {
	if _, err := t.order.Exec(ctx, createPast); err != nil {
		return err
	}
	for i, pool := range t.service {
		if _, err := pool.Exec(ctx, fillInbox, events, fmt.Sprint("service", i+1)); err != nil {
			return err
		}
		if _, err := pool.Exec(ctx, "vacuum analyze"); err != nil {
			return err
		}
	}
	return t.fill(ctx, events, fillPast)
}

// again measures once more on a site that runs; orders and effects begin anew.
func (t *site) again(ctx context.Context, l *line, load pgLoad) (r pgResult, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pgTime, fmt.Errorf("it took longer than %v", pgTime))
	defer cancel()
	if _, err := t.order.Exec(ctx, "truncate orders"); err != nil {
		return r, err
	}
	for _, pool := range t.service {
		if _, err := pool.Exec(ctx, "truncate effect"); err != nil {
			return r, err
		}
	}
	t.journal = newJournal(pgMost+1, services)
	if r, err = t.measure(ctx, l, load, pgMost); err != nil {
		return r, err
	}
	return r, t.exact(ctx, r.events+1)
}

const outageRate = 500

// outage has the broker killed for a while, beside traffic at a steady rate.
func (s *stand) outage(ctx context.Context, b *bench) ([]row, error) {
	t, err := s.alone(ctx, true)
	if err != nil {
		return nil, err
	}
	defer t.close()
	phases := [3]time.Duration{10 * time.Second, b.long, 5 * time.Second} // before, during, after
	total := ordersOf(phases, outageRate)
	t.journal = newJournal(total+1, services)
	p, err := pabalLine{}.start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer p.works.stop() //nolint:errcheck // on the way out
	o := &outageRun{
		rate: outageRate, write: p.record, owed: p.owed, journal: t.journal, took: make([]time.Duration, total+1),
		away: func() error { s.nats.Kill(); return nil }, back: s.nats.Restart,
	}
	if err := o.run(ctx, phases, total); err != nil {
		return nil, err
	}
	if err := errors.Join(p.works.stop(), t.exact(ctx, total+1), p.sameSettled(ctx, total+1)); err != nil {
		return nil, err
	}
	return o.rows("broker killed and", phases, &p.seen, 30), nil
}
