package pabalotel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/pabal-go/pabal"
)

// statusTime bounds reading the status for a collection of metrics.
const statusTime = 5 * time.Second

// health are the instruments that show a status.
type health struct {
	operator *pabal.Operator

	healthy, troubles, unconfirmed, parked, held, overflowing metric.Int64ObservableGauge
	oldest, heldAge                                           metric.Float64ObservableGauge
}

// WatchHealth reports what `pabal status` shows whenever metrics are collected, which reads the store with a few small queries,
// for at most 5 s:
//
//   - pabal.healthy is 1 without troubles and 0 with any, or when the store cannot be read
//   - pabal.troubles counts what an operator should know
//   - pabal.unconfirmed and pabal.oldest.age (seconds since the oldest of them was recorded), by topic
//   - pabal.parked, by topic (events) or consumer (received ones)
//   - pabal.held, pabal.held.age (seconds since the oldest of them was received) and pabal.overflowing (keys), by consumer
//
// One process of a store is enough: its replicas would report the same. The function that it returns ends it.
func WatchHealth(operator *pabal.Operator, o *Options) (stop func() error, err error) {
	h := &health{operator: operator}
	meter := o.meter()
	var errs []error
	for _, g := range []struct {
		to                      *metric.Int64ObservableGauge
		name, unit, description string
	}{
		{&h.healthy, "pabal.healthy", "{store}", "1 without troubles, 0 with any."},
		{&h.troubles, "pabal.troubles", "{trouble}", "What an operator should know, see pabal status."},
		{&h.unconfirmed, "pabal.unconfirmed", "{event}", "Events that are recorded and have not come back from the broker."},
		{&h.parked, "pabal.parked", "{event}", "Events that wait for an operator."},
		{&h.held, "pabal.held", "{event}", "Received events that wait for a predecessor or for their next try."},
		{&h.overflowing, "pabal.overflowing", "{key}", "Keys of which more events are held than are stored."},
	} {
		*g.to, err = meter.Int64ObservableGauge(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.description))
		errs = append(errs, err)
	}
	h.oldest, err = meter.Float64ObservableGauge("pabal.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the oldest unconfirmed event was recorded."))
	errs = append(errs, err)
	h.heldAge, err = meter.Float64ObservableGauge("pabal.held.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the oldest event that is held was received."))
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("pabalotel: %w", err)
	}
	registration, err := meter.RegisterCallback(h.observe, h.healthy, h.troubles, h.unconfirmed, h.parked, h.held, h.overflowing, h.oldest, h.heldAge)
	if err != nil {
		return nil, fmt.Errorf("pabalotel: %w", err)
	}
	return registration.Unregister, nil
}

func (h *health) observe(ctx context.Context, to metric.Observer) error {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s, err := h.operator.Status(ctx)
	if err != nil {
		to.ObserveInt64(h.healthy, 0)
		return fmt.Errorf("pabalotel: %w", err)
	}
	healthy := int64(0)
	if s.Healthy {
		healthy = 1
	}
	to.ObserveInt64(h.healthy, healthy)
	to.ObserveInt64(h.troubles, int64(len(s.Troubles)))
	for _, t := range s.Topics {
		of := metric.WithAttributes(destination(t.Name, "")...)
		to.ObserveInt64(h.unconfirmed, int64(t.Waiting), of)
		to.ObserveInt64(h.parked, int64(t.Parked), of)
		to.ObserveFloat64(h.oldest, age(s.Now, t.OldestWaiting), of)
	}
	for _, c := range s.Consumers {
		of := metric.WithAttributes(destination("", c.Consumer)...)
		to.ObserveInt64(h.parked, int64(c.Parked), of)
		to.ObserveInt64(h.held, int64(c.Held), of)
		to.ObserveFloat64(h.heldAge, age(s.Now, c.OldestHeld), of)
		to.ObserveInt64(h.overflowing, int64(c.Overflow), of)
	}
	return nil
}

// age is how long ago something happened, in seconds; 0: it has not.
func age(now, at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return max(now.Sub(at).Seconds(), 0)
}
