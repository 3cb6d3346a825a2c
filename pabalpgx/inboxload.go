package pabalpgx

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	// In a subquery, an array is one of whose length the planner knows nothing: see eventInput.
	sqlInsertArrivals = `insert into {p}inbox as i (consumer, id, source, topic, key, job, type, position, prev_id, prev_position, prev_at,
			recorded_at, sent_at, received_at, state)
		select $1::text, v.*, clock_timestamp(), 0 from unnest((select $2::text[]::uuid[]), (select $3::text[]), (select $4::text[]),
			(select $5::text[]), (select $6::text[]::uuid[]), (select $7::text[]), (select $8::bigint[]), (select $9::text[]::uuid[]),
			(select $10::bigint[]), (select $11::timestamptz[]), (select $12::timestamptz[]), (select $13::timestamptz[])) as v
		on conflict do nothing returning i.id, i.source, i.job`
	// Most transactions place one event.
	sqlInsertArrival = `insert into {p}inbox as i (consumer, id, source, topic, key, job, type, position, prev_id, prev_position, prev_at,
			recorded_at, sent_at, received_at, state)
		values ($1::text, $2::text::uuid, $3::text, $4::text, $5::text, $6::text::uuid, $7::text, $8::bigint, $9::text::uuid, $10::bigint,
			$11::timestamptz, $12::timestamptz, $13::timestamptz, clock_timestamp(), 0)
		on conflict do nothing returning i.id, i.source, i.job`
	// Each row is looked up by itself (offset 0: the planner may not join it). Of a table without statistics the planner thinks that
	// few rows belong to the consumer, and reads all of them.
	sqlKnown = `select ` + rowColumns + ` from unnest((select $2::text[]::uuid[]), (select $3::text[]), (select $4::text[]::uuid[])) as v (id, source, job)
		cross join lateral (select * from {p}inbox i
			where i.consumer = $1::text and i.id = v.id and i.source = v.source and i.job = v.job offset 0) i`

	keyInput = `unnest((select $2::text[]), (select $3::text[]), (select $4::text[]), (select $5::text[]::uuid[]))
		with ordinality as k (source, topic, key, job, n)`
	// A row that is there already is locked, and not written: its condition is never true (PostgreSQL manual, INSERT: "all rows will
	// be locked").
	sqlLockCursors = `insert into {p}cursor as c (consumer, source, topic, key, job, moved_at, last_day)
		select $1::text, k.source, k.topic, k.key, k.job, clock_timestamp(), (clock_timestamp() at time zone 'UTC')::date from ` + keyInput + ` order by k.n
		on conflict (consumer, source, topic, key, job) do update set moved_at = c.moved_at where false`
	keyCursors = keyInput + ` cross join lateral (select * from {p}cursor c
			where c.consumer = $1::text and c.source = k.source and c.topic = k.topic and c.key = k.key and c.job = k.job offset 0) c`
	sqlReadCursors = `select k.n, ` + cursorColumns + `, (select true from {p}inbox i where ` + oneWaiting + ` limit 1) is not null
		from ` + keyCursors + ` order by k.n`
	oneWaiting = `i.consumer = $1::text and i.source = k.source and i.topic = k.topic and i.key = k.key and i.job = k.job and i.state <> 0`
	sqlWaiting = `select k.n, ` + rowColumns + ` from ` + keyCursors + `
		cross join lateral (select * from {p}inbox i where ` + oneWaiting + ` and (i.state = 1 or i.position > c.last_position)
			order by i.position limit $6::bigint) i
		order by k.n, i.position`
	sqlCountHeld = `select k.n, (select count(*) from (select from {p}inbox i where ` + oneWaiting + ` and i.state = 1 limit $6::bigint) few)
		from ` + keyInput
	// What the inbox remembers is asked after what it knows: rows are forgotten by whoever has said so before.
	sqlMemory = `select clock_timestamp(), m.n, c.joined_at,
			(select f.forgot_before from {p}consumer f where f.consumer = $1::text and f.source = '' and f.topic = '')
		from unnest((select $2::text[]), (select $3::text[])) with ordinality as m (source, topic, n)
		left join {p}consumer c on c.consumer = $1::text and c.source = m.source and c.topic = m.topic
		union all select clock_timestamp(), 0, null, null`
	sqlMemoryOfOne = `select clock_timestamp(), 1,
		(select c.joined_at from {p}consumer c where c.consumer = $1::text and c.source = $2::text and c.topic = $3::text),
		(select f.forgot_before from {p}consumer f where f.consumer = $1::text and f.source = '' and f.topic = '')`
)

// identity is what a row of the inbox is known by.
type identity struct {
	id, job uuid.UUID
	source  string
}

func identityOf(r *driver.Row) identity { return identity{r.ID, r.Job, r.Source} }

// load places arrivals, in one round trip over pgx unless something has arrived before, or waits.
func load(ctx context.Context, s session, l driver.Load) (driver.Loaded, error) {
	r := driver.Loaded{
		Known: make([]*driver.Row, len(l.Arrivals)), Cursors: make([]driver.Cursor, len(l.Keys)),
		Waiting: make([][]driver.Row, len(l.Keys)), WaitingCount: make([]int, len(l.Keys)),
	}
	fresh := make(map[identity]bool, len(l.Arrivals))
	isFresh := func(row scanner) error {
		var at identity
		err := row.Scan(nullID{&at.id}, &at.source, nullID{&at.job})
		fresh[at] = true
		return err
	}
	var list []statement
	switch len(l.Arrivals) {
	case 0:
	case 1:
		a := &l.Arrivals[0]
		list = append(list, statement{name: "insert arrival", query: sqlInsertArrival, args: []any{l.Consumer, a.ID.String(), a.Source, a.Topic,
			a.Key, a.Job.String(), a.Type, a.Position, idOrNull(a.Prev.ID), positionOrNull(a.Prev.Position), timeOrNull(a.Prev.RecordedAt),
			a.RecordedAt, a.SentAt}, scan: isFresh})
	default:
		list = append(list, statement{name: "insert arrivals", query: sqlInsertArrivals, args: arrivalArgs(&l), scan: isFresh})
	}
	var behind some
	list = append(list, keyStatements(&l, &r, &behind)...)
	list = append(list, memoryStatement(&l, &r))
	if err := s.all(ctx, list); err != nil {
		return r, err
	}
	if err := readWaiting(ctx, s, &l, &r, &behind); err != nil {
		return r, err
	}
	return r, errors.Join(readKnown(ctx, s, &l, &r, fresh), countHeld(ctx, s, &l, &r))
}

// arrivalArgs lists the arrivals in an order of their own, so that two transactions do not wait for each other.
func arrivalArgs(l *driver.Load) []any {
	rows := slices.Clone(l.Arrivals)
	slices.SortFunc(rows, func(a, b driver.Row) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), slices.Compare(a.ID[:], b.ID[:]), slices.Compare(a.Job[:], b.Job[:]))
	})
	a := columnsOf(rows)
	return []any{l.Consumer, a.id, a.source, a.topic, a.key, a.job, a.typ, a.position, a.prevID, a.prevPosition, a.prevAt, a.recordedAt, a.sentAt}
}

func keyArgs(consumer string, keys []driver.CursorKey, more ...any) []any {
	n := len(keys)
	source, topic, key := make([]string, n), make([]string, n), make([]string, n)
	for i := range keys {
		source[i], topic[i], key[i] = keys[i].Source, keys[i].Topic, keys[i].Key
	}
	job := ids(keys, func(k *driver.CursorKey) uuid.UUID { return k.Job })
	return append([]any{consumer, source, topic, key, job}, more...)
}

// keyStatements lock the cursors in the contract's order, and read them; behind becomes those for which something waits.
func keyStatements(l *driver.Load, r *driver.Loaded, behind *some) []statement {
	if len(l.Keys) == 0 {
		return nil
	}
	order := make([]int, len(l.Keys)) // of locking → of Keys
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return compareKeys(l.Keys[a], l.Keys[b]) })
	keys := make([]driver.CursorKey, len(order))
	for n, i := range order {
		keys[n] = l.Keys[i]
		r.Cursors[i].CursorKey = l.Keys[i]
	}
	return []statement{
		{name: "lock cursors", query: sqlLockCursors, args: keyArgs(l.Consumer, keys)},
		{name: "read cursors", query: sqlReadCursors, args: keyArgs(l.Consumer, keys), scan: func(row scanner) error {
			var n int
			var c driver.Cursor
			var waits bool
			err := row.Scan(append(append([]any{&n}, cursorFields(&c)...), &waits)...)
			if err == nil {
				i := order[n-1]
				c.CursorKey = l.Keys[i]
				r.Cursors[i] = c
				if waits {
					behind.keys, behind.index = append(behind.keys, l.Keys[i]), append(behind.index, i)
				}
			}
			return err
		}},
	}
}

// some are some of a Load's keys.
type some struct {
	keys  []driver.CursorKey
	index []int // of Keys
}

// readWaiting reads what waits for cursors. Mostly nothing does.
func readWaiting(ctx context.Context, s session, l *driver.Load, r *driver.Loaded, behind *some) error {
	if l.Waiting == 0 || len(behind.keys) == 0 {
		return nil
	}
	return s.query(ctx, func(row scanner) error {
		var n int
		var w driver.Row
		err := row.Scan(append([]any{&n}, rowFields(&w)...)...)
		if err == nil {
			i := behind.index[n-1]
			r.Waiting[i] = append(r.Waiting[i], w)
		}
		return err
	}, sqlWaiting, keyArgs(l.Consumer, behind.keys, l.Waiting)...)
}

func compareKeys(a, b driver.CursorKey) int {
	return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Topic, b.Topic), strings.Compare(a.Key, b.Key),
		slices.Compare(a.Job[:], b.Job[:]))
}

func memoryStatement(l *driver.Load, r *driver.Loaded) statement {
	var source, topic []string
	note := func(k driver.CursorKey) {
		for _, m := range r.Memory {
			if m.Source == k.Source && m.Topic == k.Topic {
				return
			}
		}
		r.Memory = append(r.Memory, driver.Memory{Source: k.Source, Topic: k.Topic})
		source, topic = append(source, k.Source), append(topic, k.Topic)
	}
	for i := range l.Arrivals {
		note(l.Arrivals[i].CursorKey)
	}
	for _, k := range l.Keys {
		note(k)
	}
	query, args := sqlMemory, []any{l.Consumer, source, topic}
	if len(r.Memory) == 1 {
		query, args = sqlMemoryOfOne, []any{l.Consumer, source[0], topic[0]}
	}
	return statement{name: "read memory", query: query, args: args, scan: func(row scanner) error {
		var n int
		var joined, forgot time.Time
		err := row.Scan(nullTime{&r.Now}, &n, nullTime{&joined}, nullTime{&forgot})
		if err == nil && n > 0 {
			r.Memory[n-1].JoinedAt, r.Memory[n-1].ForgotBefore = joined, forgot
		}
		return err
	}}
}

// readKnown reads the rows of arrivals that were there already.
func readKnown(ctx context.Context, s session, l *driver.Load, r *driver.Loaded, fresh map[identity]bool) error {
	var old []driver.Row
	for i := range l.Arrivals {
		if !fresh[identityOf(&l.Arrivals[i])] {
			old = append(old, l.Arrivals[i])
		}
	}
	if len(old) == 0 {
		return nil
	}
	a := columnsOf(old)
	known := make(map[identity]*driver.Row, len(old))
	err := s.query(ctx, func(row scanner) error {
		var k driver.Row
		err := row.Scan(rowFields(&k)...)
		known[identityOf(&k)] = &k
		return err
	}, sqlKnown, l.Consumer, a.id, a.source, a.job)
	for i := range l.Arrivals {
		r.Known[i] = known[identityOf(&l.Arrivals[i])]
	}
	return err
}

// countHeld counts the held rows of the keys of which perhaps not all were read.
func countHeld(ctx context.Context, s session, l *driver.Load, r *driver.Loaded) error {
	var full some
	for i := range l.Keys {
		for k := range r.Waiting[i] {
			if r.Waiting[i][k].State == driver.Held {
				r.WaitingCount[i]++
			}
		}
		if len(r.Waiting[i]) == l.Waiting {
			full.keys, full.index = append(full.keys, l.Keys[i]), append(full.index, i)
		}
	}
	if len(full.keys) == 0 {
		return nil
	}
	return s.query(ctx, func(row scanner) error {
		var n, held int
		err := row.Scan(&n, &held)
		if err == nil {
			r.WaitingCount[full.index[n-1]] = held
		}
		return err
	}, sqlCountHeld, keyArgs(l.Consumer, full.keys, driver.CountMax)...)
}
