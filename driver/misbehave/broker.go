package misbehave

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Broker wraps a broker.
func Broker(b driver.Broker, t *Trouble) driver.Broker {
	return &broker{inner: b, t: t, held: map[string][]driver.Delivery{}}
}

type broker struct {
	inner driver.Broker
	t     *Trouble

	mu   sync.Mutex
	held map[string][]driver.Delivery // back, by queue
}

// Limits implements driver.Broker.
func (b *broker) Limits() driver.Limits { return b.inner.Limits() }

// Check implements driver.Broker.
func (b *broker) Check(ctx context.Context, t driver.Topology, create bool) error {
	return b.t.call("Check").do(ctx, func() error { return b.inner.Check(ctx, t, create) })
}

// Publish implements driver.Broker.
func (b *broker) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	c := b.t.call("Publish")
	if err := c.stall(ctx); err != nil {
		return again(len(messages), err)
	}
	switch {
	case c.is("Refused", c.Refused):
		return again(len(messages), c.err("is refused"))
	case c.is("Late", c.Late):
		copies := copied(messages)
		c.later(ctx, func(ctx context.Context) { b.inner.Publish(ctx, to, copies) })
		return again(len(messages), c.err("will take effect late"))
	case c.is("Silent", c.Silent):
		if c.random.IntN(2) == 0 {
			b.inner.Publish(ctx, to, messages)
		}
		return make([]driver.Verdict, len(messages))
	}
	var verdicts []driver.Verdict
	if c.is("HalfFailed", c.HalfFailed) {
		verdicts = b.publishHalf(ctx, c, to, messages)
	} else {
		verdicts = b.inner.Publish(ctx, to, messages)
	}
	if c.is("Doubled", c.Doubled) {
		copies := copied(messages)
		for i := range copies {
			copies[i].Dedup += "/doubled"
		}
		b.inner.Publish(ctx, to, copies)
	}
	if c.is("Lost", c.Lost) {
		return again(len(messages), c.err("lost its answer"))
	}
	return verdicts
}

// publishHalf leaves about half of the messages out, and what follows one of those in its group.
func (b *broker) publishHalf(ctx context.Context, c *call, to driver.Destination, messages []driver.Message) []driver.Verdict {
	verdicts := again(len(messages), c.err("fails for this message"))
	var sent []driver.Message
	var places []int
	failed := map[string]bool{}
	for i, m := range messages {
		if failed[m.Group] || c.random.IntN(2) == 0 {
			failed[m.Group] = m.Group != ""
			continue
		}
		sent, places = append(sent, m), append(places, i)
	}
	if len(sent) > 0 {
		for i, v := range b.inner.Publish(ctx, to, sent) {
			verdicts[places[i]] = v
		}
	}
	return verdicts
}

func again(n int, err error) []driver.Verdict {
	return slices.Repeat([]driver.Verdict{{Err: err}}, n)
}

// copied are messages that share nothing with the caller's.
func copied(messages []driver.Message) []driver.Message {
	messages = slices.Clone(messages)
	for i := range messages {
		messages[i].Body, messages[i].Attributes = bytes.Clone(messages[i].Body), slices.Clone(messages[i].Attributes)
	}
	return messages
}

// Receive implements driver.Broker.
func (b *broker) Receive(ctx context.Context, queue string, limit int) ([]driver.Delivery, error) {
	c := b.t.call("Receive")
	if c.stall(ctx) != nil {
		return nil, nil //nolint:nilerr // the context's end is no error
	}
	if c.is("Refused", c.Refused) {
		return nil, c.err("is refused")
	}
	if c.is("Short", c.Short) {
		limit = min(limit, 1+c.random.IntN(3))
	}
	held := b.take(queue, limit)
	if len(held) == limit {
		return held, nil
	}
	deliveries, err := b.receive(ctx, queue, limit-len(held), len(held) > 0)
	if err != nil {
		b.keep(queue, held)
		return nil, err
	}
	if c.is("Shuffled", c.Shuffled) {
		c.random.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
	}
	if len(deliveries) > 1 && c.is("HeldBack", c.HeldBack) {
		n := (len(deliveries) + 1) / 2
		b.keep(queue, deliveries[n:])
		deliveries = deliveries[:n]
	}
	deliveries = append(deliveries, held...)
	if len(deliveries) > 0 && c.is("Lost", c.Lost) {
		if b.inner.Limits().Hold == 0 { // ours for ever, otherwise
			_, _ = b.inner.Extend(ctx, queue, deliveries, 0) // as well as it can be done
		}
		return nil, c.err("lost its answer")
	}
	return deliveries, nil
}

// receive starts no wait where others wait already.
func (b *broker) receive(ctx context.Context, queue string, limit int, othersWait bool) ([]driver.Delivery, error) {
	if othersWait {
		soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		ctx = soon
	}
	return b.inner.Receive(ctx, queue, limit)
}

func (b *broker) take(queue string, limit int) []driver.Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(limit, len(b.held[queue]))
	taken := slices.Clone(b.held[queue][:n])
	b.held[queue] = b.held[queue][n:]
	return taken
}

func (b *broker) keep(queue string, deliveries []driver.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[queue] = append(b.held[queue], deliveries...)
}

// Ack implements driver.Broker.
func (b *broker) Ack(ctx context.Context, queue string, deliveries []driver.Delivery) error {
	c := b.t.call("Ack")
	if c.is("NotAcked", c.NotAcked) {
		return nil
	}
	if len(deliveries) > 1 && c.is("HalfFailed", c.HalfFailed) {
		if err := b.inner.Ack(ctx, queue, deliveries[:len(deliveries)/2]); err != nil {
			return err
		}
		return c.err("fails for half of the messages")
	}
	return c.do(ctx, func() error { return b.inner.Ack(ctx, queue, deliveries) })
}

// Extend implements driver.Broker.
func (b *broker) Extend(ctx context.Context, queue string, deliveries []driver.Delivery, d time.Duration) (lost []int, err error) {
	err = b.t.call("Extend").do(ctx, func() error {
		lost, err = b.inner.Extend(ctx, queue, deliveries, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}

// Close implements driver.Broker. What was held back is given back first, and what is late is waited for.
func (b *broker) Close() error {
	b.t.late.Wait()
	b.mu.Lock()
	held := b.held
	b.held = map[string][]driver.Delivery{}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), lateTime)
	defer cancel()
	for queue, deliveries := range held {
		if len(deliveries) > 0 {
			_, _ = b.inner.Extend(ctx, queue, deliveries, 0) // or they come when their time is over
		}
	}
	return b.inner.Close()
}
