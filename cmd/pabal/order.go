package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// orderFlags name events.
type orderFlags struct {
	storeFlags
	IDs []string `arg:"" name:"id" help:"Ids of events."`
}

func parseIDs(texts []string) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(texts))
	for i, text := range texts {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, usage("%q is no event id: %w", text, err)
		}
		ids[i] = id
	}
	return ids, nil
}

type idSet map[uuid.UUID]bool

// order is a retry or a skip of events.
type order struct {
	verb  string // retrying
	where string // events have to be
	// look says which of up to a page of events are there, and which an order concerns without.
	look func(o *pabal.Operator, ids []uuid.UUID) (there, without idSet, err error)
	do   func(o *pabal.Operator, ids []uuid.UUID) (int, error)
}

// order carries one out, a page of events at a time, and names those that it is not for.
func (c *orderFlags) order(a *app, w order) error {
	ids, err := parseIDs(c.IDs)
	if err != nil {
		return err
	}
	ids = distinct(ids)
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		ordered, missing := 0, []uuid.UUID{}
		for some := range slices.Chunk(ids, page) {
			there, without, err := w.look(o, some)
			if err != nil {
				return err
			}
			n, err := w.do(o, some)
			if err != nil {
				return fmt.Errorf("%s %d of %d events, then: %w", w.verb, ordered, len(ids), err)
			}
			for _, id := range some {
				if !there[id] && !without[id] {
					missing = append(missing, id)
				}
			}
			// An event may have several rows in an inbox, and may be done with since they were looked for.
			ordered += min(n, len(there)) + len(without)
		}
		said := map[string]any{w.verb: ordered, "of": len(ids)}
		if len(missing) > 0 {
			said["missing"] = missing
		}
		err = a.said(said, "%s %d of %d events", w.verb, ordered, len(ids))
		switch ended := len(ids) - ordered - len(missing); {
		case err != nil:
			return err
		case len(missing) > 0:
			return &exit{exitFailed, fmt.Errorf("%d events are not %s: %s", len(missing), w.where, firstOf(missing))}
		case ended > 0:
			return &exit{exitFailed, fmt.Errorf("%d events are not %s any more", ended, w.where)}
		}
		return nil
	})
}

// distinct are ids without those that were there before.
func distinct(ids []uuid.UUID) []uuid.UUID {
	seen := idSet{}
	return slices.DeleteFunc(ids, func(id uuid.UUID) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
}

const named = 5 // of many events

func firstOf(ids []uuid.UUID) string {
	var names []string
	for _, id := range ids[:min(len(ids), named)] {
		names = append(names, id.String())
	}
	text := strings.Join(names, ", ")
	if more := len(ids) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// pendingOrder is one to the producing store.
func (c *orderFlags) pendingOrder(a *app, verb string, do func(o *pabal.Operator, ids []uuid.UUID) (int, error)) error {
	look := func(o *pabal.Operator, ids []uuid.UUID) (there, without idSet, err error) {
		found, err := o.Events(a.ctx, driver.EventFilter{IDs: ids, State: driver.Unconfirmed, Limit: page})
		there = idSet{}
		for i := range found {
			there[found[i].Event.ID] = true
		}
		return there, nil, err
	}
	return c.order(a, order{verb, "pending in this store", look, do})
}

type retryEventsCommand struct{ orderFlags }

func (c *retryEventsCommand) Run(a *app) error {
	return c.pendingOrder(a, "retrying", func(o *pabal.Operator, ids []uuid.UUID) (int, error) { return o.Retry(a.ctx, ids...) })
}

type skipEventsCommand struct{ orderFlags }

func (c *skipEventsCommand) Run(a *app) error {
	return c.pendingOrder(a, "skipping", func(o *pabal.Operator, ids []uuid.UUID) (int, error) { return o.Skip(a.ctx, ids...) })
}

type inboxOrderFlags struct {
	Consumer string `help:"The consumer whose inbox keeps the events." required:""`
	orderFlags
}

// inboxOrder is one to a consumer. A skip is also for an event that never came, which a held one waits for.
func (c *inboxOrderFlags) inboxOrder(a *app, verb string, skip bool, do func(o *pabal.Operator, ids []uuid.UUID) (int, error)) error {
	look := func(o *pabal.Operator, ids []uuid.UUID) (there, without idSet, err error) {
		there, without = idSet{}, idSet{}
		rows, err := rowsOf(a, o, c.Consumer, ids)
		for i := range rows {
			there[rows[i].ID] = true
		}
		if err == nil && skip && len(there) < len(ids) {
			if rows, err = o.Received(a.ctx, c.Consumer, driver.RowFilter{State: driver.Held, Limit: page}); err != nil {
				return nil, nil, err
			}
			for i := range rows {
				if id := rows[i].Prev.ID; slices.Contains(ids, id) && !there[id] {
					without[id] = true
				}
			}
		}
		if err == nil && len(there)+len(without) == 0 {
			err = c.known(a, o)
		}
		return there, without, err
	}
	return c.order(a, order{verb, "in the inbox of " + c.Consumer, look, do})
}

// known refuses a consumer of whom the store has heard nothing.
func (c *inboxOrderFlags) known(a *app, o *pabal.Operator) error {
	s, err := o.Status(a.ctx)
	if err == nil && !slices.ContainsFunc(s.Consumers, func(k driver.ConsumerCounts) bool { return k.Consumer == c.Consumer }) {
		err = unknownConsumer(c.Consumer)
	}
	return err
}

func unknownConsumer(name string) error {
	return &exit{exitFailed, fmt.Errorf("--consumer %s: this store has none of that name; see pabal status", name)}
}

type retryInboxCommand struct{ inboxOrderFlags }

func (c *retryInboxCommand) Run(a *app) error {
	return c.inboxOrder(a, "retrying", false, func(o *pabal.Operator, ids []uuid.UUID) (int, error) {
		return o.RetryReceived(a.ctx, c.Consumer, ids...)
	})
}

type skipInboxCommand struct{ inboxOrderFlags }

func (c *skipInboxCommand) Run(a *app) error {
	return c.inboxOrder(a, "skipping", true, func(o *pabal.Operator, ids []uuid.UUID) (int, error) {
		return o.SkipReceived(a.ctx, c.Consumer, ids...)
	})
}
