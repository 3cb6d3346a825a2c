package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// simInbox implements driver.Inbox.
type simInbox struct{ s *Store }

func (b simInbox) Begin(ctx context.Context) (*Tx, error) { return b.s.Begin(ctx) }

func (b simInbox) End(ctx context.Context, t *Tx, how driver.Ending) error {
	if how != driver.Commit {
		if how == driver.Abandon {
			t.drop()
		}
		t.Rollback(ctx)
		return nil
	}
	over, ended := t.over()
	if !over {
		return t.Commit(ctx)
	}
	switch ended {
	case driver.SawCommit:
		return nil
	case driver.SawCommitLost:
		return ErrLost
	default:
		return driver.ErrNoTransaction
	}
}

func (b simInbox) Conflict(err error) bool { return isConflict(err) }

func compareIDs(a, b rowKey) int { return bytes.Compare(a.id[:], b.id[:]) }

func compareCursors(a, b rowKey) int {
	return cmp.Or(strings.Compare(a.source, b.source), strings.Compare(a.topic, b.topic), strings.Compare(a.key, b.key),
		bytes.Compare(a.job[:], b.job[:]))
}

// Load implements driver.Inbox.
func (b simInbox) Load(ctx context.Context, t *Tx, l driver.Load) (r driver.Loaded, err error) {
	ids := make([]rowKey, len(l.Arrivals))
	for i := range ids {
		ids[i] = inboxKey(l.Consumer, &l.Arrivals[i])
	}
	slices.SortFunc(ids, compareIDs)
	keys := make([]rowKey, len(l.Keys))
	for i, k := range l.Keys {
		keys[i] = cursorKey(l.Consumer, k)
	}
	sorted := slices.SortedFunc(slices.Values(keys), compareCursors)
	err = t.statement(ctx, "load", func() (world.Signal, error) {
		if sig, err := t.lockAll(ids, compareIDs); err != nil {
			return sig, err
		}
		if sig, err := t.lockAll(sorted, compareCursors); err != nil {
			return sig, err
		}
		r = t.load(l, keys)
		return nil, nil
	})
	return r, err
}

func (t *Tx) load(l driver.Load, keys []rowKey) driver.Loaded {
	r := driver.Loaded{Now: t.d.now(), Known: make([]*driver.Row, len(l.Arrivals))}
	for i := range l.Arrivals {
		if known, ok := t.get(inboxKey(l.Consumer, &l.Arrivals[i])).(*driver.Row); ok {
			row := *known
			r.Known[i] = &row
		}
	}
	for i, key := range keys {
		c, ok := t.get(key).(*driver.Cursor)
		if !ok {
			c = &driver.Cursor{CursorKey: l.Keys[i]}
		}
		r.Cursors = append(r.Cursors, *c)
		waiting, count := t.waitingOf(key, c, l.Waiting)
		r.Waiting = append(r.Waiting, waiting)
		r.WaitingCount = append(r.WaitingCount, count)
		r.Memory = t.remember(r.Memory, l.Consumer, l.Keys[i].Source, l.Keys[i].Topic)
	}
	for i, a := range l.Arrivals {
		if key := inboxKey(l.Consumer, &a); r.Known[i] == nil { // of two copies too, as one statement of a real store does
			a.ReceivedAt, a.State, a.Body = r.Now, driver.Done, nil
			t.put(key, &a)
		}
		r.Memory = t.remember(r.Memory, l.Consumer, a.Source, a.Topic)
	}
	return r
}

func (t *Tx) waitingOf(key rowKey, c *driver.Cursor, most int) (rows []driver.Row, held int) {
	for _, committed := range t.d.waiting[key] {
		row := committed
		if len(t.overlay) > 0 {
			own, ok := t.get(inboxKey(key.name, committed)).(*driver.Row)
			if !ok {
				continue
			}
			row = own
		}
		switch {
		case row.State == driver.Held:
			held++
		case row.State != driver.Parked || row.Position <= c.Last.Position:
			continue
		}
		if len(rows) < most {
			rows = append(rows, *row)
		}
	}
	return rows, min(held, driver.CountMax)
}

func (t *Tx) remember(memories []driver.Memory, consumer, source, topic string) []driver.Memory {
	for _, m := range memories {
		if m.Source == source && m.Topic == topic {
			return memories
		}
	}
	m := driver.Memory{Source: source, Topic: topic}
	if row, ok := t.d.rows[rowKey{table: tableConsumer, name: consumer, source: source, topic: topic}].(*driver.Memory); ok {
		m = *row
	}
	m.ForgotBefore = t.d.forgotBefore(consumer)
	return append(memories, m)
}

// forgotBefore lies in a row of the consumer's own, without source and topic.
func (d *Database) forgotBefore(consumer string) time.Time {
	m, ok := d.rows[rowKey{table: tableConsumer, name: consumer}].(*driver.Memory)
	if !ok {
		return time.Time{}
	}
	return m.ForgotBefore
}

// Save implements driver.Inbox.
func (b simInbox) Save(ctx context.Context, t *Tx, s driver.Save) error {
	return t.statement(ctx, "save", func() (world.Signal, error) {
		for i := range s.Rows {
			if sig, err := t.lock(inboxKey(s.Consumer, &s.Rows[i])); err != nil {
				return sig, err
			}
		}
		now := t.d.now()
		for _, row := range s.Rows {
			key := inboxKey(s.Consumer, &row)
			if row.State == driver.Gone {
				t.put(key, nil)
				continue
			}
			row.ReceivedAt = now
			if old, ok := t.get(key).(*driver.Row); ok {
				row.ReceivedAt = old.ReceivedAt
			}
			row.Body = slices.Clone(row.Body)
			t.put(key, &row)
		}
		for _, c := range s.Cursors {
			c.MovedAt = now
			t.put(cursorKey(s.Consumer, c.CursorKey), &c)
		}
		return nil, nil
	})
}

// Due implements driver.Inbox.
func (b simInbox) Due(ctx context.Context, sel driver.InboxSelection) (taken []driver.Row, err error) {
	d := b.s.d
	note := func() string { return fmt.Sprintf("%d of %s", len(taken), sel.Consumer) }
	err = b.s.atomic(ctx, "due", note, func() error {
		taken = nil
		now := d.now()
		var rows []driver.Row
		for _, row := range d.kept[sel.Consumer] {
			due := !row.NextAt.IsZero() && !row.NextAt.After(now)
			if len(sel.IDs) > 0 {
				due = slices.Contains(sel.IDs, row.ID)
			}
			if l := d.locks[inboxKey(sel.Consumer, row)]; due && (l == nil || l.owner == nil) {
				rows = append(rows, *row)
			}
		}
		slices.SortFunc(rows, func(x, y driver.Row) int {
			return cmp.Or(x.NextAt.Compare(y.NextAt), bytes.Compare(x.ID[:], y.ID[:]))
		})
		if len(sel.IDs) == 0 {
			rows = rows[:min(len(rows), sel.Limit)]
		}
		if len(rows) == 0 {
			return nil
		}
		taken = sel.Decide(now, rows)
		for _, row := range taken {
			d.set(inboxKey(sel.Consumer, &row), &row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// Read implements driver.Inbox.
func (b simInbox) Read(ctx context.Context, q driver.InboxQuery) (r driver.InboxReading, err error) {
	d := b.s.d
	err = b.s.link.Call(ctx, Call{What: "read"}, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		r = driver.InboxReading{Now: d.now()}
		for _, name := range d.members {
			if q.Consumers && (q.Consumer == "" || q.Consumer == name) {
				r.Consumers = append(r.Consumers, d.countsOf(name))
			}
		}
		if q.Rows != nil {
			r.Rows = d.readRows(q.Consumer, q.Rows)
		}
		for _, k := range q.Cursors {
			if c, ok := d.rows[cursorKey(q.Consumer, k)].(*driver.Cursor); ok {
				r.Cursors = append(r.Cursors, *c)
			}
		}
		if q.Overflowing {
			r.Cursors = append(r.Cursors, d.overflowing(q.Consumer)...)
		}
		if q.Memories {
			r.Memories = d.memories(q.Consumer)
		}
		return nil
	})
	return r, err
}

func (d *Database) countsOf(consumer string) driver.ConsumerCounts {
	c := driver.ConsumerCounts{Consumer: consumer, Overflow: len(d.overflowing(consumer))}
	for _, row := range d.kept[consumer] {
		if row.State == driver.Parked {
			c.Parked++
			continue
		}
		c.Held++
		if c.OldestHeld.IsZero() || row.ReceivedAt.Before(c.OldestHeld) {
			c.OldestHeld = row.ReceivedAt
		}
	}
	c.Held, c.Parked = min(c.Held, driver.CountMax), min(c.Parked, driver.CountMax)
	return c
}

func (d *Database) readRows(consumer string, f *driver.RowFilter) (rows []driver.Row) {
	list := d.kept[consumer]
	if f.Done && len(f.IDs) > 0 {
		list = selectRows[*driver.Row](d, tableInbox, consumer)
	}
	for _, row := range list {
		switch {
		case len(f.IDs) > 0 && !slices.Contains(f.IDs, row.ID),
			f.State != driver.Done && f.State != row.State,
			f.Source != "" && f.Source != row.Source, f.Topic != "" && f.Topic != row.Topic,
			f.Key != "" && (f.Key != row.Key || f.Job != row.Job):
		default:
			rows = append(rows, *row)
		}
	}
	slices.SortFunc(rows, func(a, b driver.Row) int { return compareRows(&a, &b) })
	return rows[:min(len(rows), f.Limit)]
}

// select returns the values of a table's rows of a consumer, in order of their keys.
func selectRows[V any](d *Database, table tableID, consumer string) (values []V) {
	var keys []rowKey
	for key := range d.rows {
		if key.table == table && (consumer == "" || key.name == consumer) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(x, y rowKey) int {
		return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.source, y.source), strings.Compare(x.topic, y.topic),
			strings.Compare(x.key, y.key), bytes.Compare(x.id[:], y.id[:]), bytes.Compare(x.job[:], y.job[:]))
	})
	for _, key := range keys {
		values = append(values, d.rows[key].(V))
	}
	return values
}

func (d *Database) overflowing(consumer string) (cursors []driver.Cursor) {
	for _, c := range selectRows[*driver.Cursor](d, tableCursor, consumer) {
		if !c.Overflow.IsZero() && len(cursors) < 100 {
			cursors = append(cursors, *c)
		}
	}
	return cursors
}

func (d *Database) memories(consumer string) (memories []driver.Memory) {
	for _, m := range selectRows[*driver.Memory](d, tableConsumer, consumer) {
		if m.Topic != "" {
			memory := *m
			memory.ForgotBefore = d.forgotBefore(consumer)
			memories = append(memories, memory)
		}
	}
	return memories
}

// Tend implements driver.Inbox.
func (b simInbox) Tend(ctx context.Context, c driver.InboxChore) (n int, err error) {
	d := b.s.d
	if c.Consumer == "" {
		return 0, errors.New("a chore needs a consumer")
	}
	err = b.s.atomic(ctx, "tend", nil, func() error {
		n = 0
		if j := c.Join; j != nil {
			key := rowKey{table: tableConsumer, name: c.Consumer, source: j.Source, topic: j.Topic}
			old, ok := d.rows[key].(*driver.Memory)
			if !ok || j.SentAt.Before(old.JoinedAt) {
				d.set(key, &driver.Memory{Source: j.Source, Topic: j.Topic, JoinedAt: j.SentAt})
				n++
			}
		}
		if c.Forget != nil {
			n += d.forgetInbox(c.Consumer, c.Forget)
		}
		return nil
	})
	return n, err
}

func (d *Database) forgetInbox(consumer string, f *driver.InboxForget) (n int) {
	key := rowKey{table: tableConsumer, name: consumer}
	if d.forgotBefore(consumer).Before(f.Before) {
		d.set(key, &driver.Memory{ForgotBefore: f.Before})
	}
	before := f.Before.Add(-f.Margin)
	for _, row := range selectRows[*driver.Row](d, tableInbox, consumer) {
		if n < f.Limit && row.State == driver.Done && row.RecordedAt.Before(before) {
			d.set(inboxKey(consumer, row), nil)
			n++
		}
	}
	cursors := 0
	for _, c := range selectRows[*driver.Cursor](d, tableCursor, consumer) {
		k := cursorKey(consumer, c.CursorKey)
		l := d.locks[k]
		idle := c.Begun && c.Last.RecordedAt.Before(before) && len(d.waiting[k]) == 0 && (l == nil || l.owner == nil)
		if idle && cursors < f.Limit {
			d.set(k, nil)
			cursors++
		}
	}
	return n + cursors
}
