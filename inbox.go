package pabal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// The one transaction around a handler, and what follows when it fails.

const conflictTries = 3

var noJob = uuid.Nil

// result is what became of a transaction.
type result struct {
	tally  []tally
	parked []driver.Row
	wake   bool  // the inbox holds something that is due
	resume bool  // the event is kept as started, and to be handled from the inbox
	err    error // the database's: nothing is known, try again
	failed error // the handler's: rolled back
	alone  bool  // the handler had failed with that one event only
}

// receive handles messages that came from the broker: one transaction for all, and if that fails, one for each.
func (c *Consumer[X]) receive(ctx context.Context, w world.World, group []*arrival) error {
	r := c.transact(ctx, w, group, successorsMax)
	if r.failed != nil && !r.alone && len(group) == 1 {
		r = c.transact(ctx, w, group, 0)
	}
	switch {
	case r.err != nil:
		return r.err
	case r.failed != nil && ctx.Err() != nil:
		return ctx.Err() // shutting down, or no longer ours: no failure of the handler
	case r.failed != nil && len(group) > 1:
		for i := range group {
			if err := c.receive(ctx, w, group[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case r.failed != nil:
		return c.keep(ctx, group[0], r.failed)
	case r.resume:
		group[0].started = 1
		c.done(group)
		return c.resume(ctx, w, group[0])
	}
	c.committed(group, r)
	return nil
}

// resume handles a held row of the inbox.
func (c *Consumer[X]) resume(ctx context.Context, w world.World, a *arrival) error {
	most := successorsMax
	if a.started >= startedAlone {
		most = 0
	}
	r := c.transact(ctx, w, []*arrival{a}, most)
	if r.failed != nil && !r.alone {
		r = c.transact(ctx, w, []*arrival{a}, 0)
	}
	switch {
	case r.err != nil:
		return r.err
	case r.failed != nil && ctx.Err() != nil:
		return ctx.Err()
	case r.failed != nil:
		return c.keep(ctx, a, r.failed)
	}
	c.committed([]*arrival{a}, r)
	return nil
}

// transact runs one transaction, again at once after a serialization failure or a deadlock.
func (c *Consumer[X]) transact(ctx context.Context, w world.World, group []*arrival, most int) (r result) {
	for range conflictTries {
		if r = c.attempt(ctx, w, group, most); r.failed == nil || !c.inbox.Conflict(r.failed) {
			if r.err == nil || !c.inbox.Conflict(r.err) {
				return r
			}
		}
	}
	return r
}

func (c *Consumer[X]) attempt(ctx context.Context, w world.World, group []*arrival, most int) (r result) {
	tx, err := c.inbox.Begin(ctx)
	if err != nil {
		return result{err: fmt.Errorf("begin: %w", err)}
	}
	how := driver.Rollback
	defer func() {
		if how != driver.Commit {
			_ = c.finishTx(ctx, tx, how) // what failed is known already
		}
	}()
	c.house.mu.Lock() // the heartbeat may be telling one that it is lost
	work, copies := firsts(group)
	c.house.mu.Unlock()
	rows := make([]driver.Row, len(work))
	for i := range work {
		rows[i] = work[i].row
		rows[i].State, rows[i].Body = driver.Done, nil
	}
	keys := keysOf(rows)
	loaded, err := c.inbox.Load(ctx, tx, driver.Load{Consumer: c.name, Arrivals: rows, Keys: keys, Waiting: successorsMax + 1})
	if err != nil {
		return result{err: fmt.Errorf("load: %w", err)}
	}
	p := newPlanner(c, keys, &loaded)
	for i := range work {
		if a := &work[i]; a.started == 0 {
			p.arrive(a, loaded.Known[i])
		} else if !p.resume(a, loaded.Known[i]) {
			return result{} // somebody else had it meanwhile
		}
	}
	for _, a := range copies {
		p.note("duplicate", a.row.Topic) // 1
	}
	p.follow(most)
	resume := group[0].started == 0 && work[0].started > 0
	chunks := p.finished()
	called := false
	for i := range chunks {
		ch := &chunks[i]
		if len(ch.save.Rows)+len(ch.save.Cursors) > 0 {
			err := c.inbox.Save(ctx, tx, ch.save)
			if err != nil && called { // perhaps the handler before has ended the transaction: apart, it will show
				return result{failed: fmt.Errorf("save after a handler: %w", err)}
			}
			if err != nil {
				return result{err: fmt.Errorf("save: %w", err)}
			}
		}
		if ch.handler == nil {
			continue
		}
		called = true
		if err := c.call(ctx, w, ch.handler, tx, ch.arrivals); err != nil {
			if errors.Is(err, errHung) {
				how = driver.Abandon
				c.hang(err)
			}
			return result{failed: err, alone: handlesOnly(chunks[i:i+1], group[0])}
		}
	}
	if err := c.finishTx(ctx, tx, driver.Commit); err != nil {
		if errors.Is(err, driver.ErrNoTransaction) {
			return result{failed: errors.New("handler rolled back its transaction"), alone: handlesOnly(chunks, group[0])}
		}
		return result{err: fmt.Errorf("commit: %w", err)}
	}
	how = driver.Commit
	return result{tally: p.tally, parked: p.parked, wake: p.wake, resume: resume}
}

// finishTx ends a transaction whatever has happened to its context.
func (c *Consumer[X]) finishTx(ctx context.Context, tx X, how driver.Ending) error {
	call, cancel := c.house.w.Deadline(context.WithoutCancel(ctx), c.house.o.Lease)
	defer cancel()
	return c.inbox.End(call, tx, how)
}

// keysOf returns the distinct cursor keys of rows with a position, in order of appearance.
func keysOf(rows []driver.Row) []driver.CursorKey {
	var keys []driver.CursorKey
	var seen map[driver.CursorKey]bool
	for i := range rows {
		key := rows[i].CursorKey
		if rows[i].Position == 0 || seen[key] {
			continue
		}
		if seen == nil {
			seen = make(map[driver.CursorKey]bool, len(rows)-i)
			keys = make([]driver.CursorKey, 0, len(rows)-i)
		}
		seen[key] = true
		keys = append(keys, key)
	}
	return keys
}

// resume places a row that waits in the inbox; false if it is no longer there as it was when it was taken.
func (p *planner[X]) resume(a *arrival, known *driver.Row) bool {
	if known == nil || known.State != driver.Held || known.Started != a.started {
		return false
	}
	a.row = *known
	row := &a.row
	k := p.state(row.CursorKey)
	switch {
	case row.Started > startedMax:
		p.park(row, reasonCrashed)
		if k != nil && p.c.o.PassParked {
			p.pass(k, row)
		}
	case a.event == nil && row.Reason != reasonSkip:
		p.park(row, reasonUnread)
	case k == nil, row.Reason == reasonRetry, row.Reason == reasonSkip:
		if row.Type == "" && a.event != nil { // unreadable before, and read by a newer version
			row.Type = a.event.Type
		}
		p.step(a, k)
	case !k.cursor.Begun && row.Reason == reasonJoining:
		p.begin(k, row, cmp.Or(k.next(), row))
	default:
		placed, wait := p.place(row, k)
		if placed == toJoin && row.Reason == reasonJoining {
			p.begin(k, row, row) // again: the hole before it is from before joining
			break
		}
		p.put(a, k, placed, wait)
		k.moved = true // look at the key again, whatever moved its cursor
	}
	return true
}

// begin begins a key, when a row has waited long enough, at the lowest row that waits.
func (p *planner[X]) begin(k *keyState, row, lowest *driver.Row) {
	k.beginBefore(lowest)
	p.first.Cursors = putCursor(p.first.Cursors, k.cursor)
	waits := *row
	waits.Reason, waits.NextAt, waits.Started = reasonWaiting, time.Time{}, 0
	p.first.Rows = putRow(p.first.Rows, waits)
	due := *lowest
	due.Reason, due.Started = reasonWaiting, 0
	p.dueNow(due)
	p.note("joined", row.Topic)
}

// pass moves the cursor to a row that is parked: its key goes on.
func (p *planner[X]) pass(k *keyState, row *driver.Row) {
	k.advance(row)
	k.drop(row.ID)
	p.first.Cursors = putCursor(p.first.Cursors, k.cursor)
}

// keep writes down, in a transaction of its own, that a handler failed: the event waits for its next try, or is parked.
func (c *Consumer[X]) keep(ctx context.Context, a *arrival, cause error) error {
	ctx = context.WithoutCancel(ctx)
	call, cancel := c.house.w.Deadline(ctx, c.house.o.Lease)
	defer cancel()
	tx, err := c.inbox.Begin(call)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	kept, row, err := c.keepIn(call, tx, a, cause)
	if err != nil || !kept {
		_ = c.finishTx(ctx, tx, driver.Rollback)
		if err == nil {
			c.committed([]*arrival{a}, result{})
		}
		return err
	}
	if err := c.finishTx(ctx, tx, driver.Commit); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	parked := row.State == driver.Parked
	r := result{tally: []tally{{result: "failed", topic: row.Topic, n: 1}}, wake: parked && c.o.PassParked}
	if parked {
		r.tally = append(r.tally, tally{result: "parked", topic: row.Topic, n: 1})
		r.parked = []driver.Row{*row}
	}
	c.committed([]*arrival{a}, r)
	level := c.house.log.Warn
	if parked {
		level = c.house.log.Error
	}
	level("handler failed", "consumer", c.name, "event_id", row.ID, "topic", row.Topic, "key", row.Key,
		"attempt", row.Failures, "parked", parked, "err", cause)
	return nil
}

// keepIn does keep's work; false if somebody else has the event.
func (c *Consumer[X]) keepIn(ctx context.Context, tx X, a *arrival, cause error) (bool, *driver.Row, error) {
	fresh := a.row
	fresh.State, fresh.Body = driver.Done, nil
	rows := []driver.Row{fresh}
	keys := keysOf(rows)
	loaded, err := c.inbox.Load(ctx, tx, driver.Load{Consumer: c.name, Arrivals: rows, Keys: keys, Waiting: successorsMax + 1})
	if err != nil {
		return false, nil, fmt.Errorf("load: %w", err)
	}
	row := a.row
	if known := loaded.Known[0]; known != nil {
		if known.State != driver.Held || known.Started != a.started {
			return false, nil, nil
		}
		row = *known
	} else if a.started > 0 {
		return false, nil, nil
	}
	p := newPlanner(c, keys, &loaded)
	row.Started, row.LastError = 0, reason(reasonFailed, cause)
	row.Failures++
	row.State, row.NextAt = driver.Held, loaded.Now.Add(retryAfter(row.Failures, c.house.w.Rand()))
	if row.Reason != reasonRetry { // an operator's retry stays one
		row.Reason = reasonFailed
	}
	k := p.state(row.CursorKey)
	if k != nil && !k.cursor.Begun {
		k.beginBefore(&row)
		p.first.Cursors = putCursor(p.first.Cursors, k.cursor)
	}
	if row.Failures >= c.o.Tries {
		row.State, row.Reason, row.NextAt = driver.Parked, reasonFailed, time.Time{}
		if k != nil && c.o.PassParked {
			p.pass(k, &row)
			p.follow(0)
		}
	}
	p.first.Rows = putRow(p.first.Rows, row)
	p.first.Consumer = c.name
	if err := c.inbox.Save(ctx, tx, p.first); err != nil {
		return false, nil, fmt.Errorf("save: %w", err)
	}
	return true, &row, nil
}

// retryAfter is the pause before a handler's next try: 1, 2, 4 s … 10 min, less up to a tenth.
func retryAfter(failures int, random uint64) time.Duration {
	d := 10 * time.Minute
	if failures < 11 {
		d = min(d, time.Second<<(failures-1))
	}
	return d - time.Duration(random%uint64(d/10))
}
