package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

const (
	followEvery = 500 * time.Millisecond
	plainEvery  = 5 * time.Second  // a line, where no terminal is
	takenUp     = 20 * time.Second // a running client looks for redeliveries every 15 s
	takenOver   = time.Minute      // and for those of a dead one, whose lease is of 30 s
)

// follow shows how far a redelivery is, until it is done or a.ctx ends.
func follow(a *app, o *pabal.Operator, id uuid.UUID) error {
	total := -1
	show := shower{w: a.stderr, terminal: isTerminal(os.Stderr)}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		s, err := o.Status(a.ctx)
		if err != nil && a.ctx.Err() == nil {
			return err
		}
		if err == nil {
			i := slices.IndexFunc(s.Jobs, func(j driver.Job) bool { return j.ID == id })
			if i < 0 {
				return &exit{exitFailed, fmt.Errorf("redelivery %s is not among the last ones: see pabal events redeliveries", id)}
			}
			r := redeliveryOf(&s.Jobs[i])
			if total < 0 {
				if total, _, err = o.Matching(a.ctx, r.Redelivery, 1); err != nil {
					return err
				}
			}
			show.progress(s.Now, &r, total)
			if !r.FinishedAt.IsZero() {
				show.end()
				return a.said(r, "redelivery %s is done: %d events to %s", id, r.Sent, target(r.Redelivery))
			}
		}
		select {
		case <-ticker.C:
		case <-a.ctx.Done():
			show.end()
			return &exit{exitFailed, fmt.Errorf("the redelivery goes on; follow it again with pabal events redeliveries --follow %s", id)}
		}
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// shower shows how far a redelivery is: on a terminal in one line that changes, elsewhere now and then in a further one.
type shower struct {
	w        io.Writer
	terminal bool
	sent     int       // when it was last looked at
	since    time.Time // that many are sent
	line     string    // the last one
	at       time.Time // when that was written
}

func (s *shower) progress(now time.Time, r *redelivery, total int) {
	switch {
	case s.since.IsZero() && r.Sent == 0:
		s.since = r.OrderedAt
	case s.since.IsZero() || r.Sent != s.sent:
		s.since = now
	}
	s.sent = r.Sent
	line := progress(r.Sent, total, r.Rate, now.Sub(s.since))
	if r.LastError != "" {
		line += ": " + r.LastError
	}
	switch {
	case s.terminal:
		_, _ = fmt.Fprintf(s.w, "\r%s %s\x1b[K", bar(r.Sent, total), line)
	case line != s.line && (s.line == "" || now.Sub(s.at) >= plainEvery):
		_, _ = fmt.Fprintf(s.w, "redelivery %s: %s\n", r.ID, line)
		s.line, s.at = line, now
	}
}

// end leaves the line that changes.
func (s *shower) end() {
	if s.terminal {
		_, _ = fmt.Fprintln(s.w)
	}
}

const barWidth = 30

func bar(sent, total int) string {
	done := int(share(sent, total) * barWidth)
	return "[" + strings.Repeat("#", done) + strings.Repeat(".", barWidth-done) + "]"
}

func share(sent, total int) float64 { return min(float64(sent)/float64(max(total, 1)), 1) }

// progress says how much of a redelivery is done, and for how long it has not gone on if that is longer than it should be.
func progress(sent, total, rate int, still time.Duration) string {
	const carries = "a running client of the source carries it out, or pabal relay"
	line := fmt.Sprintf("%d of %d (%.0f %%)", sent, total, 100*share(sent, total))
	switch waited := still.Truncate(takenUp); {
	case sent == 0 && still >= takenUp:
		return fmt.Sprintf("%s, waiting for %v: %s", line, waited, carries)
	case sent < total && still >= takenOver:
		return fmt.Sprintf("%s, nothing sent for %v: %s", line, waited, carries)
	}
	return fmt.Sprintf("%s, %v left", line, takes(max(total-sent, 0), rate))
}
