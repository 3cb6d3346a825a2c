package pabal

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

func TestPlaceAppliesTheInboxRules(t *testing.T) {
	clock := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ref := func(position int64) driver.Ref {
		if position == 0 {
			return driver.Ref{}
		}
		return driver.Ref{ID: uuid.UUID{1, byte(position)}, Position: position, RecordedAt: clock}
	}
	row := func(position, prev int64) driver.Row {
		return driver.Row{ID: ref(position).ID, Position: position, Prev: ref(prev), RecordedAt: clock, SentAt: clock}
	}
	begun := func(began, last int64) driver.Cursor {
		return driver.Cursor{Begun: true, Began: began, Last: ref(last)}
	}
	aged := func(r driver.Row, prevAge, sentLate time.Duration) driver.Row {
		r.Prev.RecordedAt = clock.Add(-prevAge)
		r.SentAt = r.RecordedAt.Add(sentLate)
		return r
	}
	joined := driver.Memory{JoinedAt: clock}
	job := row(12, 11)
	job.Job = uuid.UUID{9}
	job.Prev.RecordedAt = clock.Add(-time.Hour)
	job13 := aged(row(13, 12), time.Second, 0)
	job13.Job = job.Job
	stranger := row(12, 11)
	stranger.Prev.ID = uuid.UUID{7}
	for _, c := range []struct {
		name   string
		row    driver.Row
		cursor driver.Cursor
		m      driver.Memory
		below  bool
		late   time.Duration
		want   placing
		wait   time.Duration
	}{
		{name: "3: before the cursor began", row: row(9, 8), cursor: begun(10, 11), want: toPass},
		{name: "4: the first of its key begins", row: row(10, 0), m: joined, want: toHandle},
		{name: "4: predecessor recorded since joining is waited for", row: row(12, 11), m: joined, want: toHold},
		{name: "4: predecessor recorded since joining by a clock that is further ahead: it may never come",
			row: aged(row(12, 11), -3*time.Second, 0), late: -4 * time.Second, m: joined, want: toJoin, wait: joinHold},
		{name: "4: predecessor recorded since joining, whatever the clocks", row: aged(row(12, 11), -4*time.Second, 0), late: -3 * time.Second,
			m: joined, want: toHold},
		{name: "4: predecessor long before joining: begin", row: aged(row(12, 11), time.Hour, 0), m: joined, want: toHandle},
		{name: "4: predecessor shortly before joining: wait a little",
			row: aged(row(12, 11), time.Minute, 0), m: joined, want: toJoin, wait: joinHold},
		{name: "4: predecessor perhaps recorded since joining, for clocks may differ: wait until it would be published again",
			row: aged(row(12, 11), 2*time.Second, 0), late: 3 * time.Second, m: joined, want: toJoin, wait: 10 * time.Minute},
		{name: "4: predecessor from before joining, whatever the clocks", row: aged(row(12, 11), 4*time.Second, 0), late: 3 * time.Second,
			m: joined, want: toJoin, wait: joinHold},
		{name: "4: from a backlog: its predecessor may come behind it",
			row: aged(row(12, 11), time.Hour, 2*time.Minute), m: joined, want: toJoin, wait: 10 * time.Minute},
		{name: "4: forgotten counts as not joined",
			row: aged(row(12, 11), time.Hour, 0), m: driver.Memory{JoinedAt: clock.Add(-24 * time.Hour), ForgotBefore: clock}, want: toHandle},
		{name: "4: what is forgotten is a matter of one clock", row: row(12, 11), late: -time.Minute,
			m: driver.Memory{JoinedAt: clock.Add(-24 * time.Hour), ForgotBefore: clock}, want: toHold},
		{name: "4: in a job only an event without previous begins", row: job, m: joined, want: toHold},
		{name: "5: next", row: row(12, 11), cursor: begun(10, 11), want: toHandle},
		{name: "5: next, although something waits below", row: row(12, 11), cursor: begun(10, 11), below: true, want: toHandle},
		{name: "5: begun before its first event", row: row(10, 0), cursor: begun(10, 0), want: toHandle},
		{name: "7: begun before its first event, a later one", row: row(11, 10), cursor: begun(10, 0), want: toHold},
		{name: "6: a new run", row: row(2000, 0), cursor: begun(10, 11), want: toHandle},
		{name: "6: a new run after a restore", row: row(2000, 11), cursor: begun(10, 13), want: toHandle},
		{name: "7: a new run waits for what waits below", row: row(2000, 0), cursor: begun(10, 11), below: true, want: toHold},
		{name: "7: a new run waits for its predecessor", row: row(2000, 12), cursor: begun(10, 11), want: toHold},
		{name: "7: a gap", row: row(13, 12), cursor: begun(10, 11), want: toHold},
		{name: "7: a gap from before joining: its predecessor may come, or not",
			row: aged(row(13, 12), time.Second, 0), cursor: begun(10, 11), m: joined, want: toJoin, wait: 10 * time.Minute},
		{name: "7: … or from since joining, by a clock that is further ahead", row: aged(row(13, 12), -3*time.Second, 0), late: -4 * time.Second,
			cursor: begun(10, 11), m: joined, want: toJoin, wait: 10 * time.Minute},
		{name: "7: … but not one from since joining", row: aged(row(13, 12), -4*time.Second, 0), late: -3 * time.Second,
			cursor: begun(10, 11), m: joined, want: toHold},
		{name: "7: … and waits for what waits below", row: aged(row(13, 12), time.Second, 0), cursor: begun(10, 11), m: joined,
			below: true, want: toHold},
		{name: "7: … but not in a job", row: job13, cursor: begun(10, 11), m: joined, want: toHold},
		{name: "7: … nor when it is a matter of what is forgotten", row: aged(row(13, 12), time.Second, 0), cursor: begun(10, 11),
			m: driver.Memory{JoinedAt: clock.Add(-24 * time.Hour), ForgotBefore: clock}, want: toHold},
		{name: "8: another event has its place", row: row(11, 10), cursor: begun(10, 11), want: toFork},
		{name: "8: same run, another predecessor: above it is held", row: stranger, cursor: begun(10, 11), want: toHold},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, wait := place(&c.row, &c.cursor, c.m, c.below, c.late, 5*time.Minute)
			if got != c.want || wait != c.wait {
				t.Errorf("placed %d for %v, want %d for %v", got, wait, c.want, c.wait)
			}
		})
	}
}

func TestDueRowsIsolateWhatCrashes(t *testing.T) {
	now := time.Now()
	held := func(started int) driver.Row {
		return driver.Row{ID: uuid.UUID{byte(started)}, State: driver.Held, Started: started}
	}
	for _, c := range []struct {
		name  string
		rows  []driver.Row
		busy  bool
		taken []int // their new starts
	}{
		{"all that never crashed go together", []driver.Row{held(0), held(0), held(1)}, true, []int{1, 1, 2}},
		{"one that crashed four times goes alone", []driver.Row{held(4), held(0)}, false, []int{5}},
		{"and only when it is its turn", []driver.Row{held(0), held(4), held(0)}, false, []int{1, 1}},
		{"then nothing begins before it", []driver.Row{held(4), held(0)}, true, nil},
		{"at ten it is taken to be parked", []driver.Row{held(10), held(0)}, true, []int{11, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			taken := dueRows(now, c.rows, time.Minute, c.busy)
			if len(taken) != len(c.taken) {
				t.Fatalf("took %d rows, want %d", len(taken), len(c.taken))
			}
			for i, row := range taken {
				if row.Started != c.taken[i] || row.State != driver.Held {
					t.Errorf("row %d: started %d, %v", i, row.Started, row.State)
				}
			}
		})
	}
}
