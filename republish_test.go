package pabal

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

func TestMayGo(t *testing.T) {
	proven := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		accepts  bool
		since    time.Duration
		provenAt time.Time
		want     going
	}{
		{"a topic that accepts and is proven", true, 0, proven,
			going{fresh: true, probe: true, accepted: true, acceptedBefore: proven.Add(-30 * time.Second)}},
		{"never proven: of what was accepted one goes alone", true, 0, time.Time{},
			going{fresh: true, probe: true, acceptedBefore: time.Time{}.Add(-30 * time.Second)}},
		{"does not accept: nothing for ten seconds", false, 9 * time.Second, time.Time{},
			going{acceptedBefore: time.Time{}.Add(-30 * time.Second)}},
		{"does not accept: then one", false, 10 * time.Second, time.Time{},
			going{alone: true, acceptedBefore: time.Time{}.Add(-30 * time.Second)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mayGo(c.accepts, c.since, c.provenAt); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestClaimDue(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	rows := func(n, crashes int) []driver.Pending {
		rows := make([]driver.Pending, n)
		for i := range rows {
			rows[i] = driver.Pending{ID: uuid.UUID{byte(i), byte(crashes)}, DueAt: now, Crashes: crashes}
		}
		return rows
	}
	t.Run("groups of equal crashes, smaller the more of them", func(t *testing.T) {
		for crashes, want := range []int{256, 32, 4, 1, 1} {
			mixed := append(rows(300, crashes), rows(300, crashes+1)...)
			got := claimDue(mixed, now, time.Time{}, 10*time.Second)
			if len(got) != want {
				t.Fatalf("%d crashes: claimed %d, want %d", crashes, len(got), want)
			}
			for _, d := range got {
				if d.Crashes != crashes+1 || d.Claims != 1 || !d.DueAt.Equal(now.Add(10*time.Second)) || !d.SentAt.Equal(now) {
					t.Fatalf("claimed as %+v", d)
				}
			}
		}
	})
	t.Run("a failure is charged once per acceptance, and only while the topic is proven", func(t *testing.T) {
		accepted := now.Add(-10 * time.Minute)
		for _, c := range []struct {
			name             string
			accepted, sent   time.Time
			proven           time.Time
			failures, parked int
		}{
			{"never accepted", time.Time{}, now.Add(-time.Minute), now, 0, 0},
			{"accepted, topic proven", accepted, time.Time{}, now, 1, 0},
			{"accepted, topic proven before", accepted, time.Time{}, accepted.Add(30 * time.Second), 0, 0},
			{"accepted, claimed since: charged already", accepted, accepted.Add(time.Minute), now, 0, 0},
		} {
			row := rows(1, 0)
			row[0].AcceptedAt, row[0].SentAt = c.accepted, c.sent
			if got := claimDue(row, now, c.proven, time.Second)[0]; got.Failures != c.failures {
				t.Errorf("%s: %d failures, want %d", c.name, got.Failures, c.failures)
			}
		}
	})
	t.Run("the tenth failure parks", func(t *testing.T) {
		row := rows(1, 0)
		row[0].AcceptedAt, row[0].Failures = now.Add(-10*time.Minute), 9
		if got := claimDue(row, now, now, time.Second)[0]; !got.Parked() || got.LastError == "" {
			t.Errorf("not parked: %+v", got)
		}
	})
	t.Run("crashes while alone park in the end", func(t *testing.T) {
		row := rows(1, 0)
		for claims := 1; ; claims++ {
			got := claimDue(row, now, time.Time{}, time.Second)[0]
			if got.Parked() {
				if claims != 14 { // 4 on the way to being alone, then 10
					t.Errorf("parked by claim %d", claims)
				}
				return
			}
			if row[0] = got.Pending; claims > 20 {
				t.Fatal("never parked")
			}
		}
	})
}

func TestDoubtfulEventsAreClaimedOnlyOnce(t *testing.T) {
	now := time.Now()
	rows := []driver.Pending{
		{ID: uuid.UUID{1}, DueAt: now}, {ID: uuid.UUID{2}, DueAt: now, Claims: 1}, {ID: uuid.UUID{3}},
		{ID: uuid.UUID{4}, DueAt: now, AcceptedAt: now},
	}
	got := claimUnclaimed(rows, now, time.Second)
	if len(got) != 1 || got[0].ID != rows[0].ID || got[0].Claims != 1 {
		t.Errorf("claimed %+v", got)
	}
}

func TestBackoff(t *testing.T) {
	for claims, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		want *= time.Second
		for _, random := range []uint64{0, 1 << 63, 12345678901234567} {
			if got := backoff(claims, 5*time.Minute, random); got > want || got < want-want/10 {
				t.Errorf("after %d claims %v, want at most a tenth below %v", claims, got, want)
			}
		}
	}
}

func TestClassify(t *testing.T) {
	forgot := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	young, old := forgot.Add(time.Hour), forgot.Add(-time.Hour)
	for _, c := range []struct {
		answer driver.Confirmation
		at     time.Time
		again  bool
		want   finding
	}{
		{driver.Confirmed, young, false, confirmed}, {driver.Confirmed, old, true, confirmed},
		{driver.Known, young, false, repeated}, {driver.Known, young, true, repeated},
		{driver.Absent, old, false, repeated}, {driver.Absent, young, false, suspect}, {driver.Absent, young, true, ghost},
	} {
		if got := classify(c.answer, c.at, forgot, c.again); got != c.want {
			t.Errorf("classify(%v, %v, again %v) = %v, want %v", c.answer, c.at, c.again, got, c.want)
		}
	}
}

// stopped is a store to which a client's end comes while a claim is under way.
type stopped struct {
	ledger
	stop   func()
	events int
}

func (s *stopped) Claim(ctx context.Context, sel driver.Selection) ([]driver.Claimed, error) {
	s.stop()
	row := driver.Pending{ID: uuid.New(), Topic: "paid"}
	decisions := sel.Decide(time.Now(), []driver.Pending{row})
	s.events += len(decisions)
	return []driver.Claimed{{Pending: decisions[0].Pending, Event: driver.Event{ID: row.ID, Topic: "paid"}}}, ctx.Err()
}

// What a claim under way got when the client stops is known to it: else it would wait for its lease. None begins then.
func TestClaimUnderWayEndsThoughTheClientStops(t *testing.T) {
	p := testPublisher(t, Options{})
	p.begin()
	ctx, stop := context.WithCancel(t.Context())
	s := &stopped{stop: stop}
	p.house.store = s
	r := &republisher{house: p.house, publisher: p}
	topic := &driver.Topic{Name: "paid"}
	for range 2 {
		_, _ = r.claim(ctx, topic, &driver.Selection{Topic: "paid", Limit: 1}, false)
	}
	if s.events != 1 || p.queued != 1 {
		t.Errorf("%d events are claimed, %d queued", s.events, p.queued)
	}
}
