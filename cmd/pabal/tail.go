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
		for {
			select {
			case <-a.ctx.Done():
				return nil
			case <-ticker.C:
				if err := t.next(); err != nil && a.ctx.Err() == nil {
					return err
				}
			}
		}
	})
}

// tail remembers what it has shown for as long as it looks back.
type tail struct {
	a    *app
	o    *pabal.Operator
	c    *tailCommand
	from time.Time // of what was recorded before, nothing is looked for
	seen map[uuid.UUID]time.Time
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
	return t.each(func(e *event) { t.seen[e.ID] = e.RecordedAt })
}

func (t *tail) next() error {
	err := t.each(t.show)
	newest := t.from
	for _, at := range t.seen {
		if at.After(newest) {
			newest = at
		}
	}
	if back := newest.Add(-tailLate); back.After(t.from) {
		t.from = back
	}
	for id, at := range t.seen {
		if at.Before(t.from) {
			delete(t.seen, id)
		}
	}
	return err
}

// each calls do for the events that were recorded since from and not seen.
func (t *tail) each(do func(*event)) error {
	f := t.c.filter()
	f.From, f.Limit = t.from, page
	for {
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
			return nil
		}
		f.After = found[len(found)-1].Event.Ref()
	}
}

func (t *tail) show(e *event) {
	t.seen[e.ID] = e.RecordedAt
	if t.a.json {
		_ = json.NewEncoder(t.a.stdout).Encode(e) // a line each
		return
	}
	_, _ = fmt.Fprintf(t.a.stdout, "%-27s  %s  %-9s  %s  %s  %s\n", e.RecordedAt.Format("2006-01-02T15:04:05.999999Z07:00"), e.ID, e.label(), e.Type,
		cmp.Or(e.Key, "-"), e.payload())
}
