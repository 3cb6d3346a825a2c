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

const operateTime = 30 * time.Second

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

// Retry has unconfirmed events published at the next sweep, parked ones too, and those that were accepted and whose topic never
// gave an event back; while their topic does not accept, one at a time. It returns how many of them there were.
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
		if refs = append(refs, e.Ref()); e.Bare && (skip || e.Skipped) {
			bare = append(bare, e.Ref())
		}
	}
	claimed, err := o.store.Claim(ctx, driver.Selection{IDs: refs,
		Decide: func(now time.Time, rows []driver.Pending) []driver.Decision {
			decisions := make([]driver.Decision, len(rows))
			for i, row := range rows {
				row.Claims++ // whoever has it now writes no more
				row.DueAt, row.Failures, row.Crashes = now, 0, 0
				row.AcceptedAt = time.Time{} // does not count: it goes whether or not its topic is proven
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
	Type     string      `json:"type,omitempty"`
	Key      string      `json:"key,omitempty"`
	From     time.Time   `json:"from,omitzero"` // recorded at or after
	Until    time.Time   `json:"until,omitzero"`
	IDs      []uuid.UUID `json:"ids,omitempty"`      // at most 1,000
	Consumer string      `json:"consumer,omitempty"` // straight to its queue; empty: through the topic, to all
	Again    bool        `json:"again,omitempty"`    // consumers that had them handle them again
	Rate     int         `json:"rate,omitempty"`     // events per second, 1 to 10,000, default 100
	Why      string      `json:"why,omitempty"`      // for the record, at most 500 bytes
	By       string      `json:"-"`                  // who asks, for the record
}

func (r *Redelivery) check() error {
	orDefault(&r.Rate, 100)
	switch {
	case r.Topic == "" && len(r.IDs) == 0:
		return errors.New("redelivery: name a topic or ids")
	case r.Key != "" && r.Topic == "":
		return errors.New("redelivery: a key needs its topic")
	}
	err := errors.Join(between("Rate", r.Rate, 1, 10_000), between("IDs", len(r.IDs), 0, maxRecord), between("Why, in bytes,", len(r.Why), 0, 500))
	for _, at := range []time.Time{r.From, r.Until} {
		if _, bad := at.MarshalText(); bad != nil { // the order is kept as JSON, which has no place for such a year
			err = errors.Join(err, fmt.Errorf("a time to select by, From or Until: %w", bad))
		}
	}
	if err != nil {
		return fmt.Errorf("redelivery: %w", err)
	}
	return nil
}

// Matching says how many events a redelivery would send, and shows the first of them, at most sample (1 to 1,000). The
// count reads every event that may match.
func (o *Operator) Matching(ctx context.Context, r Redelivery, sample int) (int, []driver.Found, error) {
	if err := r.check(); err != nil {
		return 0, nil, err
	}
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	count, page := r.filter(), r.filter()
	page.Limit = sample
	reading, err := o.store.Read(ctx, driver.Query{Events: &page, Count: &count})
	if err != nil {
		return 0, nil, fmt.Errorf("read store: %w", err)
	}
	return reading.Count, reading.Events, nil
}

// Redeliver orders a redelivery; a running client of the source carries it out, and goes on where it was after a crash. It
// returns the job's id, which [Status] lists. A job without Until and IDs ends with what is recorded by now: it does not
// run after those that are recorded while it goes on.
func (o *Operator) Redeliver(ctx context.Context, r Redelivery) (uuid.UUID, error) {
	if err := r.check(); err != nil {
		return noJob, err
	}
	ctx, cancel := o.w.Deadline(ctx, operateTime)
	defer cancel()
	if r.Until.IsZero() && len(r.IDs) == 0 {
		reading, err := o.store.Read(ctx, driver.Query{})
		if err != nil {
			return noJob, fmt.Errorf("read store: %w", err)
		}
		r.Until = reading.Now.Add(time.Second) // events of one call have times of their own, a little ahead of the clock
	}
	job := driver.Job{ID: newID(o.w), By: r.By, Spec: r.encode()}
	_, err := o.store.Tend(ctx, driver.Chore{Job: &job})
	return job.ID, err
}
