package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

const (
	followEvery = 500 * time.Millisecond
	takenUp     = 20 * time.Second // a running client looks for redeliveries every 15 s
	takenOver   = time.Minute      // and for those of a dead one, whose lease is of 30 s
)

// follow shows how far a redelivery is, until it is done or a.ctx ends. A database that goes away is told of, and waited for.
func follow(a *app, o *pabal.Operator, id uuid.UUID) error {
	f := follower{a: a, o: o, id: id, total: -1, show: shower{out: changing(a)}}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		r, err := f.look()
		switch {
		case a.ctx.Err() != nil:
		case err == nil && !r.FinishedAt.IsZero():
			f.show.out.end()
			return a.said(r, "redelivery %s is done: %d events to %s", id, r.Sent, target(r.Redelivery))
		case err == nil:
		case f.show.out.text == "": // it is wrong from the start
			return err
		case errors.As(err, new(*exit)): // nothing that passes
			f.show.out.end()
			return err
		default:
			f.show.lost(time.Now(), id, err)
		}
		select {
		case <-ticker.C:
		case <-a.ctx.Done():
			f.show.out.end()
			return &exit{exitFailed, fmt.Errorf("the redelivery goes on; follow it again with pabal events redeliveries --follow %s", id)}
		}
	}
}

// follower looks at a redelivery again and again.
type follower struct {
	a     *app
	o     *pabal.Operator
	id    uuid.UUID
	total int // that it is for; negative: not counted yet
	show  shower
}

// look shows how far it is.
func (f *follower) look() (r redelivery, err error) {
	s, err := f.o.Status(f.a.ctx)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(s.Jobs, func(j driver.Job) bool { return j.ID == f.id })
	if i < 0 {
		return r, &exit{exitFailed, fmt.Errorf("redelivery %s is not among the last ones: see pabal events redeliveries", f.id)}
	}
	r = redeliveryOf(&s.Jobs[i])
	if f.total < 0 {
		n, _, err := f.o.Matching(f.a.ctx, r.Redelivery, 1)
		if err != nil {
			return r, err
		}
		f.total = n
	}
	f.show.progress(s.Now, &r, f.total)
	return r, nil
}

// shower shows how far a redelivery is.
type shower struct {
	out   changingLine
	sent  int       // when it was last looked at
	since time.Time // that many are sent
	away  bool      // the database
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
	s.put(now, r.ID, bar(r.Sent, total), line, false)
}

// lost says that nobody can tell how far it is.
func (s *shower) lost(now time.Time, id uuid.UUID, err error) {
	line := "cannot be read, trying again: " + strings.Join(strings.Fields(err.Error()), " ")
	s.put(now, id, "["+strings.Repeat("?", barWidth)+"]", line, true)
}

func (s *shower) put(now time.Time, id uuid.UUID, bar, line string, away bool) {
	if away != s.away {
		s.away, s.out.at = away, time.Time{} // told at once
	}
	if s.out.terminal {
		line = bar + " " + line
	} else {
		line = fmt.Sprintf("redelivery %s: %s", id, line)
	}
	s.out.put(now, line)
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
