package pabal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What an operator asks and orders: the command line and the dashboard call these, and nothing else. Orders are written
// into the database, where the clients that run find them.

const (
	statusList  = 20               // events or rows of a kind that status lists
	statusRead  = 200              // rows of an inbox that it looks at
	lateAfter   = time.Minute      // unconfirmed for longer
	heldShown   = 30 * time.Second // held for longer
	operateTime = 30 * time.Second
)

// received is the half of a driver.Inbox that needs no transaction handle.
type received interface {
	Due(ctx context.Context, s driver.InboxSelection) ([]driver.Row, error)
	Read(ctx context.Context, q driver.InboxQuery) (driver.InboxReading, error)
	Tend(ctx context.Context, c driver.InboxChore) (int, error)
}

// Operator looks after a store: it lists, retries, skips, redelivers and tells the status. A [Client] is one; [Operate]
// makes one that needs no broker. All methods are safe for concurrent use and end within 30 seconds.
type Operator struct {
	w     world.World
	store ledger
	inbox received
}

// Operate opens a store for an operator, whatever its source is.
func Operate[X any](ctx context.Context, store driver.Store[X]) (*Operator, error) {
	w := world.Real()
	if b, ok := store.(world.Bringer); ok {
		w = b.World()
	}
	ctx, cancel := w.Deadline(ctx, openTime)
	defer cancel()
	if err := store.Open(ctx, ""); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Operator{w: w, store: store, inbox: store.Inbox()}, nil
}

// Status is a store's health on one page. Counts stop at 10,000, lists at 20.
type Status struct {
	Now         time.Time               `json:"now"`
	Source      string                  `json:"source"`
	Healthy     bool                    `json:"healthy"` // no troubles
	Troubles    []Trouble               `json:"troubles"`
	Topics      []driver.Topic          `json:"topics"`
	Consumers   []driver.ConsumerCounts `json:"consumers"`
	Jobs        []driver.Job            `json:"jobs"`
	Unconfirmed []driver.Found          `json:"unconfirmed"` // parked, and late ones
	Inbox       []driver.Row            `json:"inbox"`       // parked, and held for longer than 30 s
	Overflowing []driver.Cursor         `json:"overflowing"`
}

// Trouble is something that an operator should know, with the command that mends it.
type Trouble struct {
	What    string    `json:"what"`
	Since   time.Time `json:"since"`
	Command string    `json:"command"`
}

// Status reads the health of the store and of its consumers.
func (o *Operator) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	r, err := o.store.Read(ctx, driver.Query{Topics: true, Counts: true, Jobs: true,
		Events: &driver.EventFilter{State: driver.ParkedOnly, Limit: statusList}})
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	late, err := o.store.Read(ctx, driver.Query{
		Events: &driver.EventFilter{State: driver.LateOnly, Late: lateAfter, Limit: statusList}})
	if err != nil {
		return nil, fmt.Errorf("read late events: %w", err)
	}
	parked, err := o.inbox.Read(ctx, driver.InboxQuery{Consumers: true, Overflowing: true})
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	s := &Status{
		Now: r.Now, Source: r.Source, Topics: r.Topics, Jobs: r.Jobs, Consumers: parked.Consumers,
		Unconfirmed: append(r.Events, late.Events...), Overflowing: parked.Cursors,
	}
	for _, f := range s.Unconfirmed {
		s.Troubles = append(s.Troubles, eventTrouble(f))
	}
	for _, c := range parked.Consumers {
		if err := o.statusOf(ctx, s, c); err != nil {
			return nil, err
		}
	}
	s.Healthy = len(s.Troubles) == 0
	return s, nil
}

func (o *Operator) statusOf(ctx context.Context, s *Status, c driver.ConsumerCounts) error {
	kept := map[uuid.UUID]bool{} // here, whatever their successors wait for
	for _, state := range []driver.RowState{driver.Parked, driver.Held} {
		if state == driver.Held && (c.Held == 0 || s.Now.Sub(c.OldestHeld) < heldShown) {
			continue
		}
		r, err := o.inbox.Read(ctx, driver.InboxQuery{Consumer: c.Consumer, Rows: &driver.RowFilter{State: state, Limit: statusRead}})
		if err != nil {
			return fmt.Errorf("read inbox of %s: %w", c.Consumer, err)
		}
		s.list(c, state, r, kept)
	}
	return o.statusOfOverflowing(ctx, s, c.Consumer)
}

// list adds the rows of one state that an operator should know. A row behind another one that is kept is no trouble of its
// own: it goes on with that one.
func (s *Status) list(c driver.ConsumerCounts, state driver.RowState, r driver.InboxReading, kept map[uuid.UUID]bool) {
	listed := 0
	for i := range r.Rows {
		row := &r.Rows[i]
		behind := kept[row.Prev.ID] && row.Failures == 0 && state == driver.Held
		kept[row.ID] = true
		if state == driver.Held && r.Now.Sub(row.ReceivedAt) < heldShown || listed == statusList {
			continue
		}
		listed++
		s.Inbox = append(s.Inbox, *row)
		if !behind {
			s.Troubles = append(s.Troubles, rowTrouble(c.Consumer, row))
		}
	}
	if state == driver.Held && listed == 0 { // the old ones are further down than was read
		s.Troubles = append(s.Troubles, Trouble{
			What:    fmt.Sprintf("%s: of %d events that are held one has been for long", c.Consumer, c.Held),
			Since:   c.OldestHeld,
			Command: "pabal status   # again, once fewer are held",
		})
	}
}

func (o *Operator) statusOfOverflowing(ctx context.Context, s *Status, consumer string) error {
	r, err := o.inbox.Read(ctx, driver.InboxQuery{Consumer: consumer, Overflowing: true})
	if err != nil {
		return fmt.Errorf("read overflowing keys of %s: %w", consumer, err)
	}
	for _, c := range r.Cursors {
		s.Troubles = append(s.Troubles, Trouble{
			What:  fmt.Sprintf("%s: key %s of %s/%s overflows: not all of its events are kept", consumer, c.Key, c.Source, c.Topic),
			Since: c.MovedAt,
			Command: fmt.Sprintf("pabal redeliver --topic %s --key %q --from %s --to %s", c.Topic, c.Key,
				c.Overflow.RecordedAt.Format(time.RFC3339Nano), consumer),
		})
	}
	return nil
}

func eventTrouble(f driver.Found) Trouble {
	e, p := &f.Event, f.Pending
	if p.Parked() {
		return Trouble{
			What:    fmt.Sprintf("event %s (%s) is parked: %s", e.ID, e.Type, p.LastError),
			Since:   e.RecordedAt,
			Command: fmt.Sprintf("pabal retry %s   # or: pabal skip %s", e.ID, e.ID),
		}
	}
	what := "has not been accepted by the broker"
	if !p.AcceptedAt.IsZero() {
		what = "was accepted by the broker and has not come back"
	}
	if p.LastError != "" {
		what += ": " + p.LastError
	}
	return Trouble{
		What: fmt.Sprintf("event %s (%s) is late: it %s", e.ID, e.Type, what), Since: e.RecordedAt,
		Command: "pabal relay   # if none runs; else look at the broker, topic " + e.Topic,
	}
}

func rowTrouble(consumer string, row *driver.Row) Trouble {
	t := Trouble{Since: row.ReceivedAt}
	name := fmt.Sprintf("%s: event %s (%s, key %q)", consumer, row.ID, row.Type, row.Key)
	switch {
	case row.State == driver.Parked:
		t.What = fmt.Sprintf("%s is parked: %s %s", name, row.Reason, row.LastError)
		t.Command = fmt.Sprintf("pabal retry --consumer %s %s   # or: pabal skip …", consumer, row.ID)
	case row.Failures > 0:
		t.What = fmt.Sprintf("%s failed %d times, next try at %s: %s", name, row.Failures,
			row.NextAt.Format(time.RFC3339), row.LastError)
		t.Command = fmt.Sprintf("pabal retry --consumer %s %s", consumer, row.ID)
	default:
		t.What = fmt.Sprintf("%s is held: its predecessor %s is missing", name, row.Prev.ID)
		t.Command = fmt.Sprintf("pabal redeliver --id %s --to %s   # in the store of %s; or go on without it: pabal retry --consumer %s %s",
			row.Prev.ID, consumer, row.Source, consumer, row.ID)
	}
	return t
}

// Events lists recorded events, in the order (RecordedAt, ID).
func (o *Operator) Events(ctx context.Context, f driver.EventFilter) ([]driver.Found, error) {
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	r, err := o.store.Read(ctx, driver.Query{Events: &f})
	return r.Events, err
}

// Received lists what a consumer's inbox holds: held and parked events.
func (o *Operator) Received(ctx context.Context, consumer string, f driver.RowFilter) ([]driver.Row, error) {
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	r, err := o.inbox.Read(ctx, driver.InboxQuery{Consumer: consumer, Rows: &f})
	return r.Rows, err
}

// Retry makes unconfirmed events due at once, parked ones too; it returns how many of them there were.
func (o *Operator) Retry(ctx context.Context, ids ...uuid.UUID) (int, error) {
	return o.order(ctx, ids, false)
}

// Skip has unconfirmed events delivered as a skip: consumers go on as if they had handled them, and never do. An event of a
// bare type, whose message cannot say that, is settled without being published.
func (o *Operator) Skip(ctx context.Context, ids ...uuid.UUID) (int, error) {
	return o.order(ctx, ids, true)
}

func (o *Operator) order(ctx context.Context, ids []uuid.UUID, skip bool) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	found, err := o.Events(ctx, driver.EventFilter{IDs: ids, State: driver.Unconfirmed, Limit: maxRecord})
	if err != nil || len(found) == 0 {
		return 0, err
	}
	var refs, bare []driver.Ref
	for i := range found {
		e := &found[i].Event
		if refs = append(refs, e.Ref()); skip && e.Bare {
			bare = append(bare, e.Ref())
		}
	}
	claimed, err := o.store.Claim(ctx, driver.Selection{IDs: refs,
		Decide: func(now time.Time, rows []driver.Pending) []driver.Decision {
			decisions := make([]driver.Decision, len(rows))
			for i, row := range rows {
				row.DueAt, row.Failures, row.Crashes = now, 0, 0
				row.Claims++ // whoever has it now writes no more
				if slices.ContainsFunc(bare, func(r driver.Ref) bool { return r.ID == row.ID }) {
					row.DueAt, row.LastError = time.Time{}, "skipped"
				}
				decisions[i] = driver.Decision{Pending: row, Skip: skip}
			}
			return decisions
		}})
	if err == nil && len(bare) > 0 { // a bare message cannot say that it is a skip: nothing is published
		_, err = o.store.Confirm(ctx, bare)
	}
	return len(claimed), err
}

// RetryReceived has a consumer handle held or parked events where its cursor stands: a parked one again, a held one
// without waiting for its predecessor.
func (o *Operator) RetryReceived(ctx context.Context, consumer string, ids ...uuid.UUID) (int, error) {
	return o.orderReceived(ctx, consumer, ids, reasonRetry)
}

// SkipReceived has a consumer pass over held or parked events without handling them, and go on without a missing one: an id
// that is not in the inbox, but is the predecessor of a held event, is given up, and its key goes on at its lowest held.
// Predecessors are looked for among the first 1,000 held events.
func (o *Operator) SkipReceived(ctx context.Context, consumer string, ids ...uuid.UUID) (int, error) {
	n, err := o.orderReceived(ctx, consumer, ids, reasonSkip)
	if err != nil || n == len(ids) {
		return n, err
	}
	held, err := o.Received(ctx, consumer, driver.RowFilter{State: driver.Held, Limit: maxRecord})
	if err != nil {
		return n, err
	}
	var stuck []uuid.UUID // the lowest held of keys that wait for one of ids; rows are in the order of keys and positions
	for i := range held {
		if !slices.Contains(ids, held[i].Prev.ID) {
			continue
		}
		lowest := i
		for lowest > 0 && held[lowest-1].CursorKey == held[i].CursorKey {
			lowest--
		}
		if id := held[lowest].ID; !slices.Contains(ids, id) && !slices.Contains(stuck, id) {
			stuck = append(stuck, id)
		}
	}
	m, err := o.orderReceived(ctx, consumer, stuck, reasonRetry)
	return n + m, err
}

func (o *Operator) orderReceived(ctx context.Context, consumer string, ids []uuid.UUID, why string) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	rows, err := o.inbox.Due(ctx, driver.InboxSelection{Consumer: consumer, IDs: ids,
		Decide: func(now time.Time, rows []driver.Row) []driver.Row {
			for i := range rows {
				r := &rows[i]
				r.State, r.Reason, r.NextAt, r.Failures, r.Started = driver.Held, why, now, 0, 0
			}
			return rows
		}})
	return len(rows), err
}

// Restored tells the store that its database lost commits that it had acknowledged: after a restored backup or an
// asynchronous failover. Keys begin new runs, above what consumers may have seen.
func (o *Operator) Restored(ctx context.Context) error {
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	_, err := o.store.Tend(ctx, driver.Chore{Restored: true})
	return err
}

// Redelivery says which recorded events go out once more, and where to. Fields left zero do not narrow; at least one of
// Topic and IDs is needed.
type Redelivery struct {
	Topic    string      `json:"topic,omitempty"`
	Key      string      `json:"key,omitempty"`
	From     time.Time   `json:"from,omitzero"` // recorded at or after
	Until    time.Time   `json:"until,omitzero"`
	IDs      []uuid.UUID `json:"ids,omitempty"`      // at most 1,000
	Consumer string      `json:"consumer,omitempty"` // straight to its queue; empty: through the topic, to all
	Again    bool        `json:"again,omitempty"`    // consumers that had them handle them again
	Rate     int         `json:"rate,omitempty"`     // events per second, 1 to 10,000, default 100
	By       string      `json:"-"`                  // who asks, for the record
}

// Redeliver orders a redelivery; a running client of the source carries it out, and goes on where it was after a crash. It
// returns the job's id, which [Status] lists.
func (o *Operator) Redeliver(ctx context.Context, r Redelivery) (uuid.UUID, error) {
	orDefault(&r.Rate, 100)
	if r.Topic == "" && len(r.IDs) == 0 {
		return noJob, errors.New("redelivery: name a topic or ids")
	}
	if r.Key != "" && r.Topic == "" {
		return noJob, errors.New("redelivery: a key needs its topic")
	}
	if err := errors.Join(between("Rate", r.Rate, 1, 10_000), between("IDs", len(r.IDs), 0, maxRecord)); err != nil {
		return noJob, fmt.Errorf("redelivery: %w", err)
	}
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	job := driver.Job{ID: newID(o.w), By: r.By, Spec: r.encode()}
	_, err := o.store.Tend(ctx, driver.Chore{Job: &job})
	return job.ID, err
}
