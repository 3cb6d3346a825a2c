package storetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const consumer = "settlement"

func arrival(position int64, key string) driver.Row {
	at := time.Now().UTC().Truncate(time.Microsecond)
	r := driver.Row{
		CursorKey: driver.CursorKey{Source: "order", Topic: "paid", Key: key}, ID: uuid.Must(uuid.NewV7()), Type: "order-paid",
		Position: position, RecordedAt: at, SentAt: at, Body: []byte(`{"body":1}`),
	}
	if position > 1 {
		r.Prev = driver.Ref{ID: uuid.Must(uuid.NewV7()), Position: position - 1, RecordedAt: at}
	}
	return r
}

func held(r driver.Row, next time.Time) driver.Row {
	r.State, r.Reason, r.NextAt, r.LastError = driver.Held, "waiting", next, "because"
	return r
}

// in runs do in a transaction of the inbox and ends it so.
func (s *suite[X]) in(how driver.Ending, do func(b driver.Inbox[X], x X)) {
	s.t.Helper()
	b := s.s.Inbox()
	x, err := b.Begin(s.ctx)
	s.ok(err)
	do(b, x)
	s.ok(b.End(s.ctx, x, how))
}

func (s *suite[X]) load(b driver.Inbox[X], x X, waiting int, rows ...driver.Row) driver.Loaded {
	s.t.Helper()
	l := driver.Load{Consumer: consumer, Waiting: waiting}
	for _, r := range rows {
		r.State, r.Body = driver.Done, nil
		l.Arrivals = append(l.Arrivals, r)
		if r.Position != 0 && !slices.Contains(l.Keys, r.CursorKey) {
			l.Keys = append(l.Keys, r.CursorKey)
		}
	}
	loaded, err := b.Load(s.ctx, x, l)
	s.ok(err)
	return loaded
}

func (s *suite[X]) save(rows []driver.Row, cursors ...driver.Cursor) {
	s.t.Helper()
	s.in(driver.Commit, func(b driver.Inbox[X], x X) {
		s.ok(b.Save(s.ctx, x, driver.Save{Consumer: consumer, Rows: rows, Cursors: cursors}))
	})
}

func (s *suite[X]) rows(f driver.RowFilter) []driver.Row {
	s.t.Helper()
	f.Limit = 1000
	r, err := s.s.Inbox().Read(s.ctx, driver.InboxQuery{Consumer: consumer, Rows: &f})
	s.ok(err)
	return r.Rows
}

func inboxCases[X any]() []testCase[X] {
	return slices.Concat(endCases[X](), loadCases[X](), saveCases[X](), inboxTendCases[X]())
}

func endCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Inbox/commit and rollback", "End: Commit answers nil only when the database has acknowledged the commit.",
		func(s *suite[X]) {
			s.in(driver.Commit, func(_ driver.Inbox[X], x X) { s.ok(s.db.Write(x)) })
			s.in(driver.Rollback, func(_ driver.Inbox[X], x X) { s.ok(s.db.Write(x)) })
			s.check(s.db.Effects() == 1, "%d effects are committed", s.db.Effects())
		},
	}, {
		"Inbox/outlives its context", "Begin: the transaction lives until End, also when ctx ends before.",
		func(s *suite[X]) {
			ctx, cancel := context.WithCancel(s.ctx)
			x, err := s.s.Inbox().Begin(ctx)
			s.ok(err)
			cancel()
			s.ok(s.db.Write(x))
			s.ok(s.s.Inbox().End(s.ctx, x, driver.Commit))
			s.check(s.db.Effects() == 1, "%d effects are committed", s.db.Effects())
		},
	}, {
		"Inbox/handler commits", "End: Commit answers nil also when the handler has already committed by itself; ErrNoTransaction when the handler rolled back.",
		func(s *suite[X]) {
			s.in(driver.Commit, func(_ driver.Inbox[X], x X) {
				s.ok(s.db.Write(x))
				s.ok(s.db.Commit(x))
			})
			x, err := s.s.Inbox().Begin(s.ctx)
			s.ok(err)
			s.ok(s.db.Write(x))
			s.ok(s.db.Rollback(x))
			err = s.s.Inbox().End(s.ctx, x, driver.Commit)
			s.check(errors.Is(err, driver.ErrNoTransaction), "answered %v after the handler's rollback", err)
			s.in(driver.Rollback, func(_ driver.Inbox[X], x X) { s.ok(s.db.Commit(x)) })
			s.check(s.db.Effects() == 1, "%d effects are committed", s.db.Effects())
		},
	}, {
		"Inbox/abandon", "Abandon: the connection is closed beneath a handler that is still running, so that it can never commit.",
		func(s *suite[X]) {
			x, err := s.s.Inbox().Begin(s.ctx)
			s.ok(err)
			s.ok(s.db.Write(x))
			s.ok(s.s.Inbox().End(s.ctx, x, driver.Abandon))
			s.check(s.db.Commit(x) != nil, "the handler committed")
			s.check(s.db.Effects() == 0, "%d effects are committed", s.db.Effects())
			s.in(driver.Commit, func(_ driver.Inbox[X], x X) { s.ok(s.db.Write(x)) })
		},
	}}
}

func saveCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Save/rows and cursors", "Save: writes rows, inserted if absent, whole; a row of state Gone is deleted; cursors whole.",
		func(s *suite[X]) {
			a, b := held(arrival(5, "a"), s.now()), arrival(6, "a")
			b.State, b.Reason, b.Failures, b.Started = driver.Parked, "failed", 3, 2
			c := driver.Cursor{CursorKey: a.CursorKey, Begun: true, Began: 4, Last: a.Prev, Overflow: b.Prev}
			s.save([]driver.Row{a, b}, c)
			got := s.rows(driver.RowFilter{})
			s.check(len(got) == 2 && !got[0].ReceivedAt.IsZero(), "rows %+v", got)
			got[0].ReceivedAt, got[1].ReceivedAt = time.Time{}, time.Time{}
			s.check(sameRow(got[0], a) && sameRow(got[1], b), "rows %+v\nsaved %+v", got, []driver.Row{a, b})
			r, err := s.s.Inbox().Read(s.ctx, driver.InboxQuery{Consumer: consumer, Cursors: []driver.CursorKey{a.CursorKey}, Overflowing: false, Consumers: true})
			s.ok(err)
			s.check(len(r.Cursors) == 1 && !r.Cursors[0].MovedAt.IsZero() && r.Cursors[0].Last == c.Last && r.Cursors[0].Overflow == c.Overflow, "cursor %+v", r.Cursors)
			s.check(len(r.Consumers) == 1 && r.Consumers[0].Held == 1 && r.Consumers[0].Parked == 1 && r.Consumers[0].Overflow == 1, "counts %+v", r.Consumers)
			a.State, b.State, b.Body = driver.Gone, driver.Done, nil
			s.save([]driver.Row{a, b})
			s.check(len(s.rows(driver.RowFilter{})) == 0, "rows are still waiting")
			s.in(driver.Rollback, func(i driver.Inbox[X], x X) {
				l := s.load(i, x, 0, a, b)
				s.check(l.Known[0] == nil && l.Known[1] != nil && l.Known[1].State == driver.Done, "known %+v", l.Known)
			})
		},
	}, {
		"Due", "Due: selects up to Limit rows whose NextAt has come, oldest first; calls Decide once; writes back, whole, and returns what it returns.",
		func(s *suite[X]) {
			now := s.now()
			first, second := held(arrival(0, ""), now.Add(-time.Minute)), held(arrival(0, ""), now.Add(-time.Second))
			later, never := held(arrival(0, ""), now.Add(time.Hour)), held(arrival(9, "a"), time.Time{})
			s.save([]driver.Row{second, later, first, never})
			take := func(now time.Time, rows []driver.Row) []driver.Row {
				for i := range rows {
					rows[i].Started, rows[i].NextAt = 7, now.Add(time.Hour)
				}
				return rows
			}
			due := func(sel driver.InboxSelection) []driver.Row {
				sel.Consumer, sel.Decide = consumer, take
				rows, err := s.s.Inbox().Due(s.ctx, sel)
				s.ok(err)
				return rows
			}
			got := due(driver.InboxSelection{Limit: 1})
			s.check(len(got) == 1 && got[0].ID == first.ID && got[0].Started == 7, "due %+v", got)
			got = due(driver.InboxSelection{Limit: 10})
			s.check(len(got) == 1 && got[0].ID == second.ID, "due %+v", got)
			s.check(len(due(driver.InboxSelection{Limit: 10})) == 0, "due again")
			got = due(driver.InboxSelection{IDs: []uuid.UUID{never.ID}})
			s.check(len(got) == 1 && got[0].ID == never.ID && string(got[0].Body) == `{"body":1}`, "by id %+v", got)
			for _, r := range s.rows(driver.RowFilter{IDs: []uuid.UUID{first.ID, second.ID, never.ID}}) {
				s.check(r.Started == 7, "not written: %+v", r)
			}
		},
	}, {
		"Read/rows", "RowFilter: fields left zero do not narrow; rows are ordered by (source, topic, key, job, position, id).",
		func(s *suite[X]) {
			a, b, c := held(arrival(5, "a"), time.Time{}), held(arrival(4, "a"), time.Time{}), held(arrival(1, "b"), time.Time{})
			c.State = driver.Parked
			s.save([]driver.Row{a, c, b})
			expect := func(what string, f driver.RowFilter, want ...driver.Row) {
				got := s.rows(f)
				same := len(got) == len(want)
				for i := 0; same && i < len(want); i++ {
					same = got[i].ID == want[i].ID
				}
				s.check(same, "%s: %+v", what, got)
			}
			expect("all", driver.RowFilter{}, b, a, c)
			expect("parked", driver.RowFilter{State: driver.Parked}, c)
			expect("key", driver.RowFilter{Source: "order", Topic: "paid", Key: "a"}, b, a)
			expect("ids", driver.RowFilter{IDs: []uuid.UUID{a.ID}}, a)
			done := arrival(3, "a")
			done.Body = nil
			s.save([]driver.Row{done})
			expect("without what is done", driver.RowFilter{IDs: []uuid.UUID{done.ID, a.ID}}, a)
			expect("with what is done", driver.RowFilter{IDs: []uuid.UUID{done.ID, a.ID}, Done: true}, done, a)
			expect("done counts with ids only", driver.RowFilter{Done: true}, b, a, c)
		},
	}}
}

func sameRow(a, b driver.Row) bool {
	body := string(a.Body) == string(b.Body)
	a.Body, b.Body = nil, nil
	return body && a.CursorKey == b.CursorKey && a.ID == b.ID && a.Type == b.Type && a.Position == b.Position && a.Prev == b.Prev &&
		a.RecordedAt.Equal(b.RecordedAt) && a.SentAt.Equal(b.SentAt) && a.State == b.State && a.Reason == b.Reason &&
		a.NextAt.Equal(b.NextAt) && a.Failures == b.Failures && a.Started == b.Started && a.LastError == b.LastError
}

func inboxTendCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Inbox/forget", "Forget raises ForgotBefore, never lowers it; then removes Done rows recorded more than Margin before that, and idle cursors, never those of a key with waiting rows.",
		func(s *suite[X]) {
			old, waiting, young := arrival(5, "old"), arrival(5, "waiting"), arrival(5, "young")
			old.RecordedAt, waiting.RecordedAt = old.RecordedAt.Add(-3*time.Hour), waiting.RecordedAt.Add(-3*time.Hour)
			cursor := func(r driver.Row) driver.Cursor {
				return driver.Cursor{CursorKey: r.CursorKey, Begun: true, Began: 1, Last: driver.Ref{ID: r.ID, Position: r.Position, RecordedAt: r.RecordedAt}}
			}
			next := held(arrival(9, "waiting"), time.Time{})
			next.RecordedAt = waiting.RecordedAt
			old.Body, waiting.Body, young.Body = nil, nil, nil
			s.save([]driver.Row{old, waiting, young, next}, cursor(old), cursor(waiting), cursor(young))
			before := s.now().Add(-time.Hour)
			forget := func(before time.Time) {
				_, err := s.s.Inbox().Tend(s.ctx, driver.InboxChore{Consumer: consumer, Forget: &driver.InboxForget{Before: before, Margin: time.Hour, Limit: 10}})
				s.ok(err)
			}
			forget(before)
			forget(before.Add(-time.Hour))
			s.in(driver.Rollback, func(b driver.Inbox[X], x X) {
				l := s.load(b, x, 10, old, waiting, young)
				s.check(l.Known[0] == nil && l.Known[1] == nil && l.Known[2] != nil, "known %+v", l.Known)
				s.check(!l.Cursors[0].Begun && l.Cursors[1].Begun && l.Cursors[2].Begun, "cursors %+v", l.Cursors)
				s.check(len(l.Waiting[1]) == 1, "a held row was removed")
				s.check(l.Memory[0].ForgotBefore.Equal(before), "forgot before %v, want %v", l.Memory[0].ForgotBefore, before)
			})
			young.RecordedAt = young.RecordedAt.Add(-90 * time.Minute) // within the margin
			s.save([]driver.Row{young})
			forget(before)
			s.in(driver.Rollback, func(b driver.Inbox[X], x X) {
				s.check(s.load(b, x, 10, young).Known[0] != nil, "a row within the margin was removed")
			})
		},
	}}
}
