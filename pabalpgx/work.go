package pabalpgx

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	pendingColumns = `p.id, p.recorded_at, p.topic, p.due_at, p.claims, p.crashes, p.failures, p.accepted_at, p.sent_at, p.last_error`
	eventColumns   = `e.id, e.topic, e.type, e.key, e.content_type, e.version, e.payload, e.headers, e.traceparent, e.recorded_at,
		e.position, e.prev_id, e.prev_position, e.prev_at, e.bare, e.skipped`

	// A clock in a CTE is asked once, and a condition with it can use an index, which one with the function cannot.
	theClock = `with clock as materialized (select clock_timestamp() as now) `

	sqlPendingByID = theClock + `select (select now from clock), ` + pendingColumns + ` from {p}pending p
		where p.id = any ($1::text[]::uuid[]) for update of p skip locked`
	sqlDueFresh = theClock + `select (select now from clock), ` + pendingColumns + ` from {p}pending p
		where p.topic = $1::text and p.due_at >= $2::timestamptz and p.due_at <= (select now from clock) and p.accepted_at is null
		order by p.due_at limit $3::bigint for update of p skip locked`
	sqlDueAccepted = theClock + `select (select now from clock), ` + pendingColumns + ` from {p}pending p
		where p.topic = $1::text and p.due_at >= $2::timestamptz and p.due_at <= (select now from clock)
			and p.accepted_at < $4::timestamptz
		order by p.due_at limit $3::bigint for update of p skip locked`
	sqlProbe = `insert into {p}topic as t (name, probed_at) values ($1::text, clock_timestamp())
		on conflict (name) do update set probed_at = clock_timestamp()
		where t.probed_at is null or t.probed_at <= clock_timestamp() - $2::bigint * interval '1 microsecond'`

	sqlUpdatePending = `update {p}pending p set due_at = d.due_at, claims = d.claims, crashes = d.crashes, failures = d.failures,
			accepted_at = d.accepted_at, sent_at = d.sent_at, last_error = d.last_error
		from unnest($1::text[]::uuid[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
			$8::text[]) as d (id, due_at, claims, crashes, failures, accepted_at, sent_at, last_error)
		where p.id = d.id`
	// The two conditions find the partition, and in it the row.
	oneEvent      = `e.recorded_at = r.recorded_at and e.id = r.id`
	sqlSkipEvents = `update {p}event e set skipped = true
		from unnest($1::text[]::uuid[], $2::timestamptz[]) as r (id, recorded_at) where ` + oneEvent
	sqlEventsByRef = `select ` + eventColumns + ` from unnest($1::text[]::uuid[], $2::timestamptz[]) as r (id, recorded_at)
		join {p}event e on ` + oneEvent

	// Locked in the order of ids: several settle and confirm at the same time.
	sqlSettle = `with v as materialized (
			select * from unnest($1::text[]::uuid[], $2::bigint[], $3::boolean[], $4::boolean[], $5::bigint[], $6::text[])
				as v (id, claims, accepted, park, delay, error)
		), free as materialized (
			select p.id from v join {p}pending p on p.id = v.id and p.claims = v.claims for update of p skip locked
		), clock as materialized (select clock_timestamp() as now)
		update {p}pending p set crashes = 0,
			due_at = case when not v.park then clock.now + v.delay * interval '1 microsecond' end,
			accepted_at = case when v.accepted then clock.now else p.accepted_at end,
			last_error = case when v.error <> '' then v.error else p.last_error end
		from clock, free join v on v.id = free.id where p.id = free.id and p.claims = v.claims`

	// What comes back is mostly pending. In the order of ids, as sqlConfirm.
	sqlConfirmPending = `with gone as (
			delete from {p}pending p using unnest($1::text[]::uuid[]) as r (id) where p.id = r.id returning p.id, p.recorded_at
		), published as (
			insert into {p}published (recorded_at, id, published_at) select gone.recorded_at, gone.id, clock_timestamp() from gone
			on conflict do nothing
		)
		select id, 1 from gone`
	sqlConfirm = `with r as materialized (
			select * from unnest($1::text[]::uuid[], $2::timestamptz[]) as r (id, recorded_at)
		), held as materialized (
			select p.id from r join {p}pending p on p.id = r.id order by p.id for update of p
		), gone as (
			delete from {p}pending p using held where p.id = held.id returning p.id, p.recorded_at
		), clock as materialized (select clock_timestamp() as now),
		published as (
			insert into {p}published (recorded_at, id, published_at) select r.recorded_at, r.id, clock.now from gone r, clock
			where (select true from {p}published e where ` + oneEvent + ` limit 1) is null
		)
		select r.id, case when gone.id is not null then 1
			when exists (select from {p}event e where ` + oneEvent + `) then 2 else 0 end
		from r left join gone on gone.id = r.id`
)

// farFuture stands for "whenever".
var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func pendingFields(p *driver.Pending) []any {
	return []any{nullID{&p.ID}, nullTime{&p.RecordedAt}, &p.Topic, nullTime{&p.DueAt}, &p.Claims, &p.Crashes, &p.Failures,
		nullTime{&p.AcceptedAt}, nullTime{&p.SentAt}, &p.LastError}
}

func eventFields(e *driver.Event) []any {
	return []any{nullID{&e.ID}, &e.Topic, &e.Type, &e.Key, &e.ContentType, &e.Version, &e.Payload, &e.Headers, &e.Traceparent,
		nullTime{&e.RecordedAt}, &e.Position, nullID{&e.Prev.ID}, nullInt{&e.Prev.Position}, nullTime{&e.Prev.RecordedAt}, &e.Bare, &e.Skipped}
}

// Claim implements driver.Store.
func (b *base) Claim(ctx context.Context, sel driver.Selection) (claimed []driver.Claimed, err error) {
	err = b.write(ctx, func(s session) error {
		now, rows, err := selectPending(ctx, s, &sel)
		if err != nil || len(rows) == 0 {
			return err
		}
		claimed, err = decide(ctx, s, sel.Decide(now, rows))
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func selectPending(ctx context.Context, s session, sel *driver.Selection) (now time.Time, rows []driver.Pending, err error) {
	scan := func(row scanner) error {
		var p driver.Pending
		err := row.Scan(append([]any{nullTime{&now}}, pendingFields(&p)...)...)
		rows = append(rows, p)
		return err
	}
	if len(sel.IDs) > 0 {
		err = s.query(ctx, scan, sqlPendingByID, refIDs(sel.IDs))
		return now, rows, err
	}
	if sel.Probe > 0 {
		n, err := s.exec(ctx, sqlProbe, sel.Topic, sel.Probe.Microseconds())
		if err != nil || n == 0 {
			return now, nil, err
		}
	}
	due := statement{name: "select what is due", query: sqlDueFresh, args: []any{sel.Topic, sel.After, sel.Limit}, scan: scan}
	if sel.Accepted {
		before := sel.AcceptedBefore
		if before.IsZero() {
			before = farFuture
		}
		due.query, due.args = sqlDueAccepted, append(due.args, before)
	}
	err = s.all(ctx, []statement{due})
	return now, rows, err
}

// decide writes decisions back and joins their events, in one round trip.
func decide(ctx context.Context, s session, decisions []driver.Decision) ([]driver.Claimed, error) {
	n := len(decisions)
	if n == 0 {
		return nil, nil
	}
	claimed := make([]driver.Claimed, n)
	index := make(map[uuid.UUID]int, n)
	refs := make([]driver.Ref, n)
	var skipped []driver.Ref
	due, accepted, sent := make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	claims, crashes, failures := make([]int64, n), make([]int64, n), make([]int64, n)
	errs := make([]string, n)
	for i := range decisions {
		d := &decisions[i]
		claimed[i].Pending, index[d.ID] = d.Pending, i
		refs[i] = driver.Ref{ID: d.ID, RecordedAt: d.RecordedAt}
		due[i], accepted[i], sent[i] = timeOrNull(d.DueAt), timeOrNull(d.AcceptedAt), timeOrNull(d.SentAt)
		claims[i], crashes[i], failures[i] = int64(d.Claims), int64(d.Crashes), int64(d.Failures)
		errs[i] = d.LastError
		if d.Skip {
			skipped = append(skipped, refs[i])
		}
	}
	list := []statement{{name: "write decisions", query: sqlUpdatePending,
		args: []any{refIDs(refs), due, claims, crashes, failures, accepted, sent, errs}}}
	if len(skipped) > 0 {
		list = append(list, statement{name: "mark skips", query: sqlSkipEvents, args: []any{refIDs(skipped), refTimes(skipped)}})
	}
	list = append(list, statement{name: "read events", query: sqlEventsByRef, args: []any{refIDs(refs), refTimes(refs)},
		scan: func(row scanner) error {
			var e driver.Event
			err := row.Scan(eventFields(&e)...)
			if err == nil {
				claimed[index[e.ID]].Event = e
			}
			return err
		}})
	return claimed, s.all(ctx, list)
}

// Settle implements driver.Store: one statement.
func (b *base) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	n := len(verdicts)
	if n == 0 {
		return nil
	}
	claims, delays := make([]int64, n), make([]int64, n)
	accepted, park := make([]bool, n), make([]bool, n)
	errs := make([]string, n)
	for i := range verdicts {
		v := &verdicts[i]
		claims[i], delays[i], accepted[i], park[i], errs[i] = int64(v.Claims), v.Delay.Microseconds(), v.Accepted, v.Park, v.Error
	}
	return b.once(ctx, sqlByIndex, statement{name: "settle", query: sqlSettle, args: []any{
		ids(verdicts, func(v *driver.Settlement) uuid.UUID { return v.ID }), claims, accepted, park, delays, errs,
	}})
}

// Confirm implements driver.Store: one statement, and one more for what is not pending.
func (b *base) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	if len(events) == 0 {
		return nil, nil
	}
	found := make(map[uuid.UUID]driver.Confirmation, len(events))
	confirm := func(query string, args ...any) error {
		return b.once(ctx, sqlByIndex, statement{name: "confirm", query: query, args: args, scan: func(row scanner) error {
			var id uuid.UUID
			var answer int
			err := row.Scan(nullID{&id}, &answer)
			found[id] = driver.Confirmation(answer)
			return err
		}})
	}
	sorted := refIDs(events)
	slices.Sort(sorted)
	if err := confirm(sqlConfirmPending, sorted); err != nil {
		return nil, err
	}
	var others []driver.Ref
	for _, ref := range events {
		if _, is := found[ref.ID]; !is {
			others = append(others, ref)
		}
	}
	if len(others) > 0 {
		if err := confirm(sqlConfirm, refIDs(others), refTimes(others)); err != nil {
			return nil, err
		}
	}
	answers := make([]driver.Confirmation, len(events))
	for i, ref := range events {
		if answers[i] = found[ref.ID]; answers[i] == driver.Confirmed {
			found[ref.ID] = driver.Known // a second copy in the batch
		}
	}
	return answers, nil
}
