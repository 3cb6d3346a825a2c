package pabal

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// What an operator is shown: a store's health, each trouble with the command that mends it.

const (
	statusList = 20               // events or rows of a kind that status lists
	statusRead = 200              // rows of an inbox that it looks at
	lateAfter  = time.Minute      // unconfirmed for longer
	heldShown  = 30 * time.Second // held for longer
)

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

// Queues are those from which the store's clients receive: the record queue of its source, the queues of its consumers, and that of a
// consumer of the source's name, as most have, which may never have got to store anything. A queue among them need not exist.
func (s *Status) Queues() []string {
	var queues []string
	own := s.Source == ""
	if !own {
		queues = append(queues, recordQueue(s.Source))
	}
	for i := range s.Consumers {
		queues = append(queues, s.Consumers[i].Consumer)
		own = own || s.Consumers[i].Consumer == s.Source
	}
	if !own {
		queues = append(queues, s.Source)
	}
	return queues
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
	kept := map[uuid.UUID]driver.RowState{} // here, whatever their successors wait for
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
func (s *Status) list(c driver.ConsumerCounts, state driver.RowState, r driver.InboxReading, kept map[uuid.UUID]driver.RowState) {
	listed, troubles := 0, 0
	for i := range r.Rows {
		row := &r.Rows[i]
		kept[row.ID] = state
		if state == driver.Held && r.Now.Sub(row.ReceivedAt) < heldShown {
			continue
		}
		if listed < statusList {
			listed++
			s.Inbox = append(s.Inbox, *row)
		}
		if t := rowTrouble(c.Consumer, row, kept); t.Command != "" && troubles < statusList {
			troubles++
			s.Troubles = append(s.Troubles, t)
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
			Command: fmt.Sprintf("pabal events redeliver --topic %s --key %q --from %s --to %s", c.Topic, c.Key,
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
			Command: fmt.Sprintf("pabal events retry %s   # or: pabal events skip %s", e.ID, e.ID),
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

// Explain says of the rows of a consumer, as [Operator.Received] answers them, why each is kept, since when, and by which
// command its key goes on; without one it goes on by itself, or with a row before it. What is not among rows counts as not
// there: to hear what a row waits for, read every state of its key.
func (o *Operator) Explain(consumer string, rows []driver.Row) []Trouble {
	kept := map[uuid.UUID]driver.RowState{}
	for i := range rows {
		kept[rows[i].ID] = rows[i].State
	}
	list := make([]Trouble, len(rows))
	for i := range rows {
		list[i] = rowTrouble(consumer, &rows[i], kept)
	}
	return list
}

// rowTrouble is one without a command if the row goes on with another one that is kept.
func rowTrouble(consumer string, row *driver.Row, kept map[uuid.UUID]driver.RowState) Trouble {
	t := Trouble{Since: row.ReceivedAt}
	name := fmt.Sprintf("%s: event %s (%s, key %q)", consumer, row.ID, row.Type, row.Key)
	order := func(verb string) string {
		return fmt.Sprintf("pabal inbox %s --consumer %s %s", verb, consumer, row.ID)
	}
	before, behind := kept[row.Prev.ID]
	switch {
	case row.State == driver.Parked:
		t.What = fmt.Sprintf("%s is parked: %s %s", name, row.Reason, row.LastError)
		t.Command = fmt.Sprintf("%s   # or: %s", order("retry"), order("skip"))
	case row.Reason == reasonRetry || row.Reason == reasonSkip || row.Reason == reasonStarted:
		t.What = fmt.Sprintf("%s is held: %s, which a running consumer ends", name, row.Reason)
		t.Command = fmt.Sprintf("pabal inbox list --consumer %s   # again, once %s runs", consumer, consumer)
	case row.Failures > 0:
		t.What = fmt.Sprintf("%s failed %d times, next try at %s: %s", name, row.Failures,
			row.NextAt.Format(time.RFC3339), row.LastError)
		t.Command = order("retry")
	case behind:
		t.What = fmt.Sprintf("%s is held: its predecessor %s is %s here too", name, row.Prev.ID, before)
	case row.Prev.IsZero():
		t.What = fmt.Sprintf("%s is held: something of its key waits at a lower position", name)
	default:
		t.What = fmt.Sprintf("%s is held: its predecessor %s is missing", name, row.Prev.ID)
		t.Command = fmt.Sprintf("pabal events redeliver --id %s --to %s   # in the store of %s; or go on without it: %s",
			row.Prev.ID, consumer, row.Source, order("retry"))
	}
	return t
}
