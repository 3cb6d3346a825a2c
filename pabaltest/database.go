package pabaltest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Tests on a database of the user's own, in real time. An Operator, such as a client's, is how they look into it.

const (
	askFirst  = 2 * time.Millisecond   // pause before a test asks the database for the second time; each is longer
	askMost   = 100 * time.Millisecond // the longest
	eventsMax = 1000                   // events in a call of AwaitConfirmed or AwaitHandled
)

// NewBroker makes a broker in memory for clients of real databases, which run in real time: the test needs no server of
// messages. It deduplicates within five minutes and delivers in order. All clients that shall hear of each other get the same
// one. What it keeps ends with the test's process.
func NewBroker() driver.Broker {
	w := world.Real()
	return sim.NewBrokerServer(w, sim.BrokerOptions{Dedup: 5 * time.Minute}).Connect(w, sim.Direct)
}

// RecordedIn returns the committed events of a type that a store keeps, in the order in which they were recorded, confirmed
// or not. It is [Recorded] for a real database.
func RecordedIn[T any](t testing.TB, o *pabal.Operator, eventType pabal.Type[T]) []pabal.Received[T] {
	t.Helper()
	ctx := context.Background()
	status, err := o.Status(ctx)
	if err != nil {
		t.Fatalf("recorded events: %v", err)
	}
	var events []driver.Event
	filter := driver.EventFilter{Topic: eventType.Topic(), Type: eventType.Name(), Limit: eventsMax}
	for {
		found, err := o.Events(ctx, filter)
		if err != nil {
			t.Fatalf("recorded events of %s: %v", eventType.Name(), err)
		}
		for i := range found {
			events = append(events, found[i].Event)
		}
		if len(found) < filter.Limit {
			return receivedOf(t, status.Source, eventType, events)
		}
		filter.After = found[len(found)-1].Event.Ref()
	}
}

// AwaitConfirmed waits, in real time and for at most so long, until events of a store are confirmed: until they have come
// back from the broker. If one is not by then, or is parked, the test fails and says why. At most 1,000 events.
func AwaitConfirmed[T any](t testing.TB, most time.Duration, o *pabal.Operator, events ...pabal.Received[T]) {
	t.Helper()
	ids := idsOf(t, events)
	await(t, most, func(ctx context.Context) (owed string, parked bool, err error) {
		found, err := o.Events(ctx, driver.EventFilter{IDs: ids, Limit: eventsMax})
		if err != nil {
			return "", false, fmt.Errorf("events: %w", err)
		}
		for _, id := range ids {
			i := slices.IndexFunc(found, func(f driver.Found) bool { return f.Event.ID == id })
			switch {
			case i < 0:
				owed = fmt.Sprintf("event %s is not in the store", id)
			case found[i].Pending == nil:
			case found[i].Pending.Parked():
				return fmt.Sprintf("event %s is parked: %s", id, found[i].Pending.LastError), true, nil
			default:
				owed = fmt.Sprintf("event %s is not confirmed (claims %d, %s)", id, found[i].Pending.Claims, found[i].Pending.LastError)
			}
		}
		return owed, false, nil
	})
}

// AwaitHandled waits, in real time and for at most so long, until a consumer of a store has handled events, which another
// store has recorded perhaps; events that it skipped count too. If one is missing by then, or is parked, the test fails and
// says why. At most 1,000 events.
func AwaitHandled[T any](
	t testing.TB, most time.Duration, o *pabal.Operator, consumer string, events ...pabal.Received[T],
) {
	t.Helper()
	ids := idsOf(t, events)
	await(t, most, func(ctx context.Context) (owed string, parked bool, err error) {
		rows, err := o.Received(ctx, consumer, driver.RowFilter{IDs: ids, Done: true, Limit: eventsMax})
		if err != nil {
			return "", false, fmt.Errorf("inbox of %s: %w", consumer, err)
		}
		why := o.Explain(consumer, rows)
		for _, id := range ids {
			i := slices.IndexFunc(rows, func(r driver.Row) bool { return r.ID == id && r.Job == uuid.Nil })
			switch {
			case i < 0:
				owed = fmt.Sprintf("event %s has not come to %s", id, consumer)
			case rows[i].State == driver.Parked:
				return why[i].What, true, nil
			case rows[i].State == driver.Held:
				owed = why[i].What
			}
		}
		return owed, false, nil
	})
}

// await asks, at least once, until nothing is owed, something is parked, or the time is over. A database that does not answer
// is asked again.
func await(t testing.TB, most time.Duration, ask func(ctx context.Context) (owed string, parked bool, err error)) {
	t.Helper()
	start := time.Now()
	for pause := askFirst; ; pause = min(2*pause, askMost) {
		owed, parked, err := ask(context.Background()) // an Operator's answers take 30 s at most
		switch {
		case err != nil:
			owed = err.Error()
		case parked:
			t.Fatalf("%s", owed)
		case owed == "":
			return
		}
		if time.Since(start) >= most {
			t.Fatalf("%v have passed, and %s", most, owed)
		}
		time.Sleep(pause)
	}
}

// Receive makes what a handler gets, for tests that call a handler by hand, in a transaction of their own: an event for each
// payload, as if source had recorded them one after the other now. Payloads are encoded and decoded as on their way, and
// limits hold as in Record. Each event has an id of its own; fields may be changed.
func Receive[T any](t testing.TB, source string, eventType pabal.Type[T], data ...T) []pabal.Received[T] {
	t.Helper()
	post := New(t)
	client := post.Client(source)
	err := post.InTx(client, func(tx Tx) error {
		for _, d := range data {
			if err := client.Record(context.Background(), tx, eventType.New(d)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	received := Recorded(post, eventType)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range received {
		received[i].ID = uuid.Must(uuid.NewV7()) // a Post's own are the same in every test
		received[i].RecordedAt = now.Add(time.Duration(i) * time.Microsecond)
	}
	return received
}

func idsOf[T any](t testing.TB, events []pabal.Received[T]) (ids []uuid.UUID) {
	t.Helper()
	if len(events) > eventsMax {
		t.Fatalf("%d events in a call, at most %d", len(events), eventsMax)
	}
	for i := range events {
		ids = append(ids, events[i].ID)
	}
	return ids
}

// receivedOf makes of stored events what a handler gets of them at its first try.
func receivedOf[T any](t testing.TB, source string, eventType pabal.Type[T], events []driver.Event) []pabal.Received[T] {
	t.Helper()
	var received []pabal.Received[T]
	for i := range events {
		e := &events[i]
		data, err := eventType.Decode(e.Payload)
		if err != nil {
			t.Fatalf("event %s: %v", e.ID, err)
		}
		var headers map[string]string
		if len(e.Headers) > 0 {
			if err := json.Unmarshal(e.Headers, &headers); err != nil {
				t.Fatalf("headers of event %s: %v", e.ID, err)
			}
		}
		received = append(received, pabal.Received[T]{
			ID: e.ID, Source: source, Topic: e.Topic, Type: e.Type, Version: e.Version, Key: e.Key, Position: e.Position,
			RecordedAt: e.RecordedAt, Headers: headers, Attempt: 1, Data: data,
		})
	}
	return received
}
