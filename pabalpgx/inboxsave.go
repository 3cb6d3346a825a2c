package pabalpgx

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	sqlSaveRows = `insert into {p}inbox (consumer, id, source, topic, key, job, type, position, prev_id, prev_position, prev_at, recorded_at,
			sent_at, received_at, state, reason, next_at, failures, started, last_error, body)
		select $1::text, v.id, v.source, v.topic, v.key, v.job, v.type, v.position, v.prev_id, v.prev_position, v.prev_at, v.recorded_at,
			v.sent_at, clock_timestamp(), v.state, v.reason, v.next_at, v.failures, v.started, v.last_error, v.body
		from unnest($2::text[]::uuid[], $3::text[], $4::text[], $5::text[], $6::text[]::uuid[], $7::text[], $8::bigint[],
			$9::text[]::uuid[], $10::bigint[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::bigint[], $15::text[],
			$16::timestamptz[], $17::bigint[], $18::bigint[], $19::text[], $20::bytea[])
			as v (id, source, topic, key, job, type, position, prev_id, prev_position, prev_at, recorded_at, sent_at, state, reason,
				next_at, failures, started, last_error, body)
		on conflict (consumer, id, source, job) do update set topic = excluded.topic, key = excluded.key, type = excluded.type,
			position = excluded.position, prev_id = excluded.prev_id, prev_position = excluded.prev_position,
			prev_at = excluded.prev_at, recorded_at = excluded.recorded_at, sent_at = excluded.sent_at, state = excluded.state,
			reason = excluded.reason, next_at = excluded.next_at, failures = excluded.failures, started = excluded.started,
			last_error = excluded.last_error, body = excluded.body`
	sqlDeleteRows = `delete from {p}inbox i using unnest($2::text[]::uuid[], $3::text[], $4::text[]::uuid[]) as v (id, source, job)
		where i.consumer = $1::text and i.id = v.id and i.source = v.source and i.job = v.job`
	sqlSaveCursors = `insert into {p}cursor (consumer, source, topic, key, job, begun, began, last_id, last_position, last_at,
			over_id, over_position, over_at, moved_at, last_day)
		select $1::text, v.*, clock_timestamp(), (coalesce(v.last_at, clock_timestamp()) at time zone 'UTC')::date
		from unnest((select $2::text[]), (select $3::text[]), (select $4::text[]), (select $5::text[]::uuid[]), (select $6::boolean[]),
			(select $7::bigint[]), (select $8::text[]::uuid[]), (select $9::bigint[]), (select $10::timestamptz[]),
			(select $11::text[]::uuid[]), (select $12::bigint[]), (select $13::timestamptz[]))
			as v (source, topic, key, job, begun, began, last_id, last_position, last_at, over_id, over_position, over_at)
		on conflict (consumer, source, topic, key, job) do update set begun = excluded.begun, began = excluded.began,
			last_id = excluded.last_id, last_position = excluded.last_position, last_at = excluded.last_at,
			over_id = excluded.over_id, over_position = excluded.over_position, over_at = excluded.over_at,
			moved_at = excluded.moved_at, last_day = excluded.last_day`

	sqlDue = theClock + `select (select now from clock), ` + rowColumns + ` from {p}inbox i
		where i.consumer = $1::text and i.state <> 0 and i.next_at <= (select now from clock)
		order by i.next_at limit $2::bigint for update of i skip locked`
	sqlDueByID = theClock + `select (select now from clock), ` + rowColumns + ` from {p}inbox i
		where i.consumer = $1::text and i.state <> 0 and i.id = any ($2::text[]::uuid[]) order by i.id for update of i skip locked`
	sqlAnyDue = `select exists (select from {p}inbox i where i.consumer = $1::text and i.state <> 0
		and i.next_at <= (select clock_timestamp()))`
)

// columns are rows, column by column.
type columns struct {
	id, source, topic, key, job, typ []string
	position                         []int64
	prevID                           []*string
	prevPosition                     []*int64
	prevAt                           []*time.Time
	recordedAt, sentAt               []time.Time
	state, failures, started         []int64
	reason, lastError                []string
	nextAt                           []*time.Time
	body                             [][]byte
}

func columnsOf(rows []driver.Row) (c columns) {
	for i := range rows {
		r := &rows[i]
		c.id, c.source, c.topic = append(c.id, r.ID.String()), append(c.source, r.Source), append(c.topic, r.Topic)
		c.key, c.job, c.typ = append(c.key, r.Key), append(c.job, r.Job.String()), append(c.typ, r.Type)
		c.position, c.prevID = append(c.position, r.Position), append(c.prevID, idOrNull(r.Prev.ID))
		c.prevPosition = append(c.prevPosition, positionOrNull(r.Prev.Position))
		c.prevAt = append(c.prevAt, timeOrNull(r.Prev.RecordedAt))
		c.recordedAt, c.sentAt = append(c.recordedAt, r.RecordedAt), append(c.sentAt, r.SentAt)
		c.state, c.reason = append(c.state, int64(r.State)), append(c.reason, r.Reason)
		c.failures, c.started = append(c.failures, int64(r.Failures)), append(c.started, int64(r.Started))
		c.nextAt, c.lastError = append(c.nextAt, timeOrNull(r.NextAt)), append(c.lastError, r.LastError)
		c.body = append(c.body, r.Body)
	}
	return c
}

func rowFields(r *driver.Row) []any {
	return []any{nullID{&r.ID}, &r.Source, &r.Topic, &r.Key, nullID{&r.Job}, &r.Type, &r.Position, nullID{&r.Prev.ID},
		nullInt{&r.Prev.Position}, nullTime{&r.Prev.RecordedAt}, nullTime{&r.RecordedAt}, nullTime{&r.SentAt}, &r.State, &r.Reason,
		nullTime{&r.NextAt}, &r.Failures, &r.Started, &r.LastError, &r.Body, nullTime{&r.ReceivedAt}}
}

func cursorFields(c *driver.Cursor) []any {
	return []any{&c.Begun, &c.Began, nullID{&c.Last.ID}, &c.Last.Position, nullTime{&c.Last.RecordedAt}, nullID{&c.Overflow.ID},
		nullInt{&c.Overflow.Position}, nullTime{&c.Overflow.RecordedAt}, nullTime{&c.MovedAt}}
}

// save writes rows and cursors, in one round trip over pgx.
func save(ctx context.Context, s session, v driver.Save) error {
	list := rowStatements(v.Consumer, v.Rows)
	if len(v.Cursors) > 0 {
		list = append(list, cursorStatement(v.Consumer, v.Cursors))
	}
	return s.all(ctx, list)
}

func rowStatements(consumer string, rows []driver.Row) (list []statement) {
	var gone, kept []driver.Row
	for i := range rows {
		if rows[i].State == driver.Gone {
			gone = append(gone, rows[i])
		} else {
			kept = append(kept, rows[i])
		}
	}
	if len(gone) > 0 {
		c := columnsOf(gone)
		list = append(list, statement{name: "delete rows", query: sqlDeleteRows, args: []any{consumer, c.id, c.source, c.job}})
	}
	if len(kept) > 0 {
		c := columnsOf(kept)
		list = append(list, statement{name: "save rows", query: sqlSaveRows, args: []any{consumer, c.id, c.source, c.topic, c.key, c.job,
			c.typ, c.position, c.prevID, c.prevPosition, c.prevAt, c.recordedAt, c.sentAt, c.state, c.reason, c.nextAt, c.failures, c.started,
			c.lastError, c.body}})
	}
	return list
}

func cursorStatement(consumer string, cursors []driver.Cursor) statement {
	n := len(cursors)
	keys := make([]driver.CursorKey, n)
	begun := make([]bool, n)
	began, position := make([]int64, n), make([]int64, n)
	id, overID := make([]*string, n), make([]*string, n)
	at, overAt := make([]*time.Time, n), make([]*time.Time, n)
	overPosition := make([]*int64, n)
	for i := range cursors {
		c := &cursors[i]
		keys[i], begun[i], began[i], position[i] = c.CursorKey, c.Begun, c.Began, c.Last.Position
		id[i], at[i] = idOrNull(c.Last.ID), timeOrNull(c.Last.RecordedAt)
		overID[i], overPosition[i], overAt[i] = idOrNull(c.Overflow.ID), positionOrNull(c.Overflow.Position), timeOrNull(c.Overflow.RecordedAt)
	}
	return statement{name: "save cursors", query: sqlSaveCursors,
		args: keyArgs(consumer, keys, begun, began, id, position, at, overID, overPosition, overAt)}
}

// Due implements driver.Inbox. Whether anything is due is asked before a transaction is begun.
func (l ledger) Due(ctx context.Context, sel driver.InboxSelection) (taken []driver.Row, err error) {
	query, args := sqlDue, []any{sel.Consumer, sel.Limit}
	if len(sel.IDs) > 0 {
		query, args = sqlDueByID, []any{sel.Consumer, ids(sel.IDs, func(id *uuid.UUID) uuid.UUID { return *id })}
	} else {
		due := false
		err := l.b.own().query(ctx, func(row scanner) error { return row.Scan(&due) }, sqlAnyDue, sel.Consumer)
		if err != nil || !due {
			return nil, err
		}
	}
	err = l.b.write(ctx, func(s session) error {
		var now time.Time
		var rows []driver.Row
		err := s.query(ctx, func(row scanner) error {
			var r driver.Row
			err := row.Scan(append([]any{nullTime{&now}}, rowFields(&r)...)...)
			rows = append(rows, r)
			return err
		}, query, args...)
		if err != nil || len(rows) == 0 {
			return err
		}
		taken = sel.Decide(now, rows)
		return s.all(ctx, rowStatements(sel.Consumer, taken))
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}
