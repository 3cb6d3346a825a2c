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

// eventsCommand is for the events that a store has recorded; inboxCommand for what consumers keep.
type eventsCommand struct {
	List         listEventsCommand   `cmd:"" help:"List recorded events, the newest first."`
	Show         showEventCommand    `cmd:"" help:"Show an event with its whole life."`
	Tail         tailCommand         `cmd:"" help:"Follow what is recorded, until interrupted."`
	Retry        retryEventsCommand  `cmd:"" help:"Publish unconfirmed events again now, parked ones too."`
	Skip         skipEventsCommand   `cmd:"" help:"Have unconfirmed events delivered as a skip: consumers go on without them."`
	Redeliver    redeliverCommand    `cmd:"" help:"Send recorded events once more, to all or to one consumer."`
	Redeliveries redeliveriesCommand `cmd:"" help:"List redeliveries: who ordered what and why, and how far it is."`
}

// filterFlags narrow events.
type filterFlags struct {
	Topic string `help:"Events of this topic."`
	Type  string `help:"Events of this type."`
	Key   string `help:"Events of this key."`
	From  moment `help:"Recorded at or after: RFC 3339, or how long ago (90m)." placeholder:"TIME"`
}

func (f *filterFlags) filter() driver.EventFilter {
	return driver.EventFilter{Topic: f.Topic, Type: f.Type, Key: f.Key, From: f.From.Time}
}

const (
	listMax = 10_000 // events that list holds in memory
	page    = 1_000
)

type listEventsCommand struct {
	storeFlags
	filterFlags
	Until  moment `help:"Recorded before: RFC 3339, or how long ago." placeholder:"TIME"`
	State  string `help:"unconfirmed, confirmed, parked, or late: unconfirmed for over a minute." default:"any" enum:"any,unconfirmed,confirmed,parked,late"`
	Oldest bool   `help:"The oldest first."`
	Limit  int    `short:"n" help:"How many at most, up to 10,000." default:"50"`
}

func (c *listEventsCommand) Run(a *app) error {
	if c.Limit < 1 || c.Limit > listMax {
		return usage("--limit %d: from 1 to %d", c.Limit, listMax)
	}
	if err := checkSpan(c.From, c.Until); err != nil {
		return err
	}
	f := c.filter()
	f.To = c.Until.Time
	f.State = map[string]driver.EventState{"any": driver.AnyState, "unconfirmed": driver.Unconfirmed, "confirmed": driver.ConfirmedOnly,
		"parked": driver.ParkedOnly, "late": driver.LateOnly}[c.State]
	f.Late, f.Descending = time.Minute, !c.Oldest
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		events := []event{}
		for {
			f.Limit = min(page, c.Limit-len(events))
			found, err := o.Events(a.ctx, f)
			if err != nil {
				return err
			}
			for i := range found {
				events = append(events, shown(&found[i]))
			}
			if len(found) < f.Limit || len(events) == c.Limit {
				return a.answer(events, func(w io.Writer) { printEvents(w, events) })
			}
			f.After = found[len(found)-1].Event.Ref()
		}
	})
}

func printEvents(w io.Writer, events []event) {
	row(w, "RECORDED", "EVENT", "TOPIC", "TYPE", "KEY", "STATE", "LAST ERROR")
	for i := range events {
		e := &events[i]
		lastError := ""
		if e.Pending != nil {
			lastError = e.Pending.LastError
		}
		row(w, e.RecordedAt.Format(time.RFC3339Nano), e.ID, e.Topic, e.Type, cmp.Or(e.Key, "-"), e.label(), lastError)
	}
}

type showEventCommand struct {
	storeFlags
	At []string `help:"Also look into the inboxes of this store: the consumers' (repeat it)." placeholder:"ADDRESS" sep:"none"`
	ID string   `arg:"" name:"id" help:"The event's id."`
}

func (c *showEventCommand) Run(a *app) error {
	ids, err := parseIDs([]string{c.ID})
	if err != nil {
		return err
	}
	var l life
	err = c.operator(a.ctx, func(o *pabal.Operator) error {
		found, err := o.Events(a.ctx, driver.EventFilter{IDs: ids, Limit: 1})
		if err != nil {
			return err
		}
		s, err := o.Status(a.ctx)
		if err != nil {
			return err
		}
		if l.Source = s.Source; len(found) == 0 {
			return &exit{exitFailed, fmt.Errorf("event %s is not in the store of %s: never recorded there, or forgotten since", ids[0], s.Source)}
		}
		l.event = shown(&found[0])
		l.ofStore(&found[0], s.Jobs)
		return l.ofConsumers(a, o, s.Consumers)
	})
	if err != nil {
		return err
	}
	for _, address := range c.At {
		other := storeFlags{DB: address, Prefix: c.Prefix}
		err := other.operator(a.ctx, func(o *pabal.Operator) error {
			s, err := o.Status(a.ctx)
			if err != nil {
				return err
			}
			return l.ofConsumers(a, o, s.Consumers)
		})
		if err != nil {
			return fmt.Errorf("--at %s: %w", redacted(address), err)
		}
	}
	slices.SortStableFunc(l.Life, func(a, b lived) int { return a.At.Compare(b.At) })
	return a.answer(l, l.print)
}

// ofConsumers adds what the consumers of a store made of the event.
func (l *life) ofConsumers(a *app, o *pabal.Operator, consumers []driver.ConsumerCounts) error {
	for _, c := range consumers {
		rows, err := o.Received(a.ctx, c.Consumer, driver.RowFilter{IDs: []uuid.UUID{l.ID}, Done: true, Limit: page})
		if err != nil {
			return err
		}
		for i, why := range o.Explain(c.Consumer, rows) {
			again := ""
			if rows[i].Job != uuid.Nil {
				again = fmt.Sprintf(", redelivery %s", rows[i].Job)
			}
			what := why.What
			if rows[i].State == driver.Done {
				what = fmt.Sprintf("%s: received, and done", c.Consumer)
			} else if why.Command != "" {
				what += "   > " + why.Command
			}
			l.add(rows[i].ReceivedAt, "%s%s", what, again)
		}
	}
	return nil
}
