package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// inboxCommand is for what consumers keep.
type inboxCommand struct {
	List  listInboxCommand  `cmd:"" help:"List what a consumer holds and has parked, and what each event waits for."`
	Retry retryInboxCommand `cmd:"" help:"Have a consumer handle held or parked events where its key stands."`
	Skip  skipInboxCommand  `cmd:"" help:"Have a consumer pass over held or parked events, or go on without a missing one."`
}

// kept is a row of an inbox as commands show it.
type kept struct {
	Consumer   string    `json:"consumer"`
	ID         uuid.UUID `json:"id"`
	State      string    `json:"state"` // held or parked
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	Type       string    `json:"type"`
	Key        string    `json:"key,omitempty"`
	Position   int64     `json:"position,omitempty"`
	Redelivery uuid.UUID `json:"redelivery,omitzero"` // with --again
	RecordedAt time.Time `json:"recordedAt"`
	ReceivedAt time.Time `json:"receivedAt"`
	Reason     string    `json:"reason"`
	NextTry    time.Time `json:"nextTry,omitzero"`
	Failures   int       `json:"failures,omitempty"`
	LastError  string    `json:"lastError,omitempty"`
	Why        string    `json:"why"`               // it is kept
	Command    string    `json:"command,omitempty"` // that has its key go on; none: it goes on by itself
}

type listInboxCommand struct {
	storeFlags
	Consumer string `help:"Of this consumer; default: of all."`
	State    string `help:"held or parked." default:"any" enum:"any,held,parked"`
	Source   string `help:"Events of this source."`
	Topic    string `help:"Events of this topic."`
	Key      string `help:"Events of this key."`
	Limit    int    `short:"n" help:"How many of a consumer at most, up to 1,000, in the order of their keys." default:"200"`
}

func (c *listInboxCommand) Run(a *app) error {
	if c.Limit < 1 || c.Limit > page {
		return usage("--limit %d: from 1 to %d", c.Limit, page)
	}
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		s, err := o.Status(a.ctx)
		if err != nil {
			return err
		}
		list, known := []kept{}, false
		for _, consumer := range s.Consumers {
			if c.Consumer != "" && c.Consumer != consumer.Consumer {
				continue
			}
			known = true
			if list, err = c.rows(a, o, consumer.Consumer, list); err != nil {
				return err
			}
		}
		if !known && c.Consumer != "" {
			return unknownConsumer(c.Consumer)
		}
		return a.answer(list, func(w io.Writer) { printKept(w, s.Now, list) })
	})
}

// rows adds those of a consumer that are asked for, and tells of the ones that were left off.
func (c *listInboxCommand) rows(a *app, o *pabal.Operator, consumer string, list []kept) ([]kept, error) {
	f := driver.RowFilter{Source: c.Source, Topic: c.Topic, Key: c.Key, Limit: min(c.Limit+1, page)}
	f.State = map[string]driver.RowState{"any": driver.Done, "held": driver.Held, "parked": driver.Parked}[c.State] // Done: both
	rows, err := o.Received(a.ctx, consumer, f)
	if err != nil {
		return nil, err
	}
	if len(rows) > c.Limit || len(rows) == page { // of a whole page nobody knows whether it was the last
		rows = rows[:c.Limit]
		_, _ = fmt.Fprintf(a.stderr, "%s: the first %d are listed, and there may be more: give --source, --topic or --key, or --limit up to %d\n",
			consumer, c.Limit, page)
	}
	before, err := predecessors(a, o, consumer, rows)
	if err != nil {
		return nil, err
	}
	for i, why := range o.Explain(consumer, slices.Concat(rows, before))[:len(rows)] {
		r := &rows[i]
		next := r.NextAt
		if next.Year() > 9999 {
			next = time.Time{}
		}
		list = append(list, kept{
			Consumer: consumer, ID: r.ID, State: r.State.String(), Source: r.Source, Topic: r.Topic, Type: r.Type, Key: r.Key,
			Position: r.Position, Redelivery: r.Job, RecordedAt: r.RecordedAt, ReceivedAt: r.ReceivedAt, Reason: r.Reason, NextTry: next,
			Failures: r.Failures, LastError: r.LastError, Why: why.What, Command: why.Command,
		})
	}
	return list, nil
}

// predecessors are the rows that others wait for and that are not among them: of another state, or further down.
func predecessors(a *app, o *pabal.Operator, consumer string, rows []driver.Row) ([]driver.Row, error) {
	among, wanted := map[uuid.UUID]bool{}, []uuid.UUID{}
	for i := range rows {
		among[rows[i].ID] = true
	}
	for i := range rows {
		if prev := rows[i].Prev; !prev.IsZero() && !among[prev.ID] {
			among[prev.ID] = true
			wanted = append(wanted, prev.ID)
		}
	}
	return rowsOf(a, o, consumer, wanted)
}

// rowsOf are those of events.
func rowsOf(a *app, o *pabal.Operator, consumer string, ids []uuid.UUID) (found []driver.Row, err error) {
	for some := range slices.Chunk(ids, page/10) { // an event has a row for each redelivery too
		more, err := o.Received(a.ctx, consumer, driver.RowFilter{IDs: some, Limit: page})
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

func printKept(w io.Writer, now time.Time, list []kept) {
	row(w, "CONSUMER", "STATE", "SOURCE", "TOPIC", "KEY", "EVENT", "RECEIVED")
	for _, k := range list {
		row(w, k.Consumer, k.State, k.Source, k.Topic, cmp.Or(k.Key, "-"), k.ID, ago(now, k.ReceivedAt))
	}
	for _, k := range list {
		_, _ = fmt.Fprintf(w, "\n! %s\n", k.Why)
		if k.Command != "" {
			_, _ = fmt.Fprintf(w, "    %s\n", k.Command)
		}
	}
}
