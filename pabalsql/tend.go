package pabalsql

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Tend implements driver.Store.
func (s *Store) Tend(ctx context.Context, c driver.Chore) (n int, err error) {
	do := func(chore func(tx *sql.Tx, now time.Time) (int, error)) {
		if err == nil {
			changed := 0
			err = s.write(ctx, func(tx *sql.Tx) error {
				now, err := s.clock(ctx, tx)
				if err == nil {
					changed, err = chore(tx, now)
				}
				return err
			})
			n += changed
		}
	}
	if c.Register != nil {
		do(func(tx *sql.Tx, _ time.Time) (int, error) {
			return s.topic(ctx, tx, c.Register.Name, func() (int, error) {
				if !c.Register.Ordered {
					return 0, nil
				}
				return s.exec(ctx, tx, "order topic", c.Register.Name)
			})
		})
	}
	if c.Prove != nil {
		do(func(tx *sql.Tx, now time.Time) (int, error) {
			at := min(c.Prove.SentAt.UnixMicro(), now.UnixMicro())
			return s.topic(ctx, tx, c.Prove.Topic, func() (int, error) { return s.exec(ctx, tx, "prove", at, c.Prove.Topic, at) })
		})
	}
	if c.Forget != nil {
		do(func(tx *sql.Tx, _ time.Time) (int, error) { return s.forget(ctx, tx, c.Forget) })
	}
	if c.Restored {
		do(func(tx *sql.Tx, _ time.Time) (int, error) { return s.exec(ctx, tx, "restored") })
	}
	if c.Job != nil {
		do(func(tx *sql.Tx, now time.Time) (int, error) { return s.saveJob(ctx, tx, c.Job, now) })
	}
	return n, err
}

// topic inserts the row of a topic where it is absent, changes it, and says whether either did something.
func (s *Store) topic(ctx context.Context, tx *sql.Tx, name string, change func() (int, error)) (int, error) {
	added, err := s.exec(ctx, tx, "add topic", name)
	if err != nil {
		return 0, err
	}
	changed, err := change()
	return min(added+changed, 1), err
}

func (s *Store) forget(ctx context.Context, tx *sql.Tx, f *driver.Forget) (n int, err error) {
	before := f.Before.UnixMicro()
	if n, err = s.exec(ctx, tx, "forget events", before, f.Limit); err != nil {
		return 0, err
	}
	var idle [][2]string
	floors := map[string]int64{}
	err = s.query(ctx, tx, func(r *sql.Rows) error {
		var topic, key string
		var position int64
		err := r.Scan(&topic, &key, &position)
		idle, floors[topic] = append(idle, [2]string{hexText(topic), hexText(key)}), max(floors[topic], position)
		return err
	}, "idle counters", before, f.Limit)
	if err != nil {
		return 0, err
	}
	if len(idle) > 0 {
		rows := make([][]any, 0, len(floors))
		for _, topic := range slices.Sorted(maps.Keys(floors)) {
			rows = append(rows, []any{topic, floors[topic]})
		}
		if err := s.execRows(ctx, tx, "raise floors", rows); err != nil {
			return 0, err
		}
		counters, err := s.exec(ctx, tx, "delete counters", jsonText(idle))
		if err != nil {
			return 0, err
		}
		n += counters
	}
	jobs, err := s.exec(ctx, tx, "forget jobs", before)
	return n + jobs, err
}

func (s *Store) saveJob(ctx context.Context, tx *sql.Tx, j *driver.Job, now time.Time) (int, error) {
	lease := now.Add(j.Lease).UnixMicro()
	resume := []any{idOrNull(j.Resume.ID), micros(j.Resume.RecordedAt)}
	n, err := s.exec(ctx, tx, "update job", j.By, j.Spec, resume[0], resume[1], j.Sent, j.LastError, j.Finished, now.UnixMicro(),
		lease, j.Owner[:], j.ID[:], now.UnixMicro(), j.Owner[:])
	if err != nil || n > 0 {
		return n, err
	}
	return s.exec(ctx, tx, "insert job", j.ID[:], now.UnixMicro(), j.By, j.Spec, resume[0], resume[1], j.Sent, j.LastError,
		j.Finished, now.UnixMicro(), lease, j.Owner[:])
}
