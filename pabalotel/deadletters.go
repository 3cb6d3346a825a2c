package pabalotel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

const (
	deadEvery = time.Minute      // a broker is asked for its dead letters at most that often: Amazon counts calls
	deadAgain = 10 * time.Minute // and after it has refused, which is mostly for want of a permission
)

// deadLetters remembers what the broker said last.
type deadLetters struct {
	operator *pabal.Operator
	surveyor driver.Surveyor
	messages metric.Int64ObservableGauge

	mu    sync.Mutex
	next  time.Time // from which on it is asked again
	count map[string]int
}

// WatchDeadLetters reports pabal.dead_letters: how many messages the broker has put aside, as well as it counts them, by the queue that they
// were in (messaging.destination.name), for the queues of a store (pabal.Status.Queues). The broker is asked when metrics are
// collected, for at most 5 s, at most once a minute, and after an error once in ten; until it answers again nothing is reported.
// Of a broker that puts nothing aside, which is one that is no driver.Surveyor, nothing is ever reported.
//
// One process of a store is enough. The function that it returns ends it.
func WatchDeadLetters(operator *pabal.Operator, broker driver.Broker, o *Options) (stop func() error, err error) {
	surveyor, ok := broker.(driver.Surveyor)
	if !ok {
		return func() error { return nil }, nil
	}
	d := &deadLetters{operator: operator, surveyor: surveyor}
	meter := o.meter()
	d.messages, err = meter.Int64ObservableGauge("pabal.dead_letters", metric.WithUnit("{message}"),
		metric.WithDescription("Messages that the broker has put aside, for they were delivered too often."))
	if err != nil {
		return nil, fmt.Errorf("pabalotel: %w", err)
	}
	registration, err := meter.RegisterCallback(d.observe, d.messages)
	if err != nil {
		return nil, fmt.Errorf("pabalotel: %w", err)
	}
	return registration.Unregister, nil
}

func (d *deadLetters) observe(ctx context.Context, to metric.Observer) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); !now.Before(d.next) {
		d.next = now.Add(deadEvery)
		if d.count, err = d.ask(ctx); err != nil {
			d.next, err = now.Add(deadAgain), fmt.Errorf("pabalotel: count dead letters: %w", err)
		}
	}
	for queue, messages := range d.count {
		to.ObserveInt64(d.messages, int64(messages), metric.WithAttributes(semconv.MessagingDestinationName(queue)))
	}
	return err
}

// ask counts the dead letters of each of the store's queues, also of those without.
func (d *deadLetters) ask(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s, err := d.operator.Status(ctx)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	var t driver.Topology
	for _, queue := range s.Queues() {
		count[queue] = 0
		t.Queues = append(t.Queues, driver.QueueSpec{Name: queue})
	}
	dead, err := d.surveyor.DeadLetters(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, letters := range dead {
		count[letters.Queue] = letters.Messages
	}
	return count, nil
}
