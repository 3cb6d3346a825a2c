package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
)

// tailLate is how long a transaction may have been open whose events tail still shows: they are seen once it has committed,
// and were recorded before others that were seen already.
const tailLate = 30 * time.Second

// Where that is more than a page, most looks go less far back, and an event of a transaction that was open for longer is shown by the next
// that does.
const (
	tailNear  = 2 * time.Second
	tailWhole = 10 // the one of so many
)

type tailCommand struct {
	storeFlags
	filterFlags
	Last  int           `short:"n" help:"Begin with so many that are there, up to 1,000." default:"10"`
	Every time.Duration `help:"How often the store is looked at." default:"1s"`
}

func (c *tailCommand) Run(a *app) error {
	if c.Last < 0 || c.Last > page {
		return usage("--last %d: from 0 to %d", c.Last, page)
	}
	if c.Every < 100*time.Millisecond {
		return usage("--every %v: at least 100ms", c.Every)
	}
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		t := tail{a: a, o: o, c: c, seen: map[uuid.UUID]time.Time{}}
		if err := t.begin(); err != nil {
			return err
		}
		ticker := time.NewTicker(c.Every)
		defer ticker.Stop()
		t.follow(ticker.C)
		return nil
	})
}

// tail remembers what it has shown for as long as it looks back.
type tail struct {
	a      *app
	o      *pabal.Operator
	c      *tailCommand
	from   time.Time // of what was recorded before, nothing is looked for
	newest time.Time // of what was seen
	seen   map[uuid.UUID]time.Time
	much   bool // since from there is more than a page
	looks  int
}

func (t *tail) begin() error {
	s, err := t.o.Status(t.a.ctx)
	if err != nil {
		return err
	}
	f := t.c.filter()
	t.from = s.Now.Add(-tailLate)
	f.Limit, f.Descending = max(t.c.Last, 1), true
	found, err := t.o.Events(t.a.ctx, f)
	if err != nil {
		return err
	}
	slices.Reverse(found)
	for i := range found {
		if e := shown(&found[i]); t.c.Last > 0 {
			t.show(&e)
		}
	}
	if f.From.After(t.from) {
		t.from = f.From
	}
	// What is there and not among the last is not news.
	return t.each(func(e *event) { t.saw(e) })
}

// follow looks at each tick, until ctx ends. A database that is away is told of, and waited for.
func (t *tail) follow(ticks <-chan time.Time) {
	told := "" // what is wrong
	for {
		select {
		case <-t.a.ctx.Done():
			return
		case <-ticks:
		}
		wrong := ""
		if err := t.next(); err != nil {
			wrong = err.Error()
		}
		switch {
		case t.a.ctx.Err() != nil || wrong == told:
			continue
		case wrong != "":
			t.a.log.Warn("events cannot be read, trying again", "err", wrong)
		default:
			t.a.log.Warn("events are read again")
		}
		told = wrong
	}
}

func (t *tail) saw(e *event) {
	t.seen[e.ID] = e.RecordedAt
	if e.RecordedAt.After(t.newest) {
		t.newest = e.RecordedAt
	}
}

func (t *tail) next() error {
	err := t.each(t.show)
	for id, at := range t.seen {
		if at.Before(t.from) {
			delete(t.seen, id)
		}
	}
	return err
}

// each calls do for the events that were recorded since from, or lately, and not seen.
func (t *tail) each(do func(*event)) error {
	f := t.c.filter()
	f.From, f.Limit = t.from, page
	near := t.newest.Add(-tailNear)
	whole := !t.much || t.looks%tailWhole == 0 || !near.After(t.from)
	if !whole {
		f.From = near
	}
	t.looks++
	for pages := 0; ; pages++ {
		found, err := t.o.Events(t.a.ctx, f)
		if err != nil {
			return err
		}
		for i := range found {
			if _, seen := t.seen[found[i].Event.ID]; !seen {
				e := shown(&found[i])
				do(&e)
			}
		}
		if len(found) < page {
			if whole { // until the next such look, an event may come late by tailLate
				t.much = pages > 0
				if back := t.newest.Add(-tailLate); back.After(t.from) {
					t.from = back
				}
			}
			return nil
		}
		f.After = found[len(found)-1].Event.Ref()
	}
}

func (t *tail) show(e *event) {
	t.saw(e)
	if t.a.json {
		_ = json.NewEncoder(t.a.stdout).Encode(e) // a line each
		return
	}
	_, _ = fmt.Fprintf(t.a.stdout, "%-27s  %s  %-9s  %s  %s  %s\n", e.RecordedAt.Format("2006-01-02T15:04:05.999999Z07:00"), e.ID, e.label(), e.Type,
		cmp.Or(e.Key, "-"), e.payload())
}
