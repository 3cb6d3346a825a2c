package pabalsql

import (
	"context"
	"database/sql"
	"strings"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	// Topics with pending rows are found by a loose scan of the index (topic, due_at): one lookup for each.
	sqlTopics = `with recursive busy (name) as (
			select min(topic) from {p}pending
			union all
			select (select min(topic) from {p}pending where topic > busy.name) from busy where busy.name is not null
		), names (name) as (select name from {p}topic union select name from busy where name is not null)
		select m.source, m.generation, n.name, coalesce(t.ordered, 0), t.proven_at, t.probed_at, coalesce(t.position_floor, 0),
			(select min(due_at) from {p}pending where topic = n.name and due_at >= ?)
		from {p}meta m left join names n on true left join {p}topic t on t.name = n.name order by n.name`
	sqlSourceOnly = `select source, generation from {p}meta`

	sqlCountWaiting = `select count(*), min(recorded_at) from
		(select recorded_at from {p}pending where topic = ? and due_at is not null limit ?)`
	sqlCountParked = `select count(*) from (select 1 from {p}pending where topic = ? and due_at is null limit ?)`

	sqlFind = `select ` + eventColumns + `, ` + pendingColumns + ` from {p}event e left join {p}pending p on p.id = e.id where `
	// When only unconfirmed events are asked for, the work list is the smaller table to begin with.
	sqlFindPending = `select ` + eventColumns + `, ` + pendingColumns + ` from {p}pending p cross join {p}event e on e.id = p.id where `

	sqlJobs = `select id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at, lease_until, owner
		from {p}redelivery where finished_at is null or id in
			(select id from {p}redelivery where finished_at is not null order by created_at desc limit 20)
		order by created_at desc, id`
)

// Read implements driver.Store.
func (s *Store) Read(ctx context.Context, q driver.Query) (r driver.Reading, err error) {
	r.Now = s.dialect.clock()
	if q.Topics {
		err = s.readTopics(ctx, &r, q)
	} else {
		err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&r.Source, &r.Generation) }, sqlSourceOnly)
	}
	if err == nil && q.Events != nil {
		r.Events, err = s.find(ctx, q.Events, r.Now.Add(-q.Events.Late).UnixMicro())
	}
	if err == nil && q.Jobs {
		r.Jobs, err = s.jobs(ctx)
	}
	return r, err
}

func (s *Store) readTopics(ctx context.Context, r *driver.Reading, q driver.Query) error {
	after := int64(0)
	if !q.After.IsZero() {
		after = q.After.UnixMicro()
	}
	err := s.query(ctx, nil, func(rows *sql.Rows) error {
		var t driver.Topic
		var name sql.NullString
		err := rows.Scan(&r.Source, &r.Generation, &name, &t.Ordered, nullTime{&t.ProvenAt}, nullTime{&t.ProbedAt}, &t.PositionFloor,
			nullTime{&t.OldestDue})
		if t.Name = name.String; name.Valid {
			r.Topics = append(r.Topics, t)
		}
		return err
	}, sqlTopics, after)
	for i := 0; i < len(r.Topics) && q.Counts && err == nil; i++ {
		t := &r.Topics[i]
		err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&t.Waiting, nullTime{&t.OldestWaiting}) },
			sqlCountWaiting, t.Name, driver.CountMax)
		if err == nil {
			err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&t.Parked) }, sqlCountParked, t.Name, driver.CountMax)
		}
	}
	return err
}

// find builds the one statement whose conditions vary.
func (s *Store) find(ctx context.Context, f *driver.EventFilter, lateBefore int64) (found []driver.Found, err error) {
	text := sqlFind
	if f.State != driver.AnyState {
		text = sqlFindPending
	}
	where, args := []string{"true"}, []any{}
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if len(f.IDs) > 0 {
		and("e.id in (select unhex(value) from json_each(?))", hexIDs(f.IDs, func(id *uuid.UUID) uuid.UUID { return *id }))
	}
	if f.Topic != "" {
		and("e.topic = ?", f.Topic)
	}
	if f.Key != "" {
		and("e.key = ?", f.Key)
	}
	if !f.From.IsZero() {
		and("e.recorded_at >= ?", f.From.UnixMicro())
	}
	if !f.To.IsZero() {
		and("e.recorded_at < ?", f.To.UnixMicro())
	}
	switch f.State {
	case driver.ParkedOnly:
		and("p.due_at is null")
	case driver.LateOnly:
		and("p.due_at is not null and p.recorded_at < ?", lateBefore)
	}
	order := " order by e.recorded_at, e.id limit ?"
	if f.Descending {
		order = " order by e.recorded_at desc, e.id desc limit ?"
	}
	if !f.After.IsZero() {
		sign := ">"
		if f.Descending {
			sign = "<"
		}
		and("(e.recorded_at, e.id) "+sign+" (?, ?)", f.After.RecordedAt.UnixMicro(), f.After.ID[:])
	}
	rows, err := s.db.QueryContext(ctx, s.text(text+strings.Join(where, " and ")+order), append(args, f.Limit)...)
	if err != nil {
		return nil, s.explain(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		one, err := scanFound(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, rows.Err()
}

func scanFound(rows *sql.Rows) (f driver.Found, err error) {
	var p driver.Pending
	var topic, lastError sql.NullString
	var claims, crashes, failures sql.NullInt64
	err = rows.Scan(append(eventFields(&f.Event), nullID{&p.ID}, nullTime{&p.RecordedAt}, &topic, nullTime{&p.DueAt}, &claims, &crashes,
		&failures, nullTime{&p.AcceptedAt}, nullTime{&p.SentAt}, &lastError)...)
	if topic.Valid {
		p.Topic, p.LastError = topic.String, lastError.String
		p.Claims, p.Crashes, p.Failures = int(claims.Int64), int(crashes.Int64), int(failures.Int64)
		f.Pending = &p
	}
	return f, err
}

func (s *Store) jobs(ctx context.Context) (jobs []driver.Job, err error) {
	err = s.query(ctx, nil, func(r *sql.Rows) error {
		var j driver.Job
		err := r.Scan(nullID{&j.ID}, nullTime{&j.CreatedAt}, &j.By, &j.Spec, nullID{&j.Resume.ID}, nullTime{&j.Resume.RecordedAt}, &j.Sent,
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
func (s *Store) Tallies(ctx context.Context) (map[string]Tally, error) {
	tallies := map[string]Tally{}
	err := s.query(ctx, nil, func(r *sql.Rows) error {
		var name string
		var t Tally
		err := r.Scan(&name, &t.Recorded, &t.Confirmed)
		tallies[name] = t
		return err
	}, `select type, count(*), count(published_at) from {p}event group by type`)
	return tallies, err
}
