package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
)

func TestProgressSaysHowMuchIsDoneAndHowLongItTakes(t *testing.T) {
	for _, c := range []struct {
		sent, total, rate int
		still             time.Duration
		bar               int
		want              string
	}{
		{0, 200, 100, time.Second, 0, "0 of 200 (0 %), 2s left"},
		{50, 200, 10, 50 * time.Second, 7, "50 of 200 (25 %), 15s left"},
		{200, 200, 100, time.Minute, 30, "200 of 200 (100 %), 0s left"},
		{210, 200, 100, time.Minute, 30, "210 of 200 (100 %), 0s left"}, // a page twice after a kill
		{0, 0, 100, time.Second, 0, "0 of 0 (0 %), 0s left"},
		{0, 200, 100, 25 * time.Second, 0, "0 of 200 (0 %), waiting for 20s: a running client of the source carries it out, or pabal relay"},
		{50, 200, 10, 90 * time.Second, 7,
			"50 of 200 (25 %), nothing sent for 1m20s: a running client of the source carries it out, or pabal relay"},
	} {
		if got := progress(c.sent, c.total, c.rate, c.still); got != c.want {
			t.Errorf("%d of %d: %q, want %q", c.sent, c.total, got, c.want)
		}
		if got, want := bar(c.sent, c.total), "["+strings.Repeat("#", c.bar)+strings.Repeat(".", 30-c.bar)+"]"; got != want {
			t.Errorf("%d of %d: %q, want %q", c.sent, c.total, got, want)
		}
	}
}

// Where no terminal is, as in a job of CI or behind a pipe, each line stays: one at once, then one every 5 s at most, if there is news.
func TestProgressWithoutATerminal(t *testing.T) {
	start := time.Now()
	r := redelivery{ID: uuid.MustParse("018f0000-0000-7000-8000-000000000001"), Redelivery: pabal.Redelivery{Rate: 10}, OrderedAt: start}
	var out strings.Builder
	s := shower{out: changingLine{w: &out}}
	for half := range 130 { // the client dies at 10 s
		now := start.Add(time.Duration(half) * followEvery)
		r.Sent = 5 * min(max(half-2, 0), 18)
		s.progress(now, &r, 100)
	}
	s.progress(start.Add(71*time.Second), &r, 100)
	for i := range 10 {
		s.progress(start.Add(72*time.Second+time.Duration(i)*followEvery), &r, 100)
	}
	r.LastError = "broker is away"
	s.progress(start.Add(80*time.Second), &r, 100)
	s.out.end()
	want := strings.ReplaceAll(`ID: 0 of 100 (0 %), 10s left
ID: 40 of 100 (40 %), 6s left
ID: 90 of 100 (90 %), 1s left
ID: 90 of 100 (90 %), nothing sent for 1m0s: a running client of the source carries it out, or pabal relay
ID: 90 of 100 (90 %), nothing sent for 1m0s: a running client of the source carries it out, or pabal relay: broker is away
`, "ID", "redelivery "+r.ID.String())
	if out.String() != want {
		t.Errorf("it says\n%s not\n%s", &out, want)
	}
}

// A database that is away for a while ends nothing: that is told of at once, and so is what is read again.
func TestFollowOutlivesItsDatabase(t *testing.T) {
	tail, db, _, record := followed(t)
	record("a", 3, time.Minute)
	id, err := tail.o.Redeliver(t.Context(), pabal.Redelivery{Topic: "paid", By: "kim", Why: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var said lines
	var out bytes.Buffer
	a := &app{ctx: ctx, stdout: &out, stderr: &said, log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- follow(a, tail.o, id) }()
	const away = "cannot be read, trying again"
	for _, step := range []struct{ sees, then string }{
		{": 0 of 3 (0 %)", "alter table pabal_redelivery rename to elsewhere"},
		{away, "alter table elsewhere rename to pabal_redelivery"},
		{away + "@: 0 of 3 (0 %)", "update pabal_redelivery set sent = 3, finished_at = 1"},
	} {
		before, after, _ := strings.Cut(step.sees, "@")
		said.await(t, before, after)
		if _, err := db.ExecContext(ctx, step.then); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil || !strings.Contains(out.String(), "is done: 3 events") {
		t.Errorf("%v, %q, and before that %q", err, &out, said.String())
	}
}

// lines are what a command writes while a test looks.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until something is written, and something else behind it.
func (l *lines) await(t *testing.T, first, then string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, behind, found := strings.Cut(l.String(), first); found && strings.Contains(behind, then) {
			return
		}
	}
	t.Fatalf("it says %q, and not %q and then %q", l.String(), first, then)
}
