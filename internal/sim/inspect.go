package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// What checkers ask, past every link, of committed data.

// Events returns every recorded event in the order (RecordedAt, ID).
func (d *Database) Events() []driver.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := make([]driver.Event, len(d.events))
	for i, e := range d.events {
		events[i] = e.Event
	}
	return events
}

// ByPosition returns every recorded event in the order (topic, key, position).
func (d *Database) ByPosition() []driver.Event {
	events := d.Events()
	slices.SortStableFunc(events, func(a, b driver.Event) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Position, b.Position))
	})
	return events
}

// Has reports whether an event is committed.
func (d *Database) Has(id uuid.UUID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[rowKey{table: tableEvent, id: id}] != nil
}

// PendingOf returns the pending row of an event, nil without one.
func (d *Database) PendingOf(id uuid.UUID) *driver.Pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, _ := d.rows[rowKey{table: tablePending, id: id}].(*driver.Pending)
	return p
}

// OnPending has fn called for each change of a pending row: nil for what is not there. It may ask nothing of the database but
// TopicOf and Clock.
func (d *Database) OnPending(fn func(was, is *driver.Pending)) { d.onPending = fn }

// OnRow has fn called, likewise, for each change of an inbox row.
func (d *Database) OnRow(fn func(consumer string, was, is *driver.Row)) { d.onRow = fn }

// OnDisorder has fn called when a statement takes its locks in an order in which others may not.
func (d *Database) OnDisorder(fn func(what string)) { d.onDisorder = fn }

// TopicOf is a topic's row. Only for what OnPending calls.
func (d *Database) TopicOf(name string) driver.Topic { return d.topic(name) }

// Clock is the database's.
func (d *Database) Clock() time.Time { return d.now() }

// RowOf returns an event's row in a consumer's inbox, nil without one.
func (d *Database) RowOf(consumer string, k driver.CursorKey, id uuid.UUID) *driver.Row {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, _ := d.rows[rowKey{table: tableInbox, name: consumer, source: k.Source, id: id, job: k.Job}].(*driver.Row)
	return r
}

// Knows reports whether an event is in a consumer's inbox.
func (d *Database) Knows(consumer string, id uuid.UUID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inbox[inboxID{consumer, id}] > 0
}

// Kept returns what a consumer's inbox holds and has parked.
func (d *Database) Kept(consumer string) (rows []driver.Row) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.kept[consumer] {
		rows = append(rows, *r)
	}
	return rows
}

// Jobs returns the redeliveries, by creation.
func (d *Database) Jobs() (jobs []driver.Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.jobs {
		jobs = append(jobs, *d.rows[jobKey(id)].(*driver.Job))
	}
	return jobs
}

// Unconfirmed counts the pending rows.
func (d *Database) Unconfirmed() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.topics {
		if t := d.pending[name]; t != nil {
			n += len(t.rows)
		}
	}
	return n
}

// Owed says what of the database's events and inboxes is still on its way; empty: nothing. What is parked is not.
func (d *Database) Owed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.topics {
		if t := d.pending[name]; t != nil {
			for _, p := range t.rows {
				if !p.Parked() {
					return fmt.Sprintf("event %s of topic %s is not confirmed (claims %d, %s)", p.ID, name, p.Claims, p.LastError)
				}
			}
		}
	}
	for _, consumer := range d.members {
		for _, r := range d.kept[consumer] {
			if r.State == driver.Held {
				return fmt.Sprintf("consumer %s holds event %s (%s: %s)", consumer, r.ID, r.Reason, r.LastError)
			}
		}
	}
	return ""
}

// Owed says which queue has messages that nobody has acknowledged; empty: none.
func (b *BrokerServer) Owed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.order {
		n := len(q.ready)
		for _, h := range q.held {
			if !h.m.done && h.m.until == h.until {
				n++
			}
		}
		if n > 0 {
			return fmt.Sprintf("queue %s has %d messages that nobody has acknowledged", q.name, n)
		}
	}
	return ""
}

// Recorded counts the events.
func (d *Database) Recorded() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

// Count counts the rows of a table of the application's own.
func (d *Database) Count(table string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key := range d.rows {
		if key.table == tableBusiness && key.name == table {
			n++
		}
	}
	return n
}

// Explain says what a consumer's inbox holds of an event.
func (d *Database) Explain(consumer string, id uuid.UUID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, row := range d.rows {
		if key.table == tableInbox && key.name == consumer && key.id == id {
			r := row.(*driver.Row)
			cursor, _ := d.rows[cursorKey(consumer, r.CursorKey)].(*driver.Cursor)
			return fmt.Sprintf("%v %s, next at %v, failures %d, started %d, prev %d, cursor %+v, %s", r.State, r.Reason, r.NextAt,
				r.Failures, r.Started, r.Prev.Position, cursor, r.LastError)
		}
	}
	return "not in the inbox"
}

// Crash crashes the live process of a name, if there is one.
func (s *Sim) Crash(name string) {
	for _, p := range s.procs {
		if p.Name == name && !p.dead {
			p.Crash()
			return
		}
	}
}

// TurnClock turns a process's clock on the wall.
func (s *Sim) TurnClock(name string, d time.Duration) {
	for _, p := range s.procs {
		if p.Name == name {
			p.skew += d
		}
	}
}

// Stall stalls the live process of a name, if there is one.
func (s *Sim) Stall(name string, d time.Duration) {
	for _, p := range s.procs {
		if p.Name == name && !p.dead {
			p.Stall(d)
			return
		}
	}
}

// OnPublish has fn called for each message that the broker accepts on a topic.
func (b *BrokerServer) OnPublish(fn func(*driver.Message)) { b.onPublish = fn }

// Put puts a message straight into a queue; false if there is no such queue.
func (b *BrokerServer) Put(queueName string, body []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[queueName]
	if q == nil {
		return false
	}
	q.ready = append(q.ready, &stored{body: append([]byte(nil), body...)})
	q.wake.Set()
	return true
}

// Delivered counts the deliveries of a queue's messages, repeated ones included.
func (b *BrokerServer) Delivered(queueName string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[queueName]; q != nil {
		return q.taken
	}
	return 0
}
