package storetest

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

func loadCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Load/known", "Load: inserts a row of state Done for every arrival that is absent; Known holds the row that was there already, or nil.",
		func(s *suite[X]) {
			a, b := arrival(5, "a"), arrival(0, "")
			s.in(driver.Commit, func(i driver.Inbox[X], x X) {
				l := s.load(i, x, 10, a, b)
				s.check(l.Known[0] == nil && l.Known[1] == nil, "known: %+v", l.Known)
				s.check(len(l.Cursors) == 1 && !l.Cursors[0].Begun && l.Cursors[0].CursorKey == a.CursorKey, "cursors: %+v", l.Cursors)
			})
			s.in(driver.Rollback, func(i driver.Inbox[X], x X) {
				other := arrival(6, "a")
				l := s.load(i, x, 10, other, a, b)
				s.check(l.Known[0] == nil && l.Known[1] != nil && l.Known[2] != nil, "known: %+v", l.Known)
				s.check(l.Known[1] != nil && l.Known[1].State == driver.Done && l.Known[1].ID == a.ID, "known: %+v", l.Known[1])
				job := a
				job.Job = uuid.UUID{7}
				s.check(s.load(i, x, 10, job).Known[0] == nil, "a row of a job counts as the row without")
			})
		},
	}, {
		"Load/waits", "Load: the unique key decides, so that of two concurrent transactions the second waits for the first; cursors are locked.",
		func(s *suite[X]) {
			a := arrival(1, "a")
			var wg sync.WaitGroup
			var mu sync.Mutex
			fresh := 0
			for range 8 {
				wg.Go(func() {
					for {
						b := s.s.Inbox()
						x, err := b.Begin(s.ctx)
						if err != nil {
							s.t.Error(err)
							return
						}
						l, err := b.Load(s.ctx, x, driver.Load{Consumer: consumer, Arrivals: []driver.Row{a}, Keys: []driver.CursorKey{a.CursorKey}})
						if err == nil && l.Known[0] == nil {
							err = s.db.Write(x)
						}
						if err == nil {
							err = b.End(s.ctx, x, driver.Commit)
						} else {
							_ = b.End(s.ctx, x, driver.Rollback)
						}
						if b.Conflict(err) {
							continue
						}
						mu.Lock()
						if err == nil && l.Known[0] == nil {
							fresh++
						}
						mu.Unlock()
						s.check(err == nil, "%v", err)
						return
					}
				})
			}
			wg.Wait()
			s.check(fresh == 1 && s.db.Effects() == 1, "%d of 8 transactions found it new, %d effects", fresh, s.db.Effects())
		},
	}, {
		"Load/locks", "Load: locks all of Keys, in order, so that transactions on the same keys follow each other, and none deadlocks.",
		func(s *suite[X]) {
			keys := []string{"a", "b", "c", "d"}
			const workers, rounds = 8, 5
			var wg sync.WaitGroup
			for worker := range workers {
				wg.Go(func() {
					for round := range rounds {
						l := driver.Load{Consumer: consumer}
						for i := range keys {
							a := arrival(1, keys[(i*(1+2*(worker%2))+round)%len(keys)])
							a.Body = nil
							l.Arrivals, l.Keys = append(l.Arrivals, a), append(l.Keys, a.CursorKey)
						}
						if err := s.advance(l); err != nil {
							s.check(false, "transaction %d of %d: %v", round, worker, err)
							return
						}
					}
				})
			}
			wg.Wait()
			s.in(driver.Rollback, func(b driver.Inbox[X], x X) {
				for i, key := range keys {
					c := s.load(b, x, 0, arrival(1, key)).Cursors[0]
					s.check(c.Last.Position == workers*rounds, "key %d has moved %d times, not %d: it was not locked", i, c.Last.Position, workers*rounds)
				}
			})
		},
	}, {
		"Load/waiting", "Waiting rows are those of the lowest positions: held ones, and parked ones above the cursor's Last.Position; WaitingCount counts the held ones.",
		func(s *suite[X]) {
			var rows []driver.Row
			for _, p := range []int64{9, 3, 7, 5, 4} {
				rows = append(rows, held(arrival(p, "a"), time.Time{}))
			}
			rows[1].State, rows[2].State = driver.Parked, driver.Parked // 3, 7
			other := held(arrival(2, "b"), time.Time{})
			cursor := driver.Cursor{CursorKey: rows[0].CursorKey, Begun: true, Began: 2, Last: driver.Ref{ID: uuid.UUID{1}, Position: 4, RecordedAt: rows[0].RecordedAt}}
			s.save(append(rows, other), cursor)
			s.in(driver.Rollback, func(b driver.Inbox[X], x X) {
				l := s.load(b, x, 3, arrival(10, "a"))
				var positions []int64
				for _, r := range l.Waiting[0] {
					positions = append(positions, r.Position)
				}
				s.check(slices.Equal(positions, []int64{4, 5, 7}), "waiting: %v", positions)
				s.check(l.WaitingCount[0] == 3, "%d are held", l.WaitingCount[0])
				s.check(l.Cursors[0].Begun && l.Cursors[0].Began == 2 && l.Cursors[0].Last == cursor.Last, "cursor %+v", l.Cursors[0])
				s.check(string(l.Waiting[0][0].Body) == `{"body":1}` && l.Waiting[0][0].Prev == rows[4].Prev, "row %+v", l.Waiting[0][0])
			})
		},
	}, {
		"Load/memory", "Memory holds one entry for each distinct (source, topic): JoinedAt the lowest SentAt ever seen, ForgotBefore of the whole consumer.",
		func(s *suite[X]) {
			at := s.now().Add(-time.Hour)
			join := func(sent time.Time) {
				_, err := s.s.Inbox().Tend(s.ctx, driver.InboxChore{Consumer: consumer, Join: &driver.Join{Source: "order", Topic: "paid", SentAt: sent}})
				s.ok(err)
			}
			join(at)
			join(at.Add(-time.Minute))
			join(at.Add(time.Minute))
			s.in(driver.Rollback, func(b driver.Inbox[X], x X) {
				l := s.load(b, x, 0, arrival(1, "a"), arrival(1, "b"))
				s.check(len(l.Memory) == 1 && l.Memory[0].JoinedAt.Equal(at.Add(-time.Minute)), "memory %+v", l.Memory)
				s.check(l.Memory[0].ForgotBefore.IsZero(), "forgot before %v", l.Memory[0].ForgotBefore)
			})
		},
	}}
}

// advance moves the cursors of a Load by one, in a transaction of their own.
func (s *suite[X]) advance(l driver.Load) error {
	b := s.s.Inbox()
	x, err := b.Begin(s.ctx)
	if err != nil {
		return err
	}
	loaded, err := b.Load(s.ctx, x, l)
	if err == nil {
		for i := range loaded.Cursors {
			c := &loaded.Cursors[i]
			c.Begun, c.Last = true, driver.Ref{ID: l.Arrivals[i].ID, Position: c.Last.Position + 1, RecordedAt: l.Arrivals[i].RecordedAt}
		}
		err = b.Save(s.ctx, x, driver.Save{Consumer: l.Consumer, Cursors: loaded.Cursors})
	}
	if err != nil {
		return errors.Join(err, b.End(s.ctx, x, driver.Rollback))
	}
	return b.End(s.ctx, x, driver.Commit)
}
