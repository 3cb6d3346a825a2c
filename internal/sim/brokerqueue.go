package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-go/pabal/driver"
)

func (c *brokerConn) Receive(ctx context.Context, name string, limit int) ([]driver.Delivery, error) {
	b := c.b
	end := c.w.Now().Add(b.o.Limits.Wait)
	whole := context.WithoutCancel(ctx) // ctx's end means "start no further wait", not "drop what comes"
	for {
		b.mu.Lock()
		q := b.queues[name]
		var wait time.Duration
		if q != nil {
			wait = b.available(q)
		}
		b.mu.Unlock()
		if q == nil {
			return nil, fmt.Errorf("%w: no queue %s", driver.ErrDestination, name)
		}
		if wait != 0 {
			left := end.Sub(c.w.Now())
			if left <= 0 || ctx.Err() != nil {
				return nil, nil //nolint:nilerr // the context ends the waiting, and is no error of the broker
			}
			if wait < 0 || wait > left {
				wait = left
			}
			q.wake.Wait(ctx, wait)
			continue
		}
		var deliveries []driver.Delivery
		note := func() string { return fmt.Sprintf("%d from %s", len(deliveries), name) }
		err := c.link.Call(whole, Call{What: "receive", Note: note}, func() error {
			b.mu.Lock()
			defer b.mu.Unlock()
			deliveries = b.take(q, limit)
			return nil
		})
		if err != nil || len(deliveries) > 0 {
			return deliveries, err
		}
	}
}

// available makes ready what is no longer held, and says how long to wait for the next: 0, there is something; -1, nothing
// is held.
func (b *BrokerServer) available(q *queue) time.Duration {
	now := b.w.Now()
	for len(q.held) > 0 {
		h := q.held[0]
		if !h.m.done && h.m.until == h.until {
			if h.until > now {
				break
			}
			h.m.until = 0
			q.ready = append(q.ready, h.m)
		}
		q.held[0] = hold{}
		q.held = q.held[1:]
	}
	switch {
	case len(q.ready) > 0:
		return 0
	case len(q.held) > 0:
		return max(q.held[0].until.Sub(now), time.Nanosecond)
	default:
		return -1
	}
}

func (b *BrokerServer) take(q *queue, limit int) []driver.Delivery {
	b.available(q)
	n := min(limit, len(q.ready))
	deliveries := make([]driver.Delivery, 0, n)
	until := b.w.Now().Add(b.o.Limits.Hold)
	for len(deliveries) < n && len(q.ready) > 0 {
		if b.in(b.o.Shuffle) {
			i := int(b.w.Rand() % uint64(len(q.ready)))
			q.ready[0], q.ready[i] = q.ready[i], q.ready[0]
		}
		m := q.ready[0]
		q.ready[0] = nil
		q.ready = q.ready[1:]
		m.attempt++
		q.taken++
		m.until = until
		q.held = append(q.held, hold{m, until})
		deliveries = append(deliveries, driver.Delivery{
			Body: m.body, Attributes: m.attributes, Attempt: m.attempt, Receipt: receipt{m, m.attempt},
		})
	}
	if len(q.ready) > 0 {
		q.wake.Set()
	}
	return deliveries
}

func (c *brokerConn) Ack(ctx context.Context, name string, deliveries []driver.Delivery) error {
	acks := append([]driver.Delivery(nil), deliveries...)
	note := func() string { return fmt.Sprintf("%d of %s", len(acks), name) }
	return c.link.Call(ctx, Call{What: "acknowledge", Note: note}, func() error {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		for _, d := range acks {
			if r := d.Receipt.(receipt); r.attempt == r.m.attempt && r.m.until != 0 {
				r.m.done = true
				r.m.body = nil
			}
		}
		return nil
	})
}

func (c *brokerConn) Extend(
	ctx context.Context, name string, deliveries []driver.Delivery, d time.Duration,
) (lost []int, err error) {
	extended := append([]driver.Delivery(nil), deliveries...)
	err = c.link.Call(ctx, Call{What: "extend", Note: func() string { return name }}, func() error {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		lost = c.b.extend(name, extended, d)
		return nil
	})
	return lost, err
}

func (b *BrokerServer) extend(name string, deliveries []driver.Delivery, d time.Duration) (lost []int) {
	q := b.queues[name]
	until := b.w.Now().Add(d)
	for i := range deliveries {
		r := deliveries[i].Receipt.(receipt)
		switch {
		case r.attempt != r.m.attempt || r.m.done || r.m.until == 0:
			lost = append(lost, i)
		case d == 0:
			r.m.until = 0
			q.ready = append(q.ready, r.m)
		default:
			r.m.until = until
			at := len(q.held)
			for at > 0 && q.held[at-1].until > until {
				at--
			}
			q.held = slices.Insert(q.held, at, hold{r.m, until})
		}
	}
	q.wake.Set()
	return lost
}
