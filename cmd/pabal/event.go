package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// event is a recorded event as commands show it.
type event struct {
	ID          uuid.UUID       `json:"id"`
	Topic       string          `json:"topic"`
	Type        string          `json:"type"`
	Key         string          `json:"key,omitempty"`
	State       string          `json:"state"` // recorded, accepted, confirmed or parked
	Skipped     bool            `json:"skipped,omitempty"`
	RecordedAt  time.Time       `json:"recordedAt"`
	ConfirmedAt time.Time       `json:"confirmedAt,omitzero"`
	Position    int64           `json:"position,omitempty"`
	Previous    *uuid.UUID      `json:"previous,omitempty"`
	Pending     *pending        `json:"pending,omitempty"` // until it is confirmed
	Headers     json.RawMessage `json:"headers,omitempty"`
	Traceparent string          `json:"traceparent,omitempty"`
	ContentType string          `json:"contentType"`
	Data        json.RawMessage `json:"data,omitempty"`       // a payload that is JSON
	DataBase64  []byte          `json:"dataBase64,omitempty"` // any other
}

// pending is what the work list says of an event.
type pending struct {
	DueAt      time.Time `json:"dueAt,omitzero"`
	AcceptedAt time.Time `json:"acceptedAt,omitzero"`
	ClaimedAt  time.Time `json:"claimedAt,omitzero"`
	Claims     int       `json:"claims"`
	Crashes    int       `json:"crashes"`
	Failures   int       `json:"failures"`
	LastError  string    `json:"lastError,omitempty"`
}

func shown(f *driver.Found) event {
	e := event{
		ID: f.Event.ID, Topic: f.Event.Topic, Type: f.Event.Type, Key: f.Event.Key, State: stateOf(f), Skipped: f.Event.Skipped,
		RecordedAt: f.Event.RecordedAt, ConfirmedAt: f.Event.PublishedAt, Position: f.Event.Position, Traceparent: f.Event.Traceparent,
		ContentType: f.Event.ContentType,
	}
	if !f.Event.Prev.IsZero() {
		e.Previous = &f.Event.Prev.ID
	}
	if json.Valid(f.Event.Headers) {
		e.Headers = f.Event.Headers
	}
	if json.Valid(f.Event.Payload) {
		e.Data = f.Event.Payload
	} else {
		e.DataBase64 = f.Event.Payload
	}
	if p := f.Pending; p != nil {
		e.Pending = &pending{DueAt: p.DueAt, AcceptedAt: p.AcceptedAt, ClaimedAt: p.SentAt, Claims: p.Claims, Crashes: p.Crashes,
			Failures: p.Failures, LastError: p.LastError}
	}
	return e
}

func stateOf(f *driver.Found) string {
	switch p := f.Pending; {
	case p == nil:
		return "confirmed"
	case p.Parked():
		return "parked"
	case !p.AcceptedAt.IsZero():
		return "accepted"
	default:
		return "recorded"
	}
}

// label is its state in a table.
func (e *event) label() string {
	if e.Skipped {
		return e.State + ", skipped"
	}
	return e.State
}

// payload is what a person may read of it.
func (e *event) payload() string {
	if e.Data != nil || utf8.Valid(e.DataBase64) {
		return string(e.Data) + string(e.DataBase64)
	}
	return fmt.Sprintf("%d bytes of %s", len(e.DataBase64), e.ContentType)
}

// moments of a life are ordered by time.
type lived struct {
	At   time.Time `json:"at,omitzero"`
	What string    `json:"what"`
}

// life is an event with all that became of it, as far as its own store tells, and those of consumers that were asked.
type life struct {
	event
	Source string  `json:"source"`
	Life   []lived `json:"life"`
}

func (l *life) add(at time.Time, what string, args ...any) {
	if !at.IsZero() {
		l.Life = append(l.Life, lived{at, fmt.Sprintf(what, args...)})
	}
}

// ofStore adds what the producing store tells.
func (l *life) ofStore(f *driver.Found, jobs []driver.Job) {
	l.add(f.Event.RecordedAt, "recorded in the store of %s", l.Source)
	if p := f.Pending; p != nil {
		l.add(p.SentAt, "claimed by a republisher, for the %d. time", p.Claims)
		l.add(p.AcceptedAt, "accepted by the broker")
		l.add(p.DueAt, "due: a republisher may take it")
	}
	l.add(f.Event.PublishedAt, "confirmed: it came back from the broker")
	for _, j := range jobs {
		var r pabal.Redelivery
		if json.Unmarshal(j.Spec, &r) == nil && concerns(r, f.Event.Ref(), &f.Event) && !before(j.Resume, f.Event.Ref()) {
			l.add(j.CreatedAt, "redelivered to %s, ordered by %s: redelivery %s", target(r), j.By, j.ID)
		}
	}
}

// concerns reports whether a redelivery is of an event.
func concerns(r pabal.Redelivery, ref driver.Ref, e *driver.Event) bool {
	return (r.Topic == "" || r.Topic == e.Topic) && (r.Type == "" || r.Type == e.Type) && (r.Key == "" || r.Key == e.Key) &&
		!ref.RecordedAt.Before(r.From) && (r.Until.IsZero() || ref.RecordedAt.Before(r.Until)) && (len(r.IDs) == 0 || slices.Contains(r.IDs, ref.ID))
}

// before reports whether a comes before b in the order in which events are redelivered.
func before(a, b driver.Ref) bool {
	return a.RecordedAt.Before(b.RecordedAt) || a.RecordedAt.Equal(b.RecordedAt) && strings.Compare(a.ID.String(), b.ID.String()) < 0
}

// target says where a redelivery goes.
func target(r pabal.Redelivery) string {
	to := "all"
	if r.Consumer != "" {
		to = r.Consumer
	}
	if r.Again {
		to += ", again"
	}
	return to
}

func (l *life) print(w io.Writer) {
	row(w, "EVENT", l.ID)
	row(w, "TYPE", l.Type)
	row(w, "TOPIC", l.Topic)
	if l.Key != "" {
		row(w, "KEY", l.Key)
		row(w, "POSITION", l.Position)
	}
	if l.Previous != nil {
		row(w, "PREVIOUS", l.Previous)
	}
	row(w, "STATE", l.label())
	if l.Pending != nil && l.Pending.LastError != "" {
		row(w, "LAST ERROR", l.Pending.LastError)
	}
	if len(l.Headers) > 0 {
		row(w, "HEADERS", string(l.Headers))
	}
	row(w, "PAYLOAD", l.payload())
	row(w)
	for _, m := range l.Life {
		row(w, m.At.Format(time.RFC3339Nano), m.What)
	}
}
