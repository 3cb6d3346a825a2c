package pabal

import (
	"bytes"
	"context"
	"fmt"

	"github.com/pabal-go/pabal/driver"
)

// Record writes events into the transaction tx of the caller, who goes on with it as he likes. When it commits, by
// whatever means, the events are published right after; when it rolls back, they never existed (P2). Nothing has to be
// called after COMMIT. No broker is asked, so none can slow or fail the transaction (P3).
//
// All events of a call are recorded, in order, or none: at most 1,000. A size above what the broker takes, less 1 KiB
// for the envelope, is a [LimitError]. [ErrNoTransaction], [ErrUnwatched] and every limit are found before anything is
// sent to the database; other errors leave the transaction as a failed statement does there.
//
// While [Client.Run] runs, the events are leased to this process; otherwise they are due at once for any other process
// of the source, such as `pabal relay`.
func (c *Client[X]) Record(ctx context.Context, tx X, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	ctx, end := c.house.o.Observer.Start(ctx, Step{
		Name: "record", Topic: events[0].event.Topic, Type: events[0].event.Type, Events: len(events),
	})
	err := c.record(ctx, tx, events)
	end(err)
	return err
}

func (c *Client[X]) record(ctx context.Context, tx X, events []Event) error {
	rows, err := c.prepare(ctx, events)
	if err != nil {
		return err
	}
	lease := c.publisher.lease()
	leaseEnd := c.house.w.Now().Add(lease) // taken before the database's clock: ours ends first
	batch := &recorded{rows: rows}
	err = c.store.Record(ctx, tx, driver.Recording{Events: rows, Lease: lease, Outcome: func(s driver.CommitState) {
		if lease > 0 {
			c.publisher.committed(batch, leaseEnd, s)
		}
	}})
	if err != nil {
		return fmt.Errorf("record %s: %w", rows[0].Type, err)
	}
	batch.at = c.house.w.Now() // after the database's clock: what sentAt adds to RecordedAt is never too much
	return nil
}

// prepare checks every limit and completes the rows but for what the store fills in.
func (c *Client[X]) prepare(ctx context.Context, events []Event) ([]driver.Event, error) {
	if err := within("events in one Record", "events", len(events), maxRecord, "call it several times"); err != nil {
		return nil, err
	}
	traceparent := Traceparent(ctx)
	if !validTraceparent(traceparent) {
		traceparent = ""
	}
	rows := make([]driver.Event, len(events))
	for i, e := range events {
		if e.err != nil {
			return nil, fmt.Errorf("record: %w", e.err)
		}
		if e.event.Type == "" {
			return nil, fmt.Errorf("record: event %d is the zero Event: make events with Type.New", i)
		}
		headers, err := encodeHeaders(e.event.Type, e.headers)
		if err == nil && e.event.Bare {
			err = checkBare(&e.event, headers)
		}
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		rows[i] = e.event
		rows[i].Headers = headers
		if !e.event.Bare {
			rows[i].Traceparent = traceparent
		}
		if err := c.checkSize(&rows[i]); err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
	}
	c.house.identify(rows)
	return rows, nil
}

// checkBare refuses what a message without envelope cannot carry.
func checkBare(e *driver.Event, headers []byte) error {
	switch {
	case len(headers) > 0:
		return fmt.Errorf("headers of %s: a bare type has no place for them", e.Type)
	case len(e.Payload) == 0:
		return fmt.Errorf("payload of %s is empty: a bare type has nothing else to send", e.Type)
	case !carried(e.Payload):
		return fmt.Errorf("payload of %s holds bytes that not every broker carries: a bare type needs UTF-8 text without "+
			"control characters, U+FFFE and U+FFFF", e.Type)
	}
	return nil
}

// identify gives rows ids that follow each other within a process: events of one statement have one RecordedAt, so that
// it is their ids that tell a redelivery their order (P5).
func (h *house) identify(rows []driver.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range rows {
		id := newID(h.w)
		if bytes.Compare(id[:], h.lastID[:]) <= 0 {
			id = following(h.lastID)
		}
		rows[i].ID, h.lastID = id, id
	}
}

// checkSize holds an event against what the broker takes.
func (c *Client[X]) checkSize(e *driver.Event) error {
	limits := &c.house.limits
	if size := sizeOnWire(e) + envelopeRoom; limits.Message > 0 && size > limits.Message {
		return within("size of "+e.Type+" on the wire", "bytes", size, limits.Message,
			"store the payload elsewhere and record a reference to it")
	}
	if limits.Name > 0 && len(e.Topic) > limits.Name {
		return within("topic of "+e.Type, "bytes", len(e.Topic), limits.Name, "the broker's limit")
	}
	return nil
}
