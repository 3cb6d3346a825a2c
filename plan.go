package pabal

import (
	"cmp"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// A plan is what one transaction of a consumer will do, worked out before anything is written: chunks, each a Save and then
// at most one call of a handler. What a chunk saves is true as soon as its handler has run, and not before, so a
// handler that commits the transaction by itself takes along just what it handled.

// chunk is a piece of a transaction.
type chunk[X any] struct {
	handler  *handler[X] // nil: nothing to call
	quiet    []*arrival  // before it: skipped, or without a handler
	arrivals []*arrival
	save     driver.Save
}

// tally counts what became of events, for the observer.
type tally struct {
	result string
	topic  string
	n      int
}

type planner[X any] struct {
	c      *Consumer[X]
	loaded *driver.Loaded
	keys   []driver.CursorKey
	index  map[driver.CursorKey]int // of keys, where they are many
	states []keyState
	chunks []chunk[X]
	first  driver.Save // what is saved whatever the handlers do
	tally  []tally
	parked []driver.Row
	wake   bool // a row is due at once: the inbox sweep should look
}

// firsts are the arrivals of a group, for one attempt: another one begins with what was received. Further copies of an event
// come apart: they are duplicates of the first one, whatever the inbox knows.
func firsts(group []*arrival) (work []arrival, copies []*arrival) {
	if len(group) == 1 {
		return []arrival{*group[0]}, nil
	}
	type identity struct {
		source  string
		id, job uuid.UUID
	}
	seen := make(map[identity]bool, len(group))
	work = make([]arrival, 0, len(group))
	for _, a := range group {
		is := identity{a.row.Source, a.row.ID, a.row.Job}
		if seen[is] {
			copies = append(copies, a)
			continue
		}
		seen[is] = true
		work = append(work, *a)
	}
	return work, copies
}

func newPlanner[X any](c *Consumer[X], keys []driver.CursorKey, loaded *driver.Loaded) *planner[X] {
	p := &planner[X]{c: c, loaded: loaded, keys: keys, states: make([]keyState, len(keys))}
	for i := range keys {
		p.states[i] = keyState{cursor: loaded.Cursors[i], waiting: loaded.Waiting[i], count: loaded.WaitingCount[i]}
		if n := len(loaded.Waiting[i]); n > successorsMax {
			p.states[i].lastLoaded = loaded.Waiting[i][n-1].ID
		}
	}
	if len(keys) > fewKeys {
		p.index = make(map[driver.CursorKey]int, len(keys))
		for i := range keys {
			p.index[keys[i]] = i
		}
	}
	return p
}

const fewKeys = 8 // are found faster by looking at each

func (p *planner[X]) state(key driver.CursorKey) *keyState {
	if p.index != nil {
		if i, ok := p.index[key]; ok {
			return &p.states[i]
		}
		return nil
	}
	for i := range p.keys {
		if p.keys[i] == key {
			return &p.states[i]
		}
	}
	return nil
}

func (p *planner[X]) memory(row *driver.Row) driver.Memory {
	for _, m := range p.loaded.Memory {
		if m.Source == row.Source && m.Topic == row.Topic {
			return m
		}
	}
	return driver.Memory{}
}

func (p *planner[X]) note(result, topic string) { p.tally = addTally(p.tally, result, topic) }

func addTally(tallies []tally, result, topic string) []tally {
	for i := range tallies {
		if t := &tallies[i]; t.result == result && t.topic == topic {
			t.n++
			return tallies
		}
	}
	return append(tallies, tally{result, topic, 1})
}

// arrive places a message that Load found to be new. It applies rules 1 and 2, then place.
func (p *planner[X]) arrive(a *arrival, known *driver.Row) {
	row := &a.row
	m := p.memory(row)
	k := p.state(row.CursorKey)
	switch {
	case known != nil:
		p.note("duplicate", row.Topic) // 1
	case a.event == nil:
		p.park(row, reasonUnread)
	case row.Job == noJob && row.RecordedAt.Before(m.ForgotBefore):
		p.park(row, reasonTooOld) // 2
	case k == nil:
		p.handle(a, nil)
	default:
		placed, wait := p.place(row, k)
		p.put(a, k, placed, wait)
	}
}

// place applies rules 3 to 8 to a row of a key.
func (p *planner[X]) place(row *driver.Row, k *keyState) (placing, time.Duration) {
	came := row.ReceivedAt
	if came.IsZero() {
		came = p.loaded.Now
	}
	return place(row, &k.cursor, p.memory(row), k.waitingBelow(row.Position), came.Sub(row.SentAt), p.c.house.o.RepublishAfter)
}

func (p *planner[X]) put(a *arrival, k *keyState, placed placing, wait time.Duration) {
	row := &a.row
	switch placed {
	case toHandle:
		p.handle(a, k)
	case toHold, toJoin:
		p.hold(row, k, placed, wait)
	case toPass:
		p.note("before joining", row.Topic)
		if row.State != driver.Done { // it was held
			p.finish(row)
		}
	case toFork:
		p.park(row, reasonFork)
	}
}

// handle adds a row to the handlers' work. A message that was delivered before may have killed its process: it is first
// kept as started, and handled from the inbox.
func (p *planner[X]) handle(a *arrival, k *keyState) {
	row := &a.row
	if a.delivery != nil && a.delivery.Attempt > 1 {
		row.State, row.Reason, row.Started = driver.Held, reasonStarted, 1
		row.NextAt = p.loaded.Now.Add(p.c.runLease())
		p.first.Rows = append(p.first.Rows, *row)
		a.started = 1
		if k != nil && !k.cursor.Begun {
			k.beginBefore(row)
			p.first.Cursors = append(p.first.Cursors, k.cursor)
		}
		return
	}
	p.step(a, k)
}

// step adds a row, which is handled now and done afterwards, to the last chunk, or to a new one when it needs a call of
// its own.
func (p *planner[X]) step(a *arrival, k *keyState) {
	var h *handler[X]
	switch {
	case a.row.Reason == reasonSkip || a.event == nil || a.event.Skipped:
		p.note("skipped", a.row.Topic)
	default:
		if h = p.c.handlers[a.row.Type]; h == nil {
			p.note("no handler", a.row.Topic)
		} else {
			p.note("handled", a.row.Topic)
		}
	}
	ch := p.chunkFor(h)
	if h != nil {
		ch.handler = h
		ch.arrivals = append(ch.arrivals, a)
	} else {
		ch.quiet = append(ch.quiet, a)
	}
	if a.started > 0 || a.delivery == nil { // it was held: Load did not insert it as done
		ch.save.Rows = putRow(ch.save.Rows, done(a.row))
	}
	if k != nil {
		k.advance(&a.row)
		k.drop(a.row.ID)
		if k.chunk == len(p.chunks) {
			ch.save.Cursors[k.saved] = k.cursor
		} else {
			k.chunk, k.saved = len(p.chunks), len(ch.save.Cursors)
			ch.save.Cursors = append(ch.save.Cursors, k.cursor)
		}
	}
}

// chunkFor returns the last chunk if a call of h fits into it.
func (p *planner[X]) chunkFor(h *handler[X]) *chunk[X] {
	if n := len(p.chunks); n > 0 {
		ch := &p.chunks[n-1]
		room := len(ch.arrivals) < p.c.o.Batch
		if h == nil && ch.handler == nil || h != nil && (ch.handler == nil || h.batch && ch.handler == h && room) {
			return ch
		}
	}
	p.chunks = append(p.chunks, chunk[X]{})
	return &p.chunks[len(p.chunks)-1]
}

func (p *planner[X]) hold(row *driver.Row, k *keyState, placed placing, wait time.Duration) {
	again := row.State == driver.Held
	if k.count >= driver.CountMax && !again {
		p.note("overflowing", row.Topic)
		row.State = driver.Gone
		p.first.Rows = putRow(p.first.Rows, *row)
		if o := k.cursor.Overflow; o.IsZero() || row.Position < o.Position {
			k.cursor.Overflow = driver.Ref{ID: row.ID, Position: row.Position, RecordedAt: row.RecordedAt}
			p.first.Cursors = putCursor(p.first.Cursors, k.cursor)
		}
		return
	}
	p.note("held", row.Topic)
	row.State, row.Reason, row.NextAt, row.Started = driver.Held, reasonWaiting, time.Time{}, 0
	if placed == toJoin {
		row.Reason, row.NextAt = reasonJoining, p.loaded.Now.Add(wait)
	}
	p.first.Rows = putRow(p.first.Rows, *row)
	k.drop(row.ID)
	if k.wait(*row); again {
		k.count--
	}
}

func (p *planner[X]) park(row *driver.Row, why string) {
	p.note("parked", row.Topic)
	row.State, row.Reason, row.NextAt, row.Started = driver.Parked, why, time.Time{}, 0
	p.first.Rows = putRow(p.first.Rows, *row)
	p.parked = append(p.parked, *row)
}

func (p *planner[X]) finish(row *driver.Row) {
	p.first.Rows = putRow(p.first.Rows, done(*row))
}

// follow places what waits behind cursors that moved, lowest first, at most most rows in all; the lowest that could
// have gone on is made due at once, so that it goes on whatever happens to this process. So is the last one that was
// loaded, for more may wait behind it.
func (p *planner[X]) follow(most int) {
	for i := range p.states {
		k := &p.states[i]
		for k.moved {
			row := k.next()
			if row == nil || row.Failures > 0 && row.NextAt.After(p.loaded.Now) {
				break // tried again later: its key waits
			}
			placed, wait := p.place(row, k)
			if placed == toHold {
				break
			}
			if placed == toHandle && most == 0 || row.ID == k.lastLoaded {
				p.dueNow(*row)
				break
			}
			a := arriveAgain(*row)
			if placed == toHandle {
				most--
				a.started = 0
				p.step(a, k)
				continue
			}
			k.drop(row.ID)
			if p.put(a, k, placed, wait); placed == toJoin {
				break // its gap is waited for from now on
			}
		}
	}
}

// next is the lowest row that waits for the cursor, behind a parked one by rules 6 and 7; one that an operator wants handled is
// the inbox sweep's.
func (k *keyState) next() *driver.Row {
	for i := range k.waiting {
		if row := &k.waiting[i]; row.State == driver.Held && row.Reason != reasonRetry && row.Reason != reasonSkip {
			return row
		}
	}
	return nil
}

func (p *planner[X]) dueNow(row driver.Row) {
	row.NextAt = p.loaded.Now
	p.first.Rows = putRow(p.first.Rows, row)
	p.wake = true
}

// done is a row that only remembers its id.
func done(row driver.Row) driver.Row {
	row.State, row.Reason, row.NextAt, row.Started, row.Body = driver.Done, "", time.Time{}, 0, nil
	return row
}

// finished returns the chunks, the first of which also saves what holds whatever the handlers do.
func (p *planner[X]) finished() []chunk[X] {
	if len(p.chunks) == 0 || p.chunks[0].handler == nil && len(p.first.Rows)+len(p.first.Cursors) > 0 {
		p.chunks = append([]chunk[X]{{}}, p.chunks...)
	}
	first := &p.chunks[0].save
	for _, row := range p.first.Rows {
		first.Rows = addRow(first.Rows, row)
	}
	for _, cursor := range p.first.Cursors {
		first.Cursors = addCursor(first.Cursors, cursor)
	}
	var calls *chunk[X] // the first that calls a handler
	var seen map[driver.CursorKey]*chunk[X]
	for i := range p.chunks {
		ch := &p.chunks[i]
		ch.save.Consumer = p.c.name
		if calls != nil {
			if seen == nil {
				seen = map[driver.CursorKey]*chunk[X]{}
			}
			ch.cutOff(calls, seen, p.loaded.Now)
		} else if ch.handler != nil {
			calls = ch
		}
	}
	return p.chunks
}

// cutOff sees to it that what is in a chunk is handled later, should a handler before commit the transaction by itself: the first
// row of each key is made due by the last chunk that has another row of it, or by the first call; the messages, which Load has
// inserted as done, are held from the first call on.
func (ch *chunk[X]) cutOff(calls *chunk[X], seen map[driver.CursorKey]*chunk[X], now time.Time) {
	for _, list := range [][]*arrival{ch.quiet, ch.arrivals} {
		for _, a := range list {
			into := cmp.Or(seen[a.row.CursorKey], calls)
			seen[a.row.CursorKey] = ch
			if a.delivery != nil {
				into = calls
			}
			if into != ch {
				due := a.row
				due.State, due.Reason, due.NextAt = driver.Held, cmp.Or(due.Reason, reasonWaiting), now
				into.save.Rows = putRow(into.save.Rows, due)
				ch.save.Rows = addRow(ch.save.Rows, done(due))
			}
		}
	}
}
