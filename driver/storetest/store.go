package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

func storeCases[X any]() []testCase[X] {
	return slices.Concat(openCases[X](), recordCases[X](), commitCases[X](), claimCases[X](), confirmCases[X](), tendCases[X]())
}

func openCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Open/source", "Open: the stored source equals source; a store without one takes it; an empty source accepts whatever is stored.",
		func(s *suite[X]) {
			other := s.db.Connect(s.t)
			s.ok(other.Open(s.ctx, "order"))
			s.ok(other.Open(s.ctx, ""))
			s.refused(other.Open(s.ctx, "settlement"), driver.ErrSource, &recorder{})
			r, err := other.Read(s.ctx, driver.Query{})
			s.ok(err)
			s.check(r.Source == "order" && !r.ReadOnly, "Read answers source %q, only read: %v", r.Source, r.ReadOnly)
		},
	}}
}

func recordCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Record/stores", "Record: inserts the events, each with a pending row of Claims 0 that falls due at clock + Lease, and fills in RecordedAt.",
		func(s *suite[X]) {
			before := s.now()
			list := s.record(time.Minute, event("a"), event(""))
			for i, f := range s.find(driver.EventFilter{Topic: "paid"}) {
				want := list[slices.IndexFunc(list, func(e driver.Event) bool { return e.ID == f.Event.ID })]
				s.check(fmt.Sprintf("%+v", f.Event) == fmt.Sprintf("%+v", want), "event %d came back as\n%+v, recorded\n%+v", i, f.Event, want)
				p := f.Pending
				s.check(p != nil && p.Claims == 0 && p.Topic == "paid" && p.AcceptedAt.IsZero() && p.SentAt.IsZero(), "pending: %+v", p)
				s.check(p.DueAt.Equal(f.Event.RecordedAt.Add(time.Minute)), "due at %v, recorded at %v", p.DueAt, f.Event.RecordedAt)
				s.check(!f.Event.RecordedAt.Before(before), "recorded at %v, before %v", f.Event.RecordedAt, before)
			}
		},
	}, {
		"Record/binary", "Event: Payload is stored byte for byte; Bare is kept.",
		func(s *suite[X]) {
			e := event("")
			e.Payload, e.Headers, e.ContentType = []byte{0, 1, 0xff, 0xfe, '\'', '"', 0}, nil, "application/octet-stream"
			e.Bare = true
			s.record(0, e)
			got := s.find(driver.EventFilter{})[0].Event
			s.check(slices.Equal(got.Payload, e.Payload) && len(got.Headers) == 0 && got.Bare, "came back as %+v", got)
		},
	}, {
		"Record/positions", "Record: within a run positions follow without gaps; Prev is the key's event before, also within one call, zero in a new counter.",
		func(s *suite[X]) {
			a := s.record(0, events("a", "b", "a", "a")...)
			b := s.record(0, events("a")...)
			chain := []driver.Event{a[0], a[2], a[3], b[0]}
			s.check(chain[0].Prev.IsZero(), "the first has a predecessor: %+v", chain[0].Prev)
			s.check(chain[0].Position >= a[0].RecordedAt.UnixMilli(), "a run begins at %d, below the clock in milliseconds", chain[0].Position)
			for i := 1; i < len(chain); i++ {
				s.check(chain[i].Position == chain[i-1].Position+1 && chain[i].Prev == chain[i-1].Ref(),
					"%d follows %d, prev %+v", chain[i].Position, chain[i-1].Position, chain[i].Prev)
			}
			s.check(event("").Position == 0, "an event without key has a position")
		},
	}, {
		"Record/rollback", "Record: a rollback, of a savepoint too, leaves no gap.",
		func(s *suite[X]) {
			first := s.record(0, event("a"))[0]
			x, err := s.db.Begin(s.ctx)
			s.ok(err)
			s.ok(s.s.Record(s.ctx, x, recording(events("a", "a"), 0)))
			s.ok(s.db.Rollback(x))
			if s.db.Savepoint != nil {
				x, err = s.db.Begin(s.ctx)
				s.ok(err)
				s.ok(s.db.Savepoint(x))
				s.ok(s.s.Record(s.ctx, x, recording(events("a", "new"), 0)))
				s.ok(s.db.RollbackTo(x))
				s.ok(s.db.Commit(x))
			}
			last := s.record(0, event("a"))[0]
			s.check(last.Position == first.Position+1 && last.Prev == first.Ref(), "position %d follows %d", last.Position, first.Position)
			s.check(len(s.find(driver.EventFilter{})) == 2, "%d events are recorded", len(s.find(driver.EventFilter{})))
		},
	}, {
		"Record/no transaction", "Record: on a handle that is not an open transaction it answers ErrNoTransaction; nothing is sent and Outcome is never called.",
		func(s *suite[X]) {
			outcomes := &recorder{}
			r := driver.Recording{Events: events("a"), Outcome: outcomes.outcome}
			s.refused(s.s.Record(s.ctx, s.db.Nil(), r), driver.ErrNoTransaction, outcomes)
			for _, end := range []func(X) error{s.db.Commit, s.db.Rollback} {
				x, err := s.db.Begin(s.ctx)
				s.ok(err)
				s.ok(end(x))
				s.refused(s.s.Record(s.ctx, x, r), driver.ErrNoTransaction, outcomes)
			}
		},
	}, {
		"Record/unwatched", "Record: on an unwatched connection it answers ErrUnwatched; nothing is sent and Outcome is never called.",
		func(s *suite[X]) {
			outcomes := &recorder{}
			x, err := s.db.Unwatched(s.ctx)
			s.ok(err)
			s.refused(s.s.Record(s.ctx, x, driver.Recording{Events: events("a"), Outcome: outcomes.outcome}), driver.ErrUnwatched, outcomes)
			s.ok(s.db.Commit(x))
			s.check(len(s.find(driver.EventFilter{})) == 0, "it was recorded")
		},
	}, {
		"Record/32 concurrent transactions", "Record: transactions on different keys, also new ones, do not deadlock each other at the database's default isolation; position order is commit order.",
		func(s *suite[X]) {
			var wg sync.WaitGroup
			errs := make([]error, 32)
			for i := range errs {
				wg.Go(func() {
					for round := range 3 {
						keys := []string{fmt.Sprintf("new-%d-%d", i, round), "shared", fmt.Sprintf("own-%d", i), "common"}
						if (i+round)%2 == 1 {
							slices.Reverse(keys)
						}
						x, err := s.db.Begin(s.ctx)
						if err == nil {
							err = s.s.Record(s.ctx, x, recording(events(keys...), 0))
						}
						if err == nil {
							err = s.db.Commit(x)
						}
						if err != nil {
							errs[i] = err
							return
						}
					}
				})
			}
			wg.Wait()
			for i, err := range errs {
				s.check(err == nil, "transaction %d: %v", i, err)
			}
			for _, key := range []string{"shared", "common"} {
				chain := s.find(driver.EventFilter{Topic: "paid", Key: key})
				slices.SortFunc(chain, func(a, b driver.Found) int { return int(a.Event.Position - b.Event.Position) })
				s.check(len(chain) == 96, "%d of 96 events of the key %s are recorded", len(chain), key)
				for i := 1; i < len(chain); i++ {
					a, b := &chain[i-1].Event, &chain[i].Event
					s.check(b.Position == a.Position+1 && b.Prev.ID == a.ID, "%s: position %d follows %d", key, b.Position, a.Position)
				}
			}
		},
	}, {
		"Record/restored", "Record: after a restore a counter's next event starts a new run, above the old one, with the surviving last event as Prev.",
		func(s *suite[X]) {
			first := s.record(0, events("a", "a")...)[1]
			_, err := s.s.Tend(s.ctx, driver.Chore{Restored: true})
			s.ok(err)
			list := s.record(0, events("a", "a")...)
			s.check(list[0].Position > first.Position+1 && list[0].Prev == first.Ref(), "%d follows %d, prev %+v", list[0].Position, first.Position, list[0].Prev)
			s.check(list[1].Position == list[0].Position+1, "the new run has a gap: %d, %d", list[0].Position, list[1].Position)
		},
	}}
}

func commitCases[X any]() []testCase[X] {
	state := func(name, rule string, want driver.CommitState, end func(s *suite[X], x X)) testCase[X] {
		return testCase[X]{"Outcome/" + name, rule, func(s *suite[X]) {
			outcomes := &recorder{}
			x, err := s.db.Begin(s.ctx)
			s.ok(err)
			s.ok(s.s.Record(s.ctx, x, driver.Recording{Events: events("a"), Outcome: outcomes.outcome}))
			s.check(len(outcomes.states) == 0, "outcome %v before the end", outcomes)
			end(s, x)
			s.check(outcomes.String() == fmt.Sprint([]driver.CommitState{want}), "outcomes %v, want one of %v", outcomes, want)
		}}
	}
	return []testCase[X]{
		state("commit", "Proven: from Record on no error and no ROLLBACK, and then the answer to COMMIT.", driver.Proven,
			func(s *suite[X], x X) { s.ok(s.db.Commit(x)) }),
		state("rollback", "Void: the transaction ended without COMMIT.", driver.Void,
			func(s *suite[X], x X) { s.ok(s.db.Rollback(x)) }),
		state("error", "Doubtful: COMMIT after an error.", driver.Doubtful, func(s *suite[X], x X) {
			s.db.Fail(x)
			s.ok(s.db.Commit(x))
		}),
		state("savepoint", "Doubtful: COMMIT after a ROLLBACK of a savepoint.", driver.Doubtful, func(s *suite[X], x X) {
			if s.db.Savepoint != nil {
				s.ok(s.db.Savepoint(x))
				s.ok(s.db.RollbackTo(x))
			} else {
				s.db.Fail(x)
			}
			s.ok(s.db.Commit(x))
		}),
	}
}

func claimCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Claim/due", "Claim: selects due rows of the topic, oldest DueAt first; writes back the rows that Decide returns, whole, and returns them with their events.",
		func(s *suite[X]) {
			early := s.record(0, event("a"))[0]
			late := s.record(0, event("b"))[0]
			s.record(time.Hour, event("c"))
			claimed := s.claim(due(10))
			s.check(len(claimed) == 2 && claimed[0].ID == early.ID && claimed[1].ID == late.ID, "claimed %+v", claimed)
			s.check(string(claimed[0].Event.Payload) == string(early.Payload) && claimed[0].Event.Prev == early.Prev, "event %+v", claimed[0].Event)
			p := s.pending(early.ID)
			s.check(p.Claims == 1 && p.DueAt.Equal(claimed[0].DueAt) && p.SentAt.Equal(claimed[0].SentAt), "written %+v, returned %+v", p, claimed[0].Pending)
			s.check(len(s.claim(due(10))) == 0, "claimed again before it is due")
		},
	}, {
		"Claim/limit and rest", "Claim: up to Limit; rows that Decide leaves out stay as they were.",
		func(s *suite[X]) {
			s.record(0, events("a", "b", "c")...)
			calls := 0
			sel := due(2)
			sel.Decide = func(now time.Time, rows []driver.Pending) []driver.Decision {
				calls++
				s.check(len(rows) == 2, "Decide got %d rows", len(rows))
				return take(now, rows[:1])
			}
			s.check(len(s.claim(sel)) == 1 && calls == 1, "Decide was called %d times", calls)
			s.check(len(s.claim(due(10))) == 2, "what was left out is not there")
			sel.Decide = func(time.Time, []driver.Pending) []driver.Decision { panic("Decide was called with nothing") }
			s.check(len(s.claim(sel)) == 0, "claimed something")
		},
	}, {
		"Claim/park and skip", "Decision: a pending row as it shall be from now on; Skip also marks the event as skipped.",
		func(s *suite[X]) {
			e := s.record(0, event("a"))[0]
			sel := due(1)
			sel.Decide = func(now time.Time, rows []driver.Pending) []driver.Decision {
				p := rows[0]
				p.DueAt, p.Claims, p.Crashes, p.Failures, p.LastError = time.Time{}, 3, 4, 5, "because"
				p.AcceptedAt, p.SentAt = now, now
				return []driver.Decision{{Pending: p, Skip: true}}
			}
			want := s.claim(sel)[0].Pending
			got := s.pending(e.ID)
			s.check(*got == want && got.Parked(), "written %+v, decided %+v", got, want)
			s.check(s.find(driver.EventFilter{})[0].Event.Skipped, "the event is not marked")
			s.check(len(s.claim(due(1))) == 0, "a parked row is due")
			byID := s.claim(driver.Selection{IDs: []driver.Ref{e.Ref()}})
			s.check(len(byID) == 1, "a parked row is not claimed by id")
		},
	}, {
		"Claim/by ids", "Selection: those of IDs; a claim sees only committed rows.",
		func(s *suite[X]) {
			list := s.record(time.Hour, events("a", "b")...)
			absent := event("x")
			claimed := s.claim(driver.Selection{IDs: []driver.Ref{list[0].Ref(), absent.Ref()}})
			s.check(len(claimed) == 1 && claimed[0].ID == list[0].ID, "claimed %+v", claimed)
		},
	}, {
		"Claim/accepted", "Selection: Accepted selects rows that were accepted before AcceptedBefore; false selects rows that never were.",
		func(s *suite[X]) {
			list := s.record(0, events("a", "b")...)
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: list[0].ID, RecordedAt: list[0].RecordedAt, Accepted: true}}))
			at := s.pending(list[0].ID).AcceptedAt
			claimed := s.claim(due(10))
			s.check(len(claimed) == 1 && claimed[0].ID == list[1].ID, "fresh: claimed %+v", claimed)
			accepted := due(10)
			accepted.Accepted, accepted.AcceptedBefore = true, at
			s.check(len(s.claim(accepted)) == 0, "accepted at that very moment counts as before")
			accepted.AcceptedBefore = at.Add(time.Microsecond)
			claimed = s.claim(accepted)
			s.check(len(claimed) == 1 && claimed[0].ID == list[0].ID, "claimed %+v", claimed)
		},
	}, {
		"Claim/probe", "Probe: select only if the topic's ProbedAt is null or at least this old, and set it; of concurrent probes of a topic one succeeds.",
		func(s *suite[X]) {
			list := s.record(0, events("a", "b", "c")...)
			for _, e := range list {
				s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: e.ID, RecordedAt: e.RecordedAt, Accepted: true}}))
			}
			var wg sync.WaitGroup
			counts := make([]int, 4)
			for i := range counts {
				wg.Go(func() {
					sel := due(1)
					sel.Accepted, sel.Probe, sel.Decide = true, time.Hour, take
					claimed, err := s.s.Claim(s.ctx, sel)
					counts[i] = len(claimed)
					s.check(err == nil, "%v", err)
				})
			}
			wg.Wait()
			total := counts[0] + counts[1] + counts[2] + counts[3]
			s.check(total == 1, "%d probes went", total)
			s.check(!s.topic("paid").ProbedAt.IsZero(), "ProbedAt is not set")
		},
	}, {
		"Claim/concurrent", "Claim: two concurrent claims never return the same row with the same Claims.",
		func(s *suite[X]) {
			for range 10 {
				s.record(0, events("", "", "", "", "", "", "", "", "", "")...)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			seen := map[uuid.UUID]int{}
			for range 8 {
				wg.Go(func() {
					for range 20 {
						sel := due(7)
						sel.Decide = take
						claimed, err := s.s.Claim(s.ctx, sel)
						mu.Lock()
						s.check(err == nil, "%v", err)
						for _, c := range claimed {
							seen[c.ID]++
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			s.check(len(seen) == 100, "%d of 100 rows were claimed", len(seen))
			for id, n := range seen {
				s.check(n == 1, "%s was claimed %d times", id, n)
			}
		},
	}, {
		"Settle/fence", "Settle: each only if the pending row still has Claims equal to the verdict's; rows that are gone are passed over.",
		func(s *suite[X]) {
			list := s.record(0, events("a", "b")...)
			s.claim(driver.Selection{IDs: []driver.Ref{list[0].Ref()}})
			before := *s.pending(list[0].ID)
			gone := event("c")
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{
				{ID: list[0].ID, RecordedAt: list[0].RecordedAt, Claims: 0, Park: true, Error: "late"}, {ID: gone.ID, RecordedAt: s.now()},
				{ID: list[1].ID, RecordedAt: list[1].RecordedAt, Claims: 0, Park: true, Error: "refused"},
			}))
			s.check(*s.pending(list[0].ID) == before, "a fenced off verdict changed %+v into %+v", before, s.pending(list[0].ID))
			p := s.pending(list[1].ID)
			s.check(p.Parked() && p.LastError == "refused", "not parked: %+v", p)
		},
	}, {
		"Settle/verdicts", "Settle: Crashes becomes 0, DueAt clock + Delay, AcceptedAt the clock when Accepted; LastError becomes Error unless that is empty.",
		func(s *suite[X]) {
			e := s.record(0, event("a"))[0]
			s.claim(driver.Selection{IDs: []driver.Ref{e.Ref()}, Decide: func(_ time.Time, rows []driver.Pending) []driver.Decision {
				rows[0].Claims, rows[0].Crashes, rows[0].LastError = 1, 3, "before"
				return []driver.Decision{{Pending: rows[0]}}
			}})
			now := s.now()
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: e.ID, RecordedAt: e.RecordedAt, Claims: 1, Accepted: true, Delay: time.Hour}}))
			p := s.pending(e.ID)
			s.check(p.Crashes == 0 && p.LastError == "before" && !p.AcceptedAt.Before(now), "accepted: %+v", p)
			s.check(p.DueAt.Sub(p.AcceptedAt) == time.Hour, "due %v after acceptance", p.DueAt.Sub(p.AcceptedAt))
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: e.ID, RecordedAt: e.RecordedAt, Claims: 1, Delay: time.Minute, Error: "busy"}}))
			again := s.pending(e.ID)
			s.check(again.AcceptedAt.Equal(p.AcceptedAt) && again.LastError == "busy" && again.DueAt.Before(p.DueAt), "again: %+v", again)
		},
	}}
}
