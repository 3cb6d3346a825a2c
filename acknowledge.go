package pabal

import (
	"context"
	"slices"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Keeping received messages ours while they wait and are handled, and giving them up afterwards.

// runAcker acknowledges what has been handled, as much at a time as there is, until no lane runs any more; then it gives
// back what was received and not started.
func (c *Consumer[X]) runAcker(ctx context.Context) {
	h := c.house
	for {
		h.mu.Lock()
		acks, ended := c.acks, c.ended
		c.acks, c.acking = nil, len(acks)
		h.mu.Unlock()
		switch {
		case len(acks) > 0:
			call, cancel := h.w.Deadline(context.WithoutCancel(ctx), h.o.PublishTimeout)
			if err := h.broker.Ack(call, c.name, acks); err != nil {
				h.log.Debug("handled messages will come again", "consumer", c.name, "err", err)
			}
			cancel()
			c.roomy.Set()
		case ended:
			c.giveBack(ctx)
			return
		default:
			c.acker.Wait(context.WithoutCancel(ctx), -1)
		}
	}
}

func (c *Consumer[X]) giveBack(ctx context.Context) {
	h := c.house
	h.mu.Lock()
	left := deliveriesOf(c.inflight)
	h.mu.Unlock()
	if len(left) == 0 {
		return
	}
	call, cancel := h.w.Deadline(context.WithoutCancel(ctx), h.o.PublishTimeout)
	defer cancel()
	if _, err := h.broker.Extend(call, c.name, left, 0); err != nil {
		h.log.Debug("received messages come again by themselves", "consumer", c.name, "err", err)
	}
}

// runHeartbeat keeps ours, every third of the time for which the broker leaves them to us, what waits and what is
// handled. What is lost is somebody else's: its handler is cancelled.
func (c *Consumer[X]) runHeartbeat(ctx context.Context) {
	h := c.house
	for h.w.Sleep(ctx, h.limits.Hold/3) == nil {
		h.mu.Lock()
		c.inflight = compact(c.inflight)
		held := slices.Clone(c.inflight)
		deliveries := deliveriesOf(held) // of all: none is over
		h.mu.Unlock()
		if len(held) == 0 {
			continue
		}
		call, cancel := h.w.Deadline(ctx, h.limits.Hold/3+time.Second)
		lost, err := h.broker.Extend(call, c.name, deliveries, h.limits.Hold)
		cancel()
		if err != nil {
			h.warn(ctx, "messages could not be kept", "consumer", c.name, "messages", len(held), "err", err)
		}
		c.lose(held, lost)
	}
}

// lose gives up what is no longer ours.
func (c *Consumer[X]) lose(held []*arrival, lost []int) {
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	for _, i := range lost {
		a := held[i]
		if a.over {
			continue // acknowledged meanwhile
		}
		a.over = true
		if a.cancel != nil {
			a.cancel()
		}
	}
}

// compact removes what is over. The caller holds mu.
func compact(arrivals []*arrival) []*arrival {
	kept := arrivals[:0]
	for _, a := range arrivals {
		if !a.over {
			kept = append(kept, a)
		}
	}
	clear(arrivals[len(kept):])
	return kept
}

// deliveriesOf returns the messages of arrivals that are not over. The caller holds mu.
func deliveriesOf(arrivals []*arrival) []driver.Delivery {
	var deliveries []driver.Delivery
	for _, a := range arrivals {
		if a.delivery != nil && !a.over {
			deliveries = append(deliveries, *a.delivery)
		}
	}
	return deliveries
}
