package pabal

import (
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The inbox's eight rules: where an event stands among the events of its key, as one consumer sees them. Pure functions;
// the transaction around them is in inbox.go.

// Reasons that inbox rows keep, stable words that status and operators read.
const (
	reasonWaiting = "waiting"         // held: for its predecessor
	reasonJoining = "joining"         // held: its predecessor may still come, for the consumer is new to the key
	reasonStarted = "started"         // held: is being handled, outside the transaction that received it
	reasonRetry   = "retry"           // held: an operator wants it handled where the cursor stands
	reasonSkip    = "skip"            // held: an operator wants it passed over
	reasonFailed  = "failed"          // held: tried again at next_at; parked: tried often enough
	reasonTooOld  = "too old to tell" // parked: the inbox may have forgotten that it was handled
	reasonFork    = "fork"            // parked: another event has its place
	reasonCrashed = "crashed"         // parked: its handler was started often, and no outcome is known
	reasonUnread  = "unreadable"      // parked
)

const (
	joinBacklog   = time.Minute // sent so long after it was recorded: part of a backlog or a redelivery
	joinSurely    = 15 * time.Minute
	joinHold      = 30 * time.Second
	startedAlone  = 4 // from so many starts without an outcome an event runs without its successors
	startedMax    = 10
	successorsMax = 100 // in one transaction
)

// placing is what becomes of an event.
type placing int

const (
	toHandle placing = iota
	toHold           // until its cursor moves
	toJoin           // until then, or for a while: then the key begins at its lowest held
	toPass           // from before the consumer joined
	toFork           // another event has its place
)

// place applies rules 3 to 8 to a row with a position. waitingBelow: a row of the key waits between the cursor and this
// one. late: from its being sent, by the producer's clock, to its coming here, by ours; below 0 where that clock is ahead. With toJoin it
// says how long.
func place(
	row *driver.Row, cursor *driver.Cursor, m driver.Memory, waitingBelow bool, late, republishAfter time.Duration,
) (placing, time.Duration) {
	if !cursor.Begun {
		return placeFirst(row, m, late, republishAfter)
	}
	last, prev := cursor.Last, row.Prev
	above := row.Position > last.Position
	switch {
	case row.Position < cursor.Began:
		return toPass, 0 // 3
	case prev.ID == last.ID && (!last.IsZero() || row.Position == cursor.Began):
		return toHandle, 0 // 5
	case above && startsRun(row) && (prev.IsZero() || prev.Position <= last.Position) && !waitingBelow && !last.IsZero():
		return toHandle, 0 // 6
	case above && prev.Position > last.Position && prev.RecordedAt.Before(joinedAt(m, late)) && row.Job == uuid.Nil && !waitingBelow:
		return toJoin, 2 * republishAfter // 7 from before joining: its predecessor may never be sent to us
	case above:
		return toHold, 0 // 7
	default:
		return toFork, 0 // 8
	}
}

// placeFirst is rule 4: the consumer has no cursor of the key. The producer's clock may be behind ours, but by no more than late.
func placeFirst(row *driver.Row, m driver.Memory, late, republishAfter time.Duration) (placing, time.Duration) {
	since := joinedAt(m, late)
	if m.ForgotBefore.After(since) {
		since = m.ForgotBefore
	}
	prev := row.Prev
	switch {
	case prev.IsZero():
		return toHandle, 0
	case row.Job != uuid.Nil, !prev.RecordedAt.Before(since):
		return toHold, 0
	case row.SentAt.Sub(row.RecordedAt) > joinBacklog, !prev.RecordedAt.Add(max(0, late)).Before(since):
		return toJoin, 2 * republishAfter
	case since.Sub(prev.RecordedAt) > joinSurely:
		return toHandle, 0
	default:
		return toJoin, joinHold
	}
}

// joinedAt is when we joined by the producer's clock, as far as a message shows that this is ahead of ours: what was recorded before was
// recorded before we joined, and may never be sent to us.
func joinedAt(m driver.Memory, late time.Duration) time.Time { return m.JoinedAt.Add(max(0, -late)) }

func startsRun(row *driver.Row) bool {
	return row.Prev.IsZero() || row.Position != row.Prev.Position+1
}

// keyState is a key's cursor and waiting rows while a plan is made.
type keyState struct {
	cursor  driver.Cursor
	waiting []driver.Row // by position
	count   int          // of held rows, those not loaded included
	moved   bool
	chunk   int // the planner's last that saves the cursor, from 1
	saved   int // where in that

	lastLoaded uuid.UUID // of waiting, when there may be more; else zero
}

// waitingBelow reports whether a row waits between the cursor and the position.
func (k *keyState) waitingBelow(position int64) bool {
	for i := range k.waiting {
		p := k.waiting[i].Position
		if p > k.cursor.Last.Position && p < position {
			return true
		}
	}
	return false
}

// advance moves the cursor to a row; it moves only up.
func (k *keyState) advance(row *driver.Row) {
	c := &k.cursor
	if !c.Begun {
		c.Begun, c.Began = true, row.Position
	}
	if row.Position > c.Last.Position {
		c.Last = driver.Ref{ID: row.ID, Position: row.Position, RecordedAt: row.RecordedAt}
	}
	if !c.Overflow.IsZero() && c.Overflow.Position <= c.Last.Position {
		c.Overflow = driver.Ref{}
	}
	k.moved = true
}

// beginBefore begins the cursor so that the row's next try is rule 5.
func (k *keyState) beginBefore(row *driver.Row) {
	c := &k.cursor
	c.Begun, c.Began, c.Last = true, row.Position, row.Prev
}

// wait adds a held row in its place.
func (k *keyState) wait(row driver.Row) {
	i := len(k.waiting)
	for i > 0 && k.waiting[i-1].Position > row.Position {
		i--
	}
	k.waiting = append(k.waiting, driver.Row{})
	copy(k.waiting[i+1:], k.waiting[i:])
	k.waiting[i] = row
	k.count++
}

// drop removes a row from those that wait.
func (k *keyState) drop(id uuid.UUID) {
	for i := range k.waiting {
		if k.waiting[i].ID == id {
			k.waiting = append(k.waiting[:i], k.waiting[i+1:]...)
			return
		}
	}
}
