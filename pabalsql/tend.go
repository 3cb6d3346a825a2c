package pabalsql

import (
	"context"
	"database/sql"
	"time"

	"github.com/pabal-go/pabal/driver"
)

const (
	sqlRegister = `insert into {p}topic (name, ordered) values (?, ?)
		on conflict (name) do update set ordered = 1 where excluded.ordered = 1 and ordered = 0`
	sqlProve = `insert into {p}topic (name, proven_at) values (?1, min(?2, ?3))
		on conflict (name) do update set proven_at = excluded.proven_at where proven_at is null or proven_at < excluded.proven_at`
	sqlRestored = `update {p}meta set generation = generation + 1 where id = 1`

	sqlForgetEvents = `delete from {p}event where id in (select e.id from {p}event e
		where e.recorded_at < ? and not exists (select 1 from {p}pending p where p.id = e.id) order by e.recorded_at limit ?)`
	// A counter goes once its last event is gone, and leaves its position behind.
	idleCounters = ` from {p}counter c where c.last_at < ? and not exists (select 1 from {p}event e where e.id = c.last_id)`
	sqlFloor     = `insert into {p}topic (name, position_floor)
		select topic, max(position) from (select c.topic, c.position` + idleCounters + ` order by c.last_at limit ?) group by topic
		on conflict (name) do update set position_floor = max(position_floor, excluded.position_floor)`
	sqlForgetCounters = `delete from {p}counter where (topic, key) in
		(select c.topic, c.key` + idleCounters + ` order by c.last_at limit ?)`
	sqlForgetJobs = `delete from {p}redelivery where finished_at < ?`

	sqlUpdateJob = `update {p}redelivery set asked_by = ?, spec = ?, resume_id = ?, resume_at = ?, sent = ?, last_error = ?,
			finished_at = case when ? then coalesce(finished_at, ?) end, lease_until = ?, owner = ?
		where id = ? and (lease_until <= ? or owner = ?)`
	sqlInsertJob = `insert into {p}redelivery (id, created_at, asked_by, spec, resume_id, resume_at, sent, last_error, finished_at,
		lease_until, owner) values (?, ?, ?, ?, ?, ?, ?, ?, case when ? then ? end, ?, ?) on conflict (id) do nothing`
)

// Tend implements driver.Store.
func (s *Store) Tend(ctx context.Context, c driver.Chore) (n int, err error) {
	do := func(chore func(tx *sql.Tx, now time.Time) (int, error)) {
		if err == nil {
			changed := 0
			err = s.write(ctx, func(tx *sql.Tx) (err error) {
				changed, err = chore(tx, s.dialect.clock())
				return err
			})
			n += changed
		}
	}
	if c.Register != nil {
		do(func(tx *sql.Tx, _ time.Time) (int, error) {
			return s.exec(ctx, tx, sqlRegister, c.Register.Name, c.Register.Ordered)
		})
	}
	if c.Prove != nil {
		do(func(tx *sql.Tx, now time.Time) (int, error) {
			return s.exec(ctx, tx, sqlProve, c.Prove.Topic, c.Prove.SentAt.UnixMicro(), now.UnixMicro())
		})
	}
	if c.Forget != nil {
		do(func(tx *sql.Tx, _ time.Time) (int, error) { return s.forget(ctx, tx, c.Forget) })
	}
	if c.Restored {
		do(func(tx *sql.Tx, _ time.Time) (int, error) { return s.exec(ctx, tx, sqlRestored) })
	}
	if c.Job != nil {
		do(func(tx *sql.Tx, now time.Time) (int, error) { return s.saveJob(ctx, tx, c.Job, now) })
	}
	return n, err
}

func (s *Store) forget(ctx context.Context, tx *sql.Tx, f *driver.Forget) (n int, err error) {
	before := f.Before.UnixMicro()
	if n, err = s.exec(ctx, tx, sqlForgetEvents, before, f.Limit); err != nil {
		return 0, err
	}
	if _, err = s.exec(ctx, tx, sqlFloor, before, f.Limit); err != nil {
		return 0, err
	}
	counters, err := s.exec(ctx, tx, sqlForgetCounters, before, f.Limit)
	if err != nil {
		return 0, err
	}
	jobs, err := s.exec(ctx, tx, sqlForgetJobs, before)
	return n + counters + jobs, err
}

func (s *Store) saveJob(ctx context.Context, tx *sql.Tx, j *driver.Job, now time.Time) (int, error) {
	lease := now.Add(j.Lease).UnixMicro()
	resume := []any{idOrNull(j.Resume.ID), micros(j.Resume.RecordedAt)}
	n, err := s.exec(ctx, tx, sqlUpdateJob, j.By, j.Spec, resume[0], resume[1], j.Sent, j.LastError, j.Finished, now.UnixMicro(),
		lease, j.Owner[:], j.ID[:], now.UnixMicro(), j.Owner[:])
	if err != nil || n > 0 {
		return n, err
	}
	return s.exec(ctx, tx, sqlInsertJob, j.ID[:], now.UnixMicro(), j.By, j.Spec, resume[0], resume[1], j.Sent, j.LastError,
		j.Finished, now.UnixMicro(), lease, j.Owner[:])
}
