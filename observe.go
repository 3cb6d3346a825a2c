package pabal

import (
	"context"
	"slices"
)

// Observer watches a client, for metrics and traces; pabalotel has one for OpenTelemetry. Its methods are called from
// many tasks at once and must not block.
type Observer interface {
	// Start is called when a step begins: record, publish, handle. The context it returns is used in the step: in record, its
	// [Traceparent] goes with the events; in handle, it is the handler's. The function is called at the step's end.
	Start(ctx context.Context, s Step) (context.Context, func(error))
	// Count is called when something happened to N events.
	Count(c Count)
}

// Step is a piece of work that an [Observer] may want to measure.
type Step struct {
	Name     string // record, publish, handle
	Topic    string // of the first event
	Type     string // of the first event; empty in publish
	Consumer string // in handle
	Events   int

	// Traceparents are what the events carry, in publish and handle, each once, those that carry none left out. It is
	// called while Start runs, or not at all.
	Traceparents func() []string
}

// Count is what happened to events.
type Count struct {
	Step     string // publish, confirm, republish, redeliver, consume, forget
	Result   string // such as accepted, again, never, confirmed, repeated, stray, ghost, handled, duplicate, held, parked
	Topic    string // may be empty
	Consumer string // in consume
	N        int
}

// noObserver is what a client has without Options.Observer.
type noObserver struct{}

func (noObserver) Start(ctx context.Context, _ Step) (context.Context, func(error)) {
	return ctx, func(error) {}
}
func (noObserver) Count(Count) {}

type traceparentKey struct{}

// WithTraceparent returns a context whose events carry this W3C Trace Context header value ("00-…-…-01"); handlers find
// it in their context with [Traceparent]. A value that is not of that form is not carried.
// See https://www.w3.org/TR/trace-context/#traceparent-header.
func WithTraceparent(ctx context.Context, value string) context.Context {
	return context.WithValue(ctx, traceparentKey{}, value)
}

// Traceparent returns the value of [WithTraceparent]; empty without one.
func Traceparent(ctx context.Context) string {
	value, _ := ctx.Value(traceparentKey{}).(string)
	return value
}

// traceparents are those of a list of things that have them.
func traceparents[T any](list []T, of func(*T) string) func() []string {
	return func() (all []string) {
		for i := range list {
			if t := of(&list[i]); t != "" && !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
		return all
	}
}

// validTraceparent checks version 00's form: 2-32-16-2 lower-case hexadecimal digits.
func validTraceparent(s string) bool {
	if len(s) != 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i != 2 && i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
