package pabalsql

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Read implements driver.Store.
func (s *Store) Read(ctx context.Context, q driver.Query) (r driver.Reading, err error) {
	if r.Now, err = s.clock(ctx, nil); err != nil {
		return r, err
	}
	if q.Topics {
		err = s.readTopics(ctx, &r, q)
	} else {
		var version int
		err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&version, &r.Source, &r.Generation, &r.ReadOnly) }, "meta")
	}
	if err == nil && q.Events != nil {
		r.Events, err = s.find(ctx, q.Events, r.Now)
	}
	if err == nil && q.Count != nil {
		where, args := s.conditions(q.Count, r.Now)
		var text string
		if text, err = s.statement("count found"); err == nil {
			err = s.scan(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&r.Count) }, text+" "+where, args...)
		}
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
		err := rows.Scan(&r.Source, &r.Generation, &r.ReadOnly, &name, &t.Ordered, nullTime{&t.ProvenAt}, nullTime{&t.ProbedAt}, &t.PositionFloor,
			nullTime{&t.OldestDue})
		if t.Name = name.String; name.Valid {
			r.Topics = append(r.Topics, t)
		}
		return err
	}, "topics", after)
	for i := 0; i < len(r.Topics) && q.Counts && err == nil; i++ {
		t := &r.Topics[i]
		err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&t.Waiting, nullTime{&t.OldestWaiting}) },
			"count waiting", t.Name, driver.CountMax)
		if err == nil {
			err = s.query(ctx, nil, func(rows *sql.Rows) error { return rows.Scan(&t.Parked) }, "count parked", t.Name, driver.CountMax)
		}
	}
	return err
}

// find builds the one statement whose conditions vary.
func (s *Store) find(ctx context.Context, f *driver.EventFilter, now time.Time) (found []driver.Found, err error) {
	name := "find"
	if f.State != driver.AnyState && f.State != driver.ConfirmedOnly {
		name = "find pending"
	}
	text, err := s.statement(name)
	if err != nil {
		return nil, err
	}
	where, args := s.conditions(f, now)
	order := " order by e.recorded_at, e.id limit ?"
	if f.Descending {
		order = " order by e.recorded_at desc, e.id desc limit ?"
	}
	if !f.After.IsZero() {
		sign := ">"
		if f.Descending {
			sign = "<"
		}
		at := f.After.RecordedAt.UnixMicro()
		where += " and e.recorded_at " + sign + "= ?" // what a comparison of rows says too, but not to every optimizer
		where += " and (e.recorded_at, e.id) " + sign + " (?, ?)"
		args = append(args, at, at, f.After.ID[:])
	}
	err = s.scan(ctx, nil, func(r *sql.Rows) error {
		one, err := scanFound(r)
		found = append(found, one)
		return err
	}, text+" "+where+order, append(args, f.Limit)...)
	return found, err
}

// conditions are those of a filter.
func (s *Store) conditions(f *driver.EventFilter, now time.Time) (text string, args []any) {
	where := []string{"true"}
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if len(f.IDs) > 0 {
		and("e.id "+s.dialect.statements["in list"], hexIDs(f.IDs, func(id *uuid.UUID) uuid.UUID { return *id }))
	}
	if f.Topic != "" {
		and("e.topic = ?", f.Topic)
	}
	if f.Type != "" {
		and("e.type = ?", f.Type)
	}
	if f.Key != "" {
		and("e.`key` = ?", f.Key)
	}
	if !f.From.IsZero() {
		and("e.recorded_at >= ?", f.From.UnixMicro())
	}
	if !f.To.IsZero() {
		and("e.recorded_at < ?", f.To.UnixMicro())
	}
	switch f.State {
	case driver.ParkedOnly:
		and("p.id is not null and p.due_at is null")
	case driver.LateOnly:
		and("p.due_at is not null and p.recorded_at < ?", now.Add(-f.Late).UnixMicro())
	case driver.Unconfirmed:
		and("p.id is not null")
	case driver.ConfirmedOnly:
		and("p.id is null")
	}
	return strings.Join(where, " and "), args
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
	}, "jobs")
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
	}, "tallies")
	return tallies, err
}
