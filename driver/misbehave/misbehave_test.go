package misbehave_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

var paid = driver.Destination{Topic: "paid"}

// broker is one in memory, with one queue, and the same one misbehaving.
func broker(t *testing.T, r misbehave.Rates) (plain, wrapped driver.Broker, trouble *misbehave.Trouble) {
	t.Helper()
	w := world.Real()
	server := sim.NewBrokerServer(w, sim.BrokerOptions{Dedup: time.Minute, Limits: driver.Limits{Hold: time.Minute, Wait: 10 * time.Millisecond}})
	plain, trouble = server.Connect(w, sim.Direct), misbehave.New(1, nil)
	wrapped = misbehave.Broker(server.Connect(w, sim.Direct), trouble)
	topology := driver.Topology{Topics: []driver.TopicSpec{{Name: "paid"}}, Queues: []driver.QueueSpec{{Name: "queue", Topics: []string{"paid"}}}}
	if err := wrapped.Check(t.Context(), topology, true); err != nil {
		t.Fatal(err)
	}
	trouble.Set(misbehave.Plan{"": r})
	return plain, wrapped, trouble
}

func messages(n int) (list []driver.Message) {
	for i := range n {
		id := uuid.New()
		list = append(list, driver.Message{ID: id, Dedup: id.String(), Group: fmt.Sprint(i % 5), Body: []byte(fmt.Sprintf("%02d", i))})
	}
	return list
}

func bodies(deliveries []driver.Delivery) (list []string) {
	for _, d := range deliveries {
		list = append(list, string(d.Body))
	}
	return list
}

func receive(t *testing.T, b driver.Broker) []driver.Delivery {
	t.Helper()
	got, err := b.Receive(t.Context(), "queue", 100)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPublishMisbehaves(t *testing.T) {
	for name, c := range map[string]struct {
		rates          misbehave.Rates
		accepted       int
		stored, atOnce int
	}{
		"nothing": {misbehave.Rates{}, 10, 10, 10},
		"refused": {misbehave.Rates{Refused: 1}, 0, 0, 0},
		"lost":    {misbehave.Rates{Lost: 1}, 0, 10, 10},
		"late":    {misbehave.Rates{Late: 1, LateMost: 50 * time.Millisecond}, 0, 10, -1},
		"doubled": {misbehave.Rates{Doubled: 1}, 10, 20, 20},
		"stalled": {misbehave.Rates{Stalled: 1, StallMost: 20 * time.Millisecond}, 10, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			plain, b, trouble := broker(t, c.rates)
			list := messages(10)
			accepted := 0
			for _, v := range b.Publish(t.Context(), paid, list) {
				if v.Kind == driver.Accepted {
					accepted++
				} else if v.Kind != driver.Again || !errors.Is(v.Err, misbehave.Err) {
					t.Errorf("verdict %v, %v", v.Kind, v.Err)
				}
			}
			clear(list[0].Body) // the caller's again
			trouble.Calm()
			got := bodies(receive(t, plain))
			if accepted != c.accepted || len(got) != c.stored || slices.Contains(got, "\x00\x00") {
				t.Errorf("%d accepted, %d stored: %q", accepted, len(got), got)
			}
		})
	}
}

func TestPublishFailsByHalfInTheOrderOfItsGroups(t *testing.T) {
	plain, b, _ := broker(t, misbehave.Rates{HalfFailed: 1})
	list := messages(50)
	failed := map[string]bool{}
	accepted := 0
	for i, v := range b.Publish(t.Context(), paid, list) {
		if v.Kind == driver.Accepted {
			if accepted++; failed[list[i].Group] {
				t.Errorf("message %d is accepted after another of its group was not", i)
			}
			continue
		}
		failed[list[i].Group] = true
	}
	if stored := len(receive(t, plain)); stored != accepted || accepted == 0 || accepted == 50 {
		t.Errorf("%d accepted, %d stored", accepted, stored)
	}
}

func TestAnswerNamesNoEntry(t *testing.T) {
	plain, b, trouble := broker(t, misbehave.Rates{Silent: 1})
	stored := map[int]bool{}
	for range 20 {
		for _, v := range b.Publish(t.Context(), paid, messages(2)) {
			if v != (driver.Verdict{}) {
				t.Errorf("verdict %+v", v)
			}
		}
		stored[len(receive(t, plain))] = true
	}
	if !maps.Equal(stored, map[int]bool{0: true, 2: true}) || trouble.Done()["Publish Silent"] != 20 {
		t.Errorf("stored %v, done %v", stored, trouble.Done())
	}
}

func TestReceiveMisbehaves(t *testing.T) {
	plain, b, trouble := broker(t, misbehave.Rates{})
	publish := func(n int) (want []string) {
		for i, v := range plain.Publish(t.Context(), paid, messages(n)) {
			if want = append(want, fmt.Sprintf("%02d", i)); v.Kind != driver.Accepted {
				t.Fatal(v.Err)
			}
		}
		return want
	}
	want := publish(30)
	trouble.Set(misbehave.Plan{"": {HeldBack: 1}})
	first := bodies(receive(t, b))
	trouble.Set(nil)
	more := publish(1)
	second := bodies(receive(t, b))
	if len(first) != 15 || len(second) != 16 || second[0] != more[0] || !slices.Equal(append(first, second[1:]...), want) {
		t.Errorf("came %q, then %q", first, second)
	}
	publish(30)
	trouble.Set(misbehave.Plan{"": {Shuffled: 1}})
	got := bodies(receive(t, b))
	if slices.Equal(got, want) || len(got) != 30 {
		t.Errorf("came %q", got)
	}
	publish(10)
	trouble.Set(misbehave.Plan{"": {Short: 1}})
	if got := receive(t, b); len(got) < 1 || len(got) > 3 {
		t.Errorf("came %q", bodies(got))
	}
	trouble.Set(misbehave.Plan{"": {Lost: 1}})
	if got, err := b.Receive(t.Context(), "queue", 100); !errors.Is(err, misbehave.Err) || got != nil {
		t.Errorf("came %q, %v", bodies(got), err)
	}
	if got, err := plain.Receive(t.Context(), "queue", 100); len(got) != 0 || err != nil {
		t.Errorf("what was lost came at once: %q, %v", bodies(got), err)
	}
}

// A message that was held back is given back when its broker is closed.
func TestCloseGivesBackWhatIsHeldBack(t *testing.T) {
	plain, b, trouble := broker(t, misbehave.Rates{})
	plain.Publish(t.Context(), paid, messages(10))
	trouble.Set(misbehave.Plan{"": {HeldBack: 1}})
	came := receive(t, b)
	if err := b.Ack(t.Context(), "queue", came); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, plain); len(came)+len(got) != 10 {
		t.Errorf("%d came, then %d", len(came), len(got))
	}
}

func TestAckMisbehaves(t *testing.T) {
	for name, c := range map[string]struct {
		rates misbehave.Rates
		fails bool
		left  int
	}{
		"nothing": {misbehave.Rates{}, false, 0}, "refused": {misbehave.Rates{Refused: 1}, true, 10},
		"lost": {misbehave.Rates{Lost: 1}, true, 0}, "not acknowledged": {misbehave.Rates{NotAcked: 1}, false, 10},
		"half failed": {misbehave.Rates{HalfFailed: 1}, true, 5},
	} {
		t.Run(name, func(t *testing.T) {
			plain, b, trouble := broker(t, misbehave.Rates{})
			b.Publish(t.Context(), paid, messages(10))
			got := receive(t, b)
			trouble.Set(misbehave.Plan{"Ack": c.rates})
			if err := b.Ack(t.Context(), "queue", got); c.fails != errors.Is(err, misbehave.Err) {
				t.Errorf("answered %v", err)
			}
			trouble.Calm()
			if _, err := b.Extend(t.Context(), "queue", got, 0); err != nil { // those that are left
				t.Fatal(err)
			}
			if left := len(receive(t, plain)); left != c.left {
				t.Errorf("%d are left", left)
			}
		})
	}
}

// database is one in memory, and a store of it that misbehaves.
func database(t *testing.T) (d *sim.Database, plain *sim.Store, s driver.Store[*sim.Tx], trouble *misbehave.Trouble) {
	t.Helper()
	d = sim.NewDatabase(world.Real(), sim.DatabaseOptions{})
	plain, trouble = d.Connect(world.Real(), sim.Direct), misbehave.New(1, nil)
	s = misbehave.Store[*sim.Tx](plain, trouble)
	if err := s.Open(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	return d, plain, s, trouble
}

func TestCommitMisbehaves(t *testing.T) {
	for name, c := range map[string]struct {
		rates  misbehave.Rates
		fails  bool
		atOnce int
		later  int
	}{
		"nothing": {misbehave.Rates{}, false, 1, 1}, "refused": {misbehave.Rates{Refused: 1}, true, 0, 0},
		"lost": {misbehave.Rates{Lost: 1}, true, 1, 1}, "late": {misbehave.Rates{Late: 1, LateMost: time.Millisecond}, true, -1, 1},
		"slow": {misbehave.Rates{Stalled: 1, StallMost: 10 * time.Millisecond}, false, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, s, trouble := database(t)
			tx, err := s.Inbox().Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.Insert(t.Context(), "effects", "a", 1); err != nil {
				t.Fatal(err)
			}
			trouble.Set(misbehave.Plan{"Commit": c.rates})
			if err := s.Inbox().End(t.Context(), tx, driver.Commit); c.fails != errors.Is(err, misbehave.Err) {
				t.Errorf("answered %v", err)
			}
			if n := d.Count("effects"); c.atOnce >= 0 && n != c.atOnce {
				t.Errorf("%d effects are committed", n)
			}
			if err := s.Inbox().End(t.Context(), tx, driver.Rollback); err != nil { // as a caller does whose commit failed
				t.Error(err)
			}
			trouble.Calm()
			if n := d.Count("effects"); n != c.later {
				t.Errorf("%d effects are committed in the end", n)
			}
		})
	}
}

func TestStoreMisbehaves(t *testing.T) {
	_, plain, s, trouble := database(t)
	record := func() (ref driver.Ref, state driver.CommitState, err error) {
		tx, err := plain.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list := []driver.Event{{ID: uuid.New(), Topic: "paid", Type: "paid", ContentType: "application/json", Payload: []byte("{}")}}
		err = s.Record(t.Context(), tx, driver.Recording{Events: list, Outcome: func(s driver.CommitState) { state = s }})
		if failed := tx.Commit(context.Background()); failed != nil {
			t.Fatal(failed)
		}
		return list[0].Ref(), state, err
	}
	pending := func(ref driver.Ref) *driver.Pending {
		r, err := plain.Read(t.Context(), driver.Query{Events: &driver.EventFilter{IDs: []uuid.UUID{ref.ID}, Limit: 1}})
		if err != nil || len(r.Events) != 1 {
			t.Fatalf("%d events, %v", len(r.Events), err)
		}
		return r.Events[0].Pending
	}
	trouble.Set(misbehave.Plan{"Record": {Doubted: 1}})
	ref, state, err := record()
	if err != nil || state != driver.Doubtful {
		t.Errorf("a commit is told as %v (%v)", state, err)
	}
	trouble.Set(misbehave.Plan{"Record": {Lost: 1}})
	if _, _, err := record(); !errors.Is(err, misbehave.Err) {
		t.Errorf("answered %v", err)
	}
	trouble.Set(misbehave.Plan{"Settle": {Late: 1, LateMost: time.Millisecond}})
	verdicts := []driver.Settlement{{ID: ref.ID, RecordedAt: ref.RecordedAt, Park: true}}
	if err := s.Settle(t.Context(), verdicts); !errors.Is(err, misbehave.Err) {
		t.Errorf("answered %v", err)
	}
	verdicts[0].Park = false // the caller's again
	if trouble.Calm(); !pending(ref).Parked() {
		t.Error("it was not written late")
	}
	trouble.Set(misbehave.Plan{"Confirm": {Doubled: 1}})
	if found, err := s.Confirm(t.Context(), []driver.Ref{ref}); err != nil || found[0] != driver.Known {
		t.Errorf("confirmed twice it answers %v, %v", found, err)
	}
	trouble.Set(misbehave.Plan{"Load": {Conflict: 1}})
	tx, err := s.Inbox().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Inbox().Load(t.Context(), tx, driver.Load{}); !s.Inbox().Conflict(fmt.Errorf("load: %w", err)) || plain.Inbox().Conflict(err) {
		t.Errorf("no conflict: %v", err)
	}
	trouble.Set(misbehave.Plan{"": {Refused: 1}})
	for what, err := range map[string]error{
		"Claim":  second(s.Claim(t.Context(), driver.Selection{})),
		"Read":   second(s.Read(t.Context(), driver.Query{})),
		"Tend":   second(s.Tend(t.Context(), driver.Chore{})),
		"Begin":  second(s.Inbox().Begin(t.Context())),
		"Due":    second(s.Inbox().Due(t.Context(), driver.InboxSelection{})),
		"Save":   s.Inbox().Save(t.Context(), tx, driver.Save{}),
		"inbox":  second(s.Inbox().Read(t.Context(), driver.InboxQuery{})),
		"chores": second(s.Inbox().Tend(t.Context(), driver.InboxChore{})),
	} {
		if !errors.Is(err, misbehave.Err) {
			t.Errorf("%s answers %v", what, err)
		}
	}
	if err := s.Open(t.Context(), "order"); err != nil {
		t.Errorf("Open is not named, and misbehaves: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// The n-th call of a method meets the same fault in every run of a seed, whatever other methods do meanwhile.
func TestSeedDecides(t *testing.T) {
	faults := func(seed uint64, others int) (list []bool) {
		plain, _, _ := broker(t, misbehave.Rates{})
		b := misbehave.Broker(plain, misbehave.New(seed, misbehave.Plan{"": {Refused: 0.5}}))
		for range 40 {
			for range others {
				_, _ = b.Receive(t.Context(), "queue", 1)
			}
			list = append(list, b.Ack(t.Context(), "queue", nil) != nil)
		}
		return list
	}
	if !slices.Equal(faults(1, 0), faults(1, 3)) {
		t.Error("calls of another method change what goes wrong")
	}
	if slices.Equal(faults(1, 0), faults(2, 0)) {
		t.Error("the seed changes nothing")
	}
}
