package pabalpgx

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	// On a standby. A role of which transactions only read by default may be there for looking.
	readOnly = `pg_is_in_recovery()`

	// Topics that nobody registered are looked for between the names of those that are registered, by a loose scan of the index
	// (topic, due_at): one lookup for each name. So the entries of rows that are gone, which stay as long as some snapshot is as
	// old as they, are passed by; '~' comes after every character of a name.
	sqlTopics = `with recursive other (name, before) as (
			select (select p.topic from {p}pending p where p.topic > k.name and p.topic < k.next order by p.topic limit 1), k.next
			from (select name, lead(name, 1, '~') over (order by name) as next
				from (select '' as name union all select name from {p}topic) known) k
			union all
			select (select p.topic from {p}pending p where p.topic > other.name and p.topic < other.before order by p.topic limit 1), other.before
			from other where other.name is not null
		), names (name) as (select name from {p}topic union all select name from other where name is not null)
		select clock_timestamp(), m.source, m.generation, ` + readOnly + `, coalesce(n.name, ''), coalesce(t.ordered, false), t.proven_at, t.probed_at,
			coalesce(t.position_floor, 0),
			(select p.due_at from {p}pending p where p.topic = n.name and p.due_at >= $1::timestamptz order by p.due_at limit 1)
		from (select source, generation from {p}meta where id = 1) m left join names n on true
			left join {p}topic t on t.name = n.name order by n.name`
	sqlSourceOnly = `select clock_timestamp(), source, generation, ` + readOnly + ` from {p}meta where id = 1`

	sqlCountWaiting = `select count(*), min(recorded_at) from
		(select recorded_at from {p}pending where topic = $1::text and due_at is not null limit $2::bigint) few`
	sqlCountParked = `select count(*) from (select from {p}pending where topic = $1::text and due_at is null limit $2::bigint) few`

	// A list of ids without times: those that are pending are found by it, for the others the time in an id of version 7
	// says which days to look at (the recording machine's clock may differ from the database's, by an hour at most), and
	// what is not there is looked for everywhere.
	sqlFindNear = `select e.id, e.recorded_at from unnest($1::text[]::uuid[], $2::timestamptz[]) as r (id, near)
		cross join lateral (select * from {p}event e where e.id = r.id and e.recorded_at >= r.near - interval '1 hour'
			and e.recorded_at < r.near + interval '1 hour' offset 0) e`
	sqlFindPendingIDs = `select id, recorded_at from {p}pending where id = any ($1::text[]::uuid[])`
	sqlFindAnywhere   = `select e.id, e.recorded_at from {p}event e where e.id = any ($1::text[]::uuid[])`

	foundColumns = eventColumns + `, p.id, coalesce(p.recorded_at, e.recorded_at), coalesce(p.topic, ''), p.due_at, coalesce(p.claims, 0),
		coalesce(p.crashes, 0), coalesce(p.failures, 0), p.accepted_at, p.sent_at, coalesce(p.last_error, '')`
	sqlFind = `select ` + foundColumns + ` from {p}event e left join {p}pending p on p.id = e.id where `
	// When only unconfirmed events are asked for, the work list is the smaller table to begin with.
	sqlFindPending = `select ` + foundColumns + ` from {p}pending p join {p}event e on e.recorded_at = p.recorded_at and e.id = p.id where `

	// Of those that are not pending. As part of the statements above it would be asked of every row that they pass by.
	sqlPublishedByRef = `select e.id, e.published_at from unnest($1::text[]::uuid[], $2::timestamptz[]) as r (id, recorded_at)
		join {p}published e on ` + oneEvent

	sqlCountFound = `select count(*) from {p}event e left join {p}pending p on p.id = e.id where `

	sqlJobs = `select id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until, owner
		from {p}redelivery where finished_at is null or id in
			(select id from {p}redelivery where finished_at is not null order by created_at desc limit 20)
		order by created_at desc, id`
)

// Read implements driver.Store.
func (b *base) Read(ctx context.Context, q driver.Query) (r driver.Reading, err error) {
	s := b.own()
	if q.Topics {
		err = readTopics(ctx, s, &r, q)
	} else {
		err = s.query(ctx, func(row scanner) error { return row.Scan(nullTime{&r.Now}, &r.Source, &r.Generation, &r.ReadOnly) }, sqlSourceOnly)
	}
	if err == nil && q.Events != nil {
		r.Events, err = find(ctx, s, q.Events, r.Now)
	}
	if err == nil && q.Count != nil {
		r.Count, err = countFound(ctx, s, q.Count, r.Now)
	}
	if err == nil && q.Jobs {
		r.Jobs, err = jobs(ctx, s)
	}
	return r, err
}

func readTopics(ctx context.Context, s session, r *driver.Reading, q driver.Query) error {
	scan := func(row scanner) error {
		var t driver.Topic
		err := row.Scan(nullTime{&r.Now}, &r.Source, &r.Generation, &r.ReadOnly, &t.Name, &t.Ordered, nullTime{&t.ProvenAt}, nullTime{&t.ProbedAt},
			&t.PositionFloor, nullTime{&t.OldestDue})
		if t.Name != "" {
			r.Topics = append(r.Topics, t)
		}
		return err
	}
	err := s.b.once(ctx, sqlNoJIT, statement{name: "read topics", query: sqlTopics, args: []any{q.After}, scan: scan})
	if err != nil || !q.Counts {
		return err
	}
	var list []statement
	for i := range r.Topics {
		t := &r.Topics[i]
		list = append(list,
			statement{name: "count waiting", query: sqlCountWaiting, args: []any{t.Name, driver.CountMax},
				scan: func(row scanner) error { return row.Scan(&t.Waiting, nullTime{&t.OldestWaiting}) }},
			statement{name: "count parked", query: sqlCountParked, args: []any{t.Name, driver.CountMax},
				scan: func(row scanner) error { return row.Scan(&t.Parked) }})
	}
	return s.all(ctx, list)
}

// conditions collects what a statement asks for whose conditions vary.
type conditions struct {
	where []string
	args  []any
}

// and adds a condition; each $ in it stands for the next value.
func (c *conditions) and(condition string, values ...any) {
	for _, v := range values {
		c.args = append(c.args, v)
		condition = strings.Replace(condition, "$?", fmt.Sprint("$", len(c.args)), 1)
	}
	c.where = append(c.where, condition)
}

func (c *conditions) text() string {
	if len(c.where) == 0 {
		return "true"
	}
	return strings.Join(c.where, " and ")
}

// find builds the one statement whose conditions vary.
func find(ctx context.Context, s session, f *driver.EventFilter, now time.Time) (found []driver.Found, err error) {
	c, err := filtered(ctx, s, f, now)
	if err != nil || c == nil {
		return nil, err
	}
	text, order, sign := sqlFind, "", ">"
	if f.State != driver.AnyState && f.State != driver.ConfirmedOnly {
		text = sqlFindPending
	}
	if f.Descending {
		order, sign = " desc", "<"
	}
	if !f.After.IsZero() {
		// The first condition says nothing new, but finds the partitions.
		c.and("e.recorded_at "+sign+"= $?::timestamptz", f.After.RecordedAt)
		c.and("(e.recorded_at, e.id) "+sign+" ($?::timestamptz, $?::text::uuid)", f.After.RecordedAt, f.After.ID.String())
	}
	c.args = append(c.args, f.Limit)
	text += c.text() + fmt.Sprintf(" order by e.recorded_at%s, e.id%s limit $%d::bigint", order, order, len(c.args))
	err = s.query(ctx, func(row scanner) error {
		one, err := scanFound(row)
		found = append(found, one)
		return err
	}, text, c.args...)
	if err != nil {
		return nil, err
	}
	return found, published(ctx, s, found)
}

// published fills in when events were confirmed.
func published(ctx context.Context, s session, found []driver.Found) error {
	var refs []driver.Ref
	index := make(map[uuid.UUID]int)
	for i := range found {
		if f := &found[i]; f.Pending == nil {
			index[f.Event.ID] = i
			refs = append(refs, f.Event.Ref())
		}
	}
	if len(refs) == 0 {
		return nil
	}
	return s.query(ctx, func(row scanner) error {
		var id uuid.UUID
		var at time.Time
		err := row.Scan(nullID{&id}, nullTime{&at})
		found[index[id]].Event.PublishedAt = at
		return err
	}, sqlPublishedByRef, refIDs(refs), refTimes(refs))
}

func countFound(ctx context.Context, s session, f *driver.EventFilter, now time.Time) (n int, err error) {
	c, err := filtered(ctx, s, f, now)
	if err != nil || c == nil {
		return 0, err
	}
	err = s.query(ctx, func(row scanner) error { return row.Scan(&n) }, sqlCountFound+c.text(), c.args...)
	return n, err
}

// filtered answers the conditions of a filter; nil if none of its ids is there.
func filtered(ctx context.Context, s session, f *driver.EventFilter, now time.Time) (*conditions, error) {
	var c conditions
	if len(f.IDs) > 0 {
		refs, err := locate(ctx, s, f.IDs)
		if err != nil || len(refs) == 0 {
			return nil, err
		}
		c.and("(e.recorded_at, e.id) in (select * from unnest($?::timestamptz[], $?::text[]::uuid[]))", refTimes(refs), refIDs(refs))
	}
	if f.Topic != "" {
		c.and("e.topic = $?::text", f.Topic)
	}
	if f.Type != "" {
		c.and("e.type = $?::text", f.Type)
	}
	if f.Key != "" {
		c.and("e.key = $?::text", f.Key)
	}
	if !f.From.IsZero() {
		c.and("e.recorded_at >= $?::timestamptz", f.From)
	}
	if !f.To.IsZero() {
		c.and("e.recorded_at < $?::timestamptz", f.To)
	}
	switch f.State {
	case driver.ParkedOnly:
		c.and("p.id is not null and p.due_at is null")
	case driver.LateOnly:
		c.and("p.due_at is not null")
		c.and("p.recorded_at < $?::timestamptz", now.Add(-f.Late))
	case driver.Unconfirmed:
		c.and("p.id is not null")
	case driver.ConfirmedOnly:
		c.and("p.id is null")
	}
	return &c, nil
}

// locate finds out when events were recorded.
func locate(ctx context.Context, s session, list []uuid.UUID) (refs []driver.Ref, err error) {
	missing := make(map[uuid.UUID]bool, len(list))
	for _, id := range list {
		missing[id] = true
	}
	ask := func(query string, near bool) {
		var texts []string
		var times []time.Time
		for id := range missing {
			texts = append(texts, id.String())
			sec, nsec := id.Time().UnixTime()
			times = append(times, time.Unix(sec, nsec))
		}
		if err != nil || len(texts) == 0 {
			return
		}
		args := []any{texts}
		if near {
			args = append(args, times)
		}
		err = s.query(ctx, func(row scanner) error {
			var ref driver.Ref
			err := row.Scan(nullID{&ref.ID}, nullTime{&ref.RecordedAt})
			if missing[ref.ID] {
				refs = append(refs, ref)
			}
			delete(missing, ref.ID)
			return err
		}, query, args...)
	}
	ask(sqlFindPendingIDs, false)
	ask(sqlFindNear, true)
	ask(sqlFindAnywhere, false)
	return refs, err
}

func scanFound(row scanner) (f driver.Found, err error) {
	var p driver.Pending
	err = row.Scan(append(eventFields(&f.Event), pendingFields(&p)...)...)
	if p.ID != uuid.Nil {
		f.Pending = &p
	}
	return f, err
}

func jobs(ctx context.Context, s session) (jobs []driver.Job, err error) {
	err = s.query(ctx, func(row scanner) error {
		var j driver.Job
		err := row.Scan(nullID{&j.ID}, nullTime{&j.CreatedAt}, &j.By, &j.Spec, nullID{&j.Resume.ID}, nullTime{&j.Resume.RecordedAt}, &j.Sent,
			&j.LastError, nullTime{&j.FinishedAt}, nullTime{&j.LeaseUntil}, nullID{&j.Owner})
		j.Finished = !j.FinishedAt.IsZero()
		jobs = append(jobs, j)
		return err
	}, sqlJobs)
	return jobs, err
}

// Tally counts recorded and confirmed events of a type.
type Tally struct{ Recorded, Confirmed int }

// Tallies counts all events by type. It reads the whole table: for audits, not for dashboards.
func (b *base) Tallies(ctx context.Context) (map[string]Tally, error) {
	tallies := map[string]Tally{}
	err := b.own().query(ctx, func(row scanner) error {
		var name string
		var t Tally
		err := row.Scan(&name, &t.Recorded, &t.Confirmed)
		tallies[name] = t
		return err
	}, `select e.type, count(*), count(u.id) from {p}event e left join {p}published u using (recorded_at, id) group by e.type`)
	return tallies, err
}
