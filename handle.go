package pabal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

const (
	handlerGrace = 5 * time.Second // for a handler to notice that its context ended
	batchMax     = 1000
)

// handler is a registered function, with the type parameter of its payload hidden.
type handler[X any] struct {
	name  string // of the event type
	batch bool
	call  func(ctx context.Context, tx X, arrivals []*arrival) error
}

// Handle registers the function that handles events of a type. It runs in a transaction of the consumer's database, in which
// the inbox row and the cursor are already written: what it writes with tx commits together with them, once per event
// (P4). It gets the events of one key in order (P5), never two at a time; events of different keys run at the same time.
//
// An error, a panic, or more than ConsumerOptions.Timeout roll back; the event is kept in the inbox and tried again, 10
// times by default over about an hour, then parked. Calls to other systems do not belong into the handler: write what is
// to be done in a row of yours, and do it after commit.
//
// Handle must be called before [Client.Run], which reports what is wrong with it.
func Handle[X, T any](
	c *Consumer[X], t Type[T], handle func(ctx context.Context, tx X, event Received[T]) error,
) {
	c.register(t.check(), t.topic, t.key != nil, &handler[X]{name: t.name,
		call: func(ctx context.Context, tx X, arrivals []*arrival) error {
			for _, a := range arrivals {
				var event Received[T]
				if err := event.take(a); err != nil {
					return err
				}
				if err := handle(ctx, tx, event); err != nil {
					return err
				}
			}
			return nil
		}})
}

// HandleBatch is Handle for many events in one transaction: up to ConsumerOptions.Batch of those that have arrived, of
// one key still in order. When it fails, its events are handled one by one, each in a batch of its own, so that only those
// that fail by themselves wait.
func HandleBatch[X, T any](
	c *Consumer[X], t Type[T], handle func(ctx context.Context, tx X, events []Received[T]) error,
) {
	c.register(t.check(), t.topic, t.key != nil, &handler[X]{name: t.name, batch: true,
		call: func(ctx context.Context, tx X, arrivals []*arrival) error {
			events := make([]Received[T], len(arrivals))
			for i, a := range arrivals {
				if err := events[i].take(a); err != nil {
					return err
				}
			}
			return handle(ctx, tx, events)
		}})
}

// take makes r what the handler gets of an arrival.
func (r *Received[T]) take(a *arrival) error {
	e := a.event
	r.ID, r.Source, r.Topic, r.Type, r.Version = e.ID, e.Source, e.Topic, e.Type, e.Version
	r.Key, r.Position, r.RecordedAt, r.Attempt, r.Job = e.Key, e.Position, e.RecordedAt, a.row.Failures+1, e.Job
	if len(e.Headers) > 0 {
		if err := json.Unmarshal(e.Headers, &r.Headers); err != nil {
			return fmt.Errorf("headers of %s do not decode: %w", e.Type, err)
		}
	}
	if err := decodePayload(e.Payload, &r.Data); err != nil {
		return fmt.Errorf("payload of %s does not decode: %w", e.Type, err)
	}
	return nil
}

// errHung: a handler ignored its cancelled context; it is still running.
var errHung = errors.New("handler ignored its cancelled context")

// call runs a handler in a task of its own, so that one that hangs can be given up.
func (c *Consumer[X]) call(
	ctx context.Context, w world.World, h *handler[X], tx X, arrivals []*arrival,
) error {
	first := arrivals[0]
	if first.event.Traceparent != "" {
		ctx = WithTraceparent(ctx, first.event.Traceparent)
	}
	ctx, end := c.house.o.Observer.Start(ctx, Step{
		Name: "handle", Topic: first.event.Topic, Type: h.name, Consumer: c.name, Events: len(arrivals),
		Traceparents: traceparents(arrivals, func(a **arrival) string { return (*a).event.Traceparent }),
	})
	ctx, cancel := w.Deadline(ctx, c.o.Timeout)
	defer cancel()
	done, result := w.NewSignal(), errors.New("handler ended its goroutine")
	w.Go("handler", func(world.World) {
		defer done.Set()
		defer func() {
			if p := recover(); p != nil {
				result = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
			}
		}()
		result = h.call(ctx, tx, arrivals)
	})
	if done.Wait(ctx, -1) || done.Wait(context.WithoutCancel(ctx), handlerGrace) {
		end(result)
		return result
	}
	err := fmt.Errorf("%w for %v: %s of %s", errHung, handlerGrace, first.row.ID, h.name)
	end(err)
	return err
}

// handlesOnly reports whether chunks call a handler with one event only, and with which.
func handlesOnly[X any](chunks []chunk[X], a *arrival) bool {
	n, is := 0, false
	for i := range chunks {
		for _, handled := range chunks[i].arrivals {
			n, is = n+1, handled.row.ID == a.row.ID
		}
	}
	return n == 1 && is
}

// arrival is an event on its way through a consumer.
type arrival struct {
	row      driver.Row
	event    *envelope        // nil: unreadable
	delivery *driver.Delivery // nil: it comes from the inbox
	started  int              // from the inbox: the row's starts, which fence off what came later
	canary   bool             // answered already, and no event
	over     bool             // acknowledged, given back, or no longer ours; guarded by mu
	cancel   context.CancelFunc
}

// arrive makes a an arrival of a message, decoded into e.
func (a *arrival) arrive(d *driver.Delivery, e *envelope, known *names, now time.Time) {
	a.delivery = d
	if err := e.read(d, known); err != nil {
		a.row = driver.Row{ID: digest(d.Body), RecordedAt: now, SentAt: now, Body: d.Body, LastError: reason(reasonUnread, err)}
		return
	}
	a.event = e
	body := d.Body
	if e.Bare {
		body = e.append(nil) // what may be kept in the inbox has an envelope
	}
	a.row = e.row(body, now)
}

// arriveAgain makes an arrival of an inbox row.
func arriveAgain(row driver.Row) *arrival {
	a := &arrival{row: row, started: row.Started}
	if e, err := decode(row.Body); err == nil {
		a.event = e
	}
	return a
}

// row is the inbox row of an event. now stands in for times that a foreign event does not tell.
func (e *envelope) row(body []byte, now time.Time) driver.Row {
	r := driver.Row{
		CursorKey: driver.CursorKey{Source: e.Source, Topic: e.Topic, Key: e.Key, Job: e.Job},
		ID:        e.ID, Type: e.Type, Position: e.Position, Prev: e.Prev, RecordedAt: e.RecordedAt, SentAt: e.SentAt,
		Body: body,
	}
	if e.foreign { // of names as long as they like
		r.Source, r.Topic, r.Key, r.Type = brief(e.Source, maxName), brief(e.Topic, maxName), brief(e.Key, maxKey), brief(e.Type, maxType)
		r.SentAt = now
		if r.RecordedAt.IsZero() {
			r.RecordedAt = now
		}
	}
	return r
}
