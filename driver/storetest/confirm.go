package storetest

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/pabal-go/pabal/driver"
)

func confirmCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Confirm/answers", "Confirm: deletes pending rows (parked or not), sets PublishedAt where it is null, and answers for each, in the order given; the same id twice is Confirmed, then Known.",
		func(s *suite[X]) {
			list := s.record(0, events("a", "b", "c")...)
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: list[1].ID, RecordedAt: list[1].RecordedAt, Park: true}}))
			absent := event("x")
			refs := []driver.Ref{list[0].Ref(), absent.Ref(), list[1].Ref(), list[0].Ref()}
			answers, err := s.s.Confirm(s.ctx, refs)
			s.ok(err)
			want := []driver.Confirmation{driver.Confirmed, driver.Absent, driver.Confirmed, driver.Known}
			s.check(slices.Equal(answers, want), "answers %v, want %v", answers, want)
			s.check(s.pending(list[0].ID) == nil && s.pending(list[1].ID) == nil && s.pending(list[2].ID) != nil, "wrong rows are pending")
			published := s.find(driver.EventFilter{IDs: []uuid.UUID{list[0].ID}})[0].Event.PublishedAt
			answers, err = s.s.Confirm(s.ctx, refs[:1])
			s.ok(err)
			s.check(answers[0] == driver.Known, "repeated: %v", answers)
			answers, err = s.s.Confirm(s.ctx, []driver.Ref{list[0].Ref(), list[2].Ref()})
			s.ok(err)
			s.check(slices.Equal(answers, []driver.Confirmation{driver.Known, driver.Confirmed}), "repeated beside a new one: %v", answers)
			s.check(s.find(driver.EventFilter{IDs: []uuid.UUID{list[0].ID}})[0].Event.PublishedAt.Equal(published) && !published.IsZero(),
				"a repeated Confirm changed PublishedAt")
		},
	}, {
		"Read/topics", "Read: every topic that is registered or has pending rows, each with its OldestDue (not older than After); Counts adds Waiting and Parked.",
		func(s *suite[X]) {
			e := event("a")
			e.Topic = "unregistered"
			list := s.record(0, e, event("b"), event("c"))
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: list[1].ID, RecordedAt: list[1].RecordedAt, Park: true}}))
			_, err := s.s.Tend(s.ctx, driver.Chore{Register: &driver.Topic{Name: "empty", Ordered: true}})
			s.ok(err)
			s.check(s.topic("empty").Ordered, "the registered topic is not there")
			s.check(s.topic("unregistered").OldestDue.Equal(list[0].RecordedAt), "oldest due %v", s.topic("unregistered").OldestDue)
			paid := s.topic("paid")
			s.check(paid.Waiting == 1 && paid.Parked == 1 && paid.OldestDue.Equal(list[2].RecordedAt) && paid.OldestWaiting.Equal(list[2].RecordedAt), "counted %+v", paid)
			r, err := s.s.Read(s.ctx, driver.Query{Topics: true, After: list[0].RecordedAt.Add(time.Microsecond)})
			s.ok(err)
			for _, t := range r.Topics {
				s.check(t.OldestDue.IsZero(), "%s: oldest due %v is older than After", t.Name, t.OldestDue)
			}
		},
	}, {
		"Read/events", "Read: events are ordered by (RecordedAt, ID), narrowed by the filter, and resumed after a reference, in either direction; Count counts all that the filter selects.",
		func(s *suite[X]) {
			var all []driver.Event
			for _, key := range []string{"a", "b", "a", "", "a"} {
				all = append(all, s.record(0, event(key))...)
			}
			ids := func(found []driver.Found) (ids []uuid.UUID) {
				for _, f := range found {
					ids = append(ids, f.Event.ID)
				}
				return ids
			}
			expect := func(what string, f driver.EventFilter, want ...int) {
				var list []uuid.UUID
				for _, i := range want {
					list = append(list, all[i].ID)
				}
				s.check(slices.Equal(ids(s.find(f)), list), "%s: found %v, want %v", what, ids(s.find(f)), list)
			}
			expect("all", driver.EventFilter{}, 0, 1, 2, 3, 4)
			expect("key", driver.EventFilter{Key: "a"}, 0, 2, 4)
			expect("page", driver.EventFilter{After: all[1].Ref(), Limit: 2}, 2, 3)
			expect("back", driver.EventFilter{After: all[3].Ref(), Limit: 2, Descending: true}, 2, 1)
			expect("back, key", driver.EventFilter{After: all[4].Ref(), Key: "a", Limit: 1, Descending: true}, 2)
			_, err := s.s.Confirm(s.ctx, []driver.Ref{all[0].Ref()})
			s.ok(err)
			s.ok(s.s.Settle(s.ctx, []driver.Settlement{{ID: all[1].ID, RecordedAt: all[1].RecordedAt, Park: true}}))
			expect("unconfirmed", driver.EventFilter{State: driver.Unconfirmed}, 1, 2, 3, 4)
			expect("parked", driver.EventFilter{State: driver.ParkedOnly}, 1)
			expect("late", driver.EventFilter{State: driver.LateOnly, Limit: 1}, 2)
			expect("not late yet", driver.EventFilter{State: driver.LateOnly, Late: time.Hour})
			expect("confirmed", driver.EventFilter{State: driver.ConfirmedOnly}, 0)
			expect("type", driver.EventFilter{Type: all[0].Type, Key: "a"}, 0, 2, 4)
			expect("another type", driver.EventFilter{Type: "refunded"})
			count := func(want int, f driver.EventFilter) {
				r, err := s.s.Read(s.ctx, driver.Query{Count: &f})
				s.ok(err)
				s.check(r.Count == want && len(r.Events) == 0, "of %+v there are %d, want %d", f, r.Count, want)
			}
			count(5, driver.EventFilter{Topic: "paid", Limit: 1, After: all[1].Ref()})
			count(3, driver.EventFilter{Topic: "paid", Key: "a", Type: all[0].Type})
			count(1, driver.EventFilter{State: driver.ParkedOnly})
			count(1, driver.EventFilter{State: driver.ConfirmedOnly})
			count(2, driver.EventFilter{IDs: []uuid.UUID{all[0].ID, all[3].ID, uuid.New()}})
			count(0, driver.EventFilter{IDs: []uuid.UUID{uuid.New()}})
			expect("time", driver.EventFilter{From: all[1].RecordedAt, To: all[3].RecordedAt.Add(time.Microsecond), Key: "a"}, 2)
		},
	}}
}

func tendCases[X any]() []testCase[X] {
	return []testCase[X]{{
		"Tend/prove", "Prove raises a topic's ProvenAt to at most the clock, never lowers it.",
		func(s *suite[X]) {
			prove := func(at time.Time) time.Time {
				_, err := s.s.Tend(s.ctx, driver.Chore{Prove: &driver.Proof{Topic: "paid", SentAt: at}})
				s.ok(err)
				return s.topic("paid").ProvenAt
			}
			at := s.now().Add(-time.Minute)
			s.check(prove(at).Equal(at), "proven at %v, want %v", s.topic("paid").ProvenAt, at)
			s.check(prove(at.Add(-time.Hour)).Equal(at), "it was lowered")
			s.check(!prove(at.Add(time.Hour)).After(s.now()), "it is beyond the clock")
		},
	}, {
		"Tend/forget", "Forget removes confirmed events recorded before Before, never one that has a pending row (P7); counters of confirmed last events go, and no position ever repeats.",
		func(s *suite[X]) {
			old := s.record(0, events("a", "a", "b")...)
			_, err := s.s.Confirm(s.ctx, []driver.Ref{old[0].Ref(), old[1].Ref()})
			s.ok(err)
			last := old[1]
			for range 2 {
				before := s.now().Add(time.Millisecond)
				for range 4 {
					_, err = s.s.Tend(s.ctx, driver.Chore{Forget: &driver.Forget{Before: before, Limit: 1}})
					s.ok(err)
				}
				left := s.find(driver.EventFilter{})
				s.check(len(left) == 1 && left[0].Event.ID == old[2].ID, "left: %+v", left)
				floor := s.topic("paid").PositionFloor // only behind many events of one millisecond does the next position show it
				s.check(floor >= last.Position, "the floor is %d, below %d, which was given", floor, last.Position)
				next := s.record(0, event("a"))[0]
				s.check(next.Position > last.Position && next.Prev.IsZero(), "position %d after %d, prev %+v", next.Position, last.Position, next.Prev)
				_, err = s.s.Confirm(s.ctx, []driver.Ref{next.Ref()})
				s.ok(err)
				last = next
			}
			b := s.record(0, event("b"))[0]
			s.check(b.Position == old[2].Position+1, "the counter of an unconfirmed event is gone")
		},
	}, {
		"Tend/jobs", "Job: inserts or updates a job by its id; a job whose lease is not over may only be updated by its Owner; FinishedAt is set when Finished turns true.",
		func(s *suite[X]) {
			j := driver.Job{ID: uuid.Must(uuid.NewV7()), By: "kim", Spec: []byte(`{"a":1}`)}
			save := func(owner byte) int {
				j.Owner, j.Lease = uuid.UUID{owner}, time.Hour
				n, err := s.s.Tend(s.ctx, driver.Chore{Job: &j})
				s.ok(err)
				return n
			}
			_, err := s.s.Tend(s.ctx, driver.Chore{Job: &j})
			s.ok(err)
			s.check(save(1) == 1 && save(2) == 0 && save(1) == 1, "the lease does not keep others out")
			j.Resume, j.Sent, j.LastError, j.Finished = driver.Ref{ID: j.ID, RecordedAt: s.now()}, 7, "x", true
			s.check(save(1) == 1, "the owner cannot finish it")
			r, err := s.s.Read(s.ctx, driver.Query{Jobs: true})
			s.ok(err)
			got := r.Jobs[0]
			s.check(len(r.Jobs) == 1 && got.By == "kim" && string(got.Spec) == `{"a":1}` && got.Resume == j.Resume && got.Sent == 7 &&
				got.LastError == "x" && got.Finished && !got.FinishedAt.IsZero() && !got.CreatedAt.IsZero() && got.Owner == j.Owner, "read %+v", got)
		},
	}}
}
