package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// A consumer's lanes: which one an arrival goes into, and what of a lane goes into one transaction. Events of a key share a lane.

// enqueue gives an arrival to a lane. The caller holds mu.
func (c *Consumer[X]) enqueue(a *arrival) {
	c.lanes[c.laneOf(a)].put(a)
	c.waiting++
	if a.delivery == nil {
		c.swept++
	}
}

// keyOf is what arrivals of a key have in common.
func keyOf(a *arrival) uint64 { return spread(a.row.Source, a.row.Topic, a.row.Key) }

// fillMost is what a transaction takes at most for lanes to be filled one after the other: at fewer than 667 events a second more lanes
// are quicker, and a transaction that takes long may be a handler's own doing.
const fillMost = 1500 * time.Microsecond

// laneOf is the lane where others of an arrival's key are. When they come quicker than one lane could handle them one by one, events that
// may share a transaction otherwise go where a batch of them forms. The caller holds mu.
func (c *Consumer[X]) laneOf(a *arrival) int {
	if a.row.Position == 0 {
		return c.freeLane(a, spread(string(a.row.ID[:])))
	}
	key := keyOf(a)
	return c.stays.enter(key, func() int { return c.freeLane(a, key) })
}

func (c *Consumer[X]) freeLane(a *arrival, hash uint64) int {
	return pick(c.lanes, c.batches(a) && c.offered.busy(min(c.once, fillMost)), c.o.Batch, hash)
}

// left takes note of arrivals that are in no lane any more. The caller holds mu.
func (c *Consumer[X]) left(arrivals ...*arrival) {
	for _, a := range arrivals {
		if a.row.Position != 0 {
			c.stays.leave(keyOf(a))
		}
		if a.delivery == nil {
			if c.swept--; c.swept == 0 {
				c.due.Set() // something may wait to be alone
			}
		}
	}
	c.waiting -= len(arrivals)
}

func (c *Consumer[X]) runLane(ctx, patience context.Context, w world.World, l *lane[*arrival]) {
	var rate pace
	gathers := beforeHandling.upTo(c.o.Batch)
	for {
		group, stop := c.take(ctx, l)
		switch {
		case stop:
			return
		case len(group) > 0:
			start := w.Now()
			c.process(ctx, patience, w, group)
			d := rate.pause(len(group), c.o.Batch, start, w.Now(), gathers)
			c.house.mu.Lock()
			c.once = rate.once
			c.house.mu.Unlock()
			gather(ctx, c.house, l, gathers, d)
		default:
			l.wake.Wait(ctx, -1)
		}
	}
}

// passMost bounds what a batch passes over, in batches.
const passMost = 4

// take removes from a lane what goes into one transaction: arrivals of one batch handler, or a single one. Arrivals of other handlers
// are passed over, and so is then what else there is of their keys. When ctx has ended, what was not started is given back.
func (c *Consumer[X]) take(ctx context.Context, l *lane[*arrival]) (group []*arrival, stop bool) {
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	if ctx.Err() != nil {
		c.left(l.queue...)
		l.queue = nil
		return nil, true
	}
	var passed []*arrival
	var keys map[uint64]bool // of those passed
	n, most := 0, c.o.Batch
	for ; n < len(l.queue) && len(group) < most && len(passed) < passMost*c.o.Batch; n++ {
		switch a := l.queue[n]; {
		case a.over:
			c.left(a)
		case len(group) == 0:
			group = append(group, a)
			if !c.batches(a) {
				most = 1
			}
		case c.batches(a) && c.handlers[a.row.Type] == c.handlers[group[0].row.Type] && (a.row.Position == 0 || !keys[keyOf(a)]):
			group = append(group, a)
		default:
			if passed = append(passed, a); keys == nil {
				keys = map[uint64]bool{}
			}
			keys[keyOf(a)] = true
		}
	}
	from := n - len(passed)
	copy(l.queue[from:], passed)
	clear(l.queue[:from])
	l.queue = l.queue[from:]
	return group, false
}

// batches reports whether an arrival may share its transaction with others.
func (c *Consumer[X]) batches(a *arrival) bool {
	if a.delivery == nil || a.delivery.Attempt > 1 || a.event == nil {
		return false
	}
	h := c.handlers[a.row.Type]
	return h == nil || h.batch
}
