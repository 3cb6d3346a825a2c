package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// side is one of the two databases, with what has to be remembered to compare answers without their times.
type side[X any] struct {
	name string
	db   Database[X]
	s    driver.Store[X]
	last map[string]int64        // position by topic and key
	at   map[uuid.UUID]time.Time // when events were recorded, by this database's clock
	call map[uuid.UUID]int       // in which Record they were
}

func newSide[X any](name string, db Database[X], s driver.Store[X]) *side[X] {
	return &side[X]{name: name, db: db, s: s, last: map[string]int64{}, at: map[uuid.UUID]time.Time{}, call: map[uuid.UUID]int{}}
}

// ref is an event as its message names it.
func (s *side[X]) ref(id uuid.UUID) driver.Ref {
	at, recorded := s.at[id]
	if !recorded {
		at = time.UnixMicro(1)
	}
	return driver.Ref{ID: id, RecordedAt: at}
}

func (s *side[X]) do(ctx context.Context, o operation) string {
	switch o.what {
	case "record":
		return s.record(ctx, o)
	case "claim", "claim accepted", "claim by id":
		return s.claim(ctx, o)
	case "settle":
		return s.settle(ctx, o)
	case "confirm":
		refs := make([]driver.Ref, len(o.ids))
		for i, id := range o.ids {
			refs[i] = s.ref(id)
		}
		answers, err := s.s.Confirm(ctx, refs)
		return fmt.Sprint(answers, err)
	case "topics":
		return s.topics(ctx)
	case "events":
		return s.events(ctx, o)
	case "load":
		return s.load(ctx, o)
	case "due", "rows":
		return s.waiting(ctx, o)
	default:
		return s.tend(ctx, o)
	}
}

// said is an error without its words: both sides err, or neither.
func said(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (s *side[X]) record(ctx context.Context, o operation) string {
	list := slices.Clone(o.events)
	call := len(s.call)
	x, err := s.db.Begin(ctx)
	if err != nil {
		return err.Error()
	}
	r := &recorder{}
	err = s.s.Record(ctx, x, driver.Recording{Events: list, Lease: o.lease, Outcome: r.outcome})
	if o.flag {
		return fmt.Sprint(said(err), said(s.db.Rollback(x)), r)
	}
	var b strings.Builder
	_, _ = fmt.Fprint(&b, said(err), said(s.db.Commit(x)), r)
	for i := range list {
		e := &list[i]
		s.at[e.ID], s.call[e.ID] = e.RecordedAt, call
		key := e.Topic + "/" + e.Key
		_, _ = fmt.Fprintf(&b, " [%s follows %v %s, above %v]", e.ID, e.Position == e.Prev.Position+1, e.Prev.ID, e.Position > s.last[key])
		if e.Key != "" {
			s.last[key] = e.Position
		}
	}
	return b.String()
}

// decide takes, parks, skips or leaves a row by its id and the operation's number.
func decide(o operation) func(time.Time, []driver.Pending) []driver.Decision {
	return func(now time.Time, rows []driver.Pending) (decisions []driver.Decision) {
		slices.SortFunc(rows, func(a, b driver.Pending) int { return slices.Compare(a.ID[:], b.ID[:]) })
		for _, p := range rows {
			how := (int(p.ID[15]) + o.n) % 7
			if how == 0 {
				continue
			}
			p.Claims++
			p.Crashes++
			p.SentAt, p.DueAt = now, now.Add(time.Duration(how%2)*time.Hour)
			if how == 5 {
				p.DueAt, p.LastError, p.Failures = time.Time{}, "because 'é'", p.Failures+1
			}
			decisions = append(decisions, driver.Decision{Pending: p, Skip: how == 6})
		}
		return decisions
	}
}

func (s *side[X]) claim(ctx context.Context, o operation) string {
	sel := driver.Selection{Topic: o.topic, Limit: 1000, Accepted: o.what == "claim accepted", Decide: decide(o)}
	if o.flag && sel.Accepted {
		sel.Probe = time.Hour
	}
	if o.what == "claim by id" {
		for _, id := range o.ids {
			if !slices.ContainsFunc(sel.IDs, func(r driver.Ref) bool { return r.ID == id }) {
				sel.IDs = append(sel.IDs, s.ref(id))
			}
		}
	}
	claimed, err := s.s.Claim(ctx, sel)
	var b strings.Builder
	b.WriteString(said(err))
	for i := range claimed {
		_, _ = fmt.Fprintf(&b, " %s %s", pendingText(&claimed[i].Pending), eventText(&claimed[i].Event))
	}
	return b.String()
}

func pendingText(p *driver.Pending) string {
	if p == nil {
		return "[]"
	}
	return fmt.Sprintf("[%s %s claims %d crashes %d failures %d parked %v accepted %v sent %v %q]", p.ID, p.Topic, p.Claims, p.Crashes,
		p.Failures, p.Parked(), !p.AcceptedAt.IsZero(), !p.SentAt.IsZero(), p.LastError)
}

func eventText(e *driver.Event) string {
	return fmt.Sprintf("{%s %s %q %s %s %q %s prev %s skipped %v published %v}", e.ID, e.Topic, e.Key, e.Type, e.Version, e.Payload,
		e.Traceparent, e.Prev.ID, e.Skipped, !e.PublishedAt.IsZero())
}

func (s *side[X]) settle(ctx context.Context, o operation) string {
	var verdicts []driver.Settlement
	for i, id := range o.ids {
		if slices.ContainsFunc(verdicts, func(v driver.Settlement) bool { return v.ID == id }) {
			continue
		}
		n := o.numbers[i]
		v := driver.Settlement{ID: id, Claims: n % 3, Accepted: n%2 == 0, Park: n%11 == 0, Delay: time.Duration(n%5/4) * time.Hour}
		if n%3 == 0 {
			v.Error = fmt.Sprint("said ", n, " \"é\" \\")
		}
		verdicts = append(verdicts, v)
	}
	return said(s.s.Settle(ctx, verdicts))
}

func (s *side[X]) topics(ctx context.Context) string {
	r, err := s.s.Read(ctx, driver.Query{Topics: true, Counts: true})
	var b strings.Builder
	_, _ = fmt.Fprint(&b, said(err), r.Source, r.Generation)
	for _, t := range r.Topics {
		_, _ = fmt.Fprintf(&b, " [%s ordered %v proven %v probed %v due %v waiting %v %d parked %d]", t.Name, t.Ordered, !t.ProvenAt.IsZero(),
			!t.ProbedAt.IsZero(), !t.OldestDue.IsZero(), !t.OldestWaiting.IsZero(), t.Waiting, t.Parked)
	}
	return b.String()
}

func (s *side[X]) events(ctx context.Context, o operation) string {
	f := driver.EventFilter{State: driver.EventState(o.n % 5), Limit: 1 + o.n%40, Descending: o.flag, Late: -time.Hour}
	switch o.n / 4 % 4 {
	case 0:
		f.Topic = o.topic
	case 1:
		f.Topic, f.Key = o.topic, o.key
	case 2:
		f.IDs = o.ids
	case 3:
		f.Type = o.topic
	}
	r, err := s.s.Read(ctx, driver.Query{Events: &f, Count: &f})
	return fmt.Sprint(said(err), r.Count) + s.foundText(r.Events, &f)
}

// foundText leaves open what the contract does: the events of one Record are as old as each other, or one is older, and if not all
// events were asked for, which of the last Record's are there.
func (s *side[X]) foundText(found []driver.Found, f *driver.EventFilter) string {
	if len(found) == 0 {
		return ""
	}
	older := func(a, b driver.Found) int {
		return cmp.Or(s.at[a.Event.ID].Compare(s.at[b.Event.ID]), slices.Compare(a.Event.ID[:], b.Event.ID[:]))
	}
	if f.Descending {
		slices.Reverse(found)
	}
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, " in order %v", slices.IsSortedFunc(found, older))
	cut := -1 // the call that may not be there as a whole
	if len(found) == f.Limit && f.Descending {
		cut = s.call[found[0].Event.ID]
	} else if len(found) == f.Limit {
		cut = s.call[found[len(found)-1].Event.ID]
	}
	slices.SortFunc(found, func(a, b driver.Found) int { return slices.Compare(a.Event.ID[:], b.Event.ID[:]) })
	for i := range found {
		if call := s.call[found[i].Event.ID]; call == cut {
			_, _ = fmt.Fprintf(&b, " one of call %d", call)
			continue
		}
		_, _ = fmt.Fprintf(&b, " %s %s", eventText(&found[i].Event), pendingText(found[i].Pending))
	}
	return b.String()
}

// load does what a consumer does: it loads arrivals, holds, parks or handles them, and moves cursors.
func (s *side[X]) load(ctx context.Context, o operation) string {
	b := s.s.Inbox()
	x, err := b.Begin(ctx)
	if err != nil {
		return said(err)
	}
	l := driver.Load{Consumer: consumer, Waiting: 1 + o.n%4}
	for _, r := range o.arrivals {
		r.State, r.Body = driver.Done, nil
		l.Arrivals = append(l.Arrivals, r)
		if !slices.Contains(l.Keys, r.CursorKey) {
			l.Keys = append(l.Keys, r.CursorKey)
		}
	}
	loaded, err := b.Load(ctx, x, l)
	var text strings.Builder
	text.WriteString(said(err))
	for _, r := range loaded.Known {
		text.WriteString(" known " + rowText(r))
	}
	save := driver.Save{Consumer: consumer}
	for i, c := range loaded.Cursors {
		_, _ = fmt.Fprintf(&text, " cursor %q %v %d %s %s %d", c.Key, c.Begun, c.Began, c.Last.ID, c.Overflow.ID, loaded.WaitingCount[i])
		text.WriteString(" waiting" + lowestText(loaded.Waiting[i], l.Waiting))
		if o.n%2 == 0 {
			c.Begun, c.Began, c.Last = true, 1, driver.Ref{ID: o.arrivals[0].ID, Position: int64(o.n % 7), RecordedAt: o.arrivals[0].RecordedAt}
			save.Cursors = append(save.Cursors, c)
		}
	}
	for _, m := range loaded.Memory {
		_, _ = fmt.Fprintf(&text, " memory %s %s %v %v", m.Source, m.Topic, !m.JoinedAt.IsZero(), !m.ForgotBefore.IsZero())
	}
	for i, r := range o.arrivals {
		r.State = driver.RowState((o.n/3 + i) % 4)
		r.Reason, r.Failures, r.Started = "because", o.n%3, o.n%2
		if r.State == driver.Held && o.n%3 == 0 {
			r.NextAt = time.UnixMicro(5).UTC()
		}
		save.Rows = append(save.Rows, r)
	}
	text.WriteString(said(b.Save(ctx, x, save)))
	how := driver.Commit
	if o.flag {
		how = driver.Rollback
	}
	text.WriteString(said(b.End(ctx, x, how)))
	return text.String()
}

// lowestText leaves open what the contract does: which of the rows of one position comes first, and, if not all were asked for, which
// of the last position's are there.
func lowestText(rows []driver.Row, most int) string {
	slices.SortFunc(rows, func(a, b driver.Row) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), slices.Compare(a.ID[:], b.ID[:]))
	})
	var b strings.Builder
	for i := range rows {
		if len(rows) == most && rows[i].Position == rows[most-1].Position {
			_, _ = fmt.Fprintf(&b, " one of %d", rows[i].Position)
			continue
		}
		b.WriteString(" " + rowText(&rows[i]))
	}
	return b.String()
}

func rowText(r *driver.Row) string {
	if r == nil {
		return "[]"
	}
	return fmt.Sprintf("[%s %q %s %d %v %q next %v %d %d %q]", r.ID, r.Key, r.Type, r.Position, r.State, r.Reason, !r.NextAt.IsZero(),
		r.Failures, r.Started, r.Body)
}

func (s *side[X]) waiting(ctx context.Context, o operation) string {
	var rows []driver.Row
	var err error
	if o.what == "due" {
		rows, err = s.s.Inbox().Due(ctx, driver.InboxSelection{Consumer: consumer, Limit: 1000,
			Decide: func(_ time.Time, rows []driver.Row) (taken []driver.Row) {
				slices.SortFunc(rows, func(a, b driver.Row) int { return slices.Compare(a.ID[:], b.ID[:]) })
				for _, r := range rows {
					if (int(r.ID[15])+o.n)%3 > 0 {
						r.Started, r.NextAt = r.Started+1, time.Time{}
						taken = append(taken, r)
					}
				}
				return taken
			}})
	} else {
		f := driver.RowFilter{State: driver.RowState(o.n % 3), Limit: 1 + o.n%30}
		if o.flag {
			f.Source, f.Topic, f.Key = "order", "paid", o.key
		}
		var r driver.InboxReading
		r, err = s.s.Inbox().Read(ctx, driver.InboxQuery{Consumer: consumer, Rows: &f, Consumers: true, Memories: true, Overflowing: true})
		// Whether a consumer is named that has nothing waiting depends on whether a row had to be inserted to be locked.
		r.Consumers = slices.DeleteFunc(r.Consumers, func(c driver.ConsumerCounts) bool { return c.Held+c.Parked+c.Overflow == 0 })
		for i := range r.Consumers {
			r.Consumers[i].OldestHeld = time.Time{}
		}
		rows = r.Rows
		if err == nil {
			return fmt.Sprintf("%v %d %s", r.Consumers, len(r.Memories), rowsText(rows))
		}
	}
	return said(err) + rowsText(rows)
}

func rowsText(rows []driver.Row) string {
	var b strings.Builder
	for i := range rows {
		b.WriteString(" " + rowText(&rows[i]))
	}
	return b.String()
}

func (s *side[X]) tend(ctx context.Context, o operation) string {
	now := time.Now()
	c, i := driver.Chore{}, driver.InboxChore{Consumer: consumer}
	switch o.what {
	case "register":
		c.Register = &driver.Topic{Name: o.topic, Ordered: o.flag}
	case "prove":
		c.Prove = &driver.Proof{Topic: o.topic, SentAt: time.UnixMicro(int64(1 + o.n)).UTC()}
	case "restored":
		c.Restored = o.flag
	case "forget":
		c.Forget = &driver.Forget{Before: now.Add(time.Duration(o.n%2*2-1) * time.Hour), Limit: 1000}
	case "inbox forget":
		i.Forget = &driver.InboxForget{Before: time.UnixMicro(int64(1 + o.n%6)).UTC(), Limit: 1000}
	case "join":
		i.Join = &driver.Join{Source: "order", Topic: "paid", SentAt: time.UnixMicro(int64(1 + o.n)).UTC()}
	}
	// How many rows a chore changes that finds everything as it should be is the store's own matter; what it removes is not.
	if i.Join != nil {
		_, err := s.s.Inbox().Tend(ctx, i)
		return said(err)
	}
	if i.Forget != nil {
		n, err := s.s.Inbox().Tend(ctx, i)
		return fmt.Sprint(n, said(err))
	}
	n, err := s.s.Tend(ctx, c)
	if c.Forget == nil {
		return said(err)
	}
	return fmt.Sprint(n, said(err))
}
