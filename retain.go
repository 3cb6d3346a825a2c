package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Forgetting, on both sides: confirmed events after Retention, what consumers remember after InboxRetention. In small
// rounds, so that nobody waits for them. What is not confirmed stays (P7).

const (
	forgetEvery = time.Hour
	forgetRound = 1000
	forgetPause = 100 * time.Millisecond
	inboxMargin = time.Hour // longer than any handler's transaction
)

// runKeeper forgets every hour, beginning within the first.
func (c *Client[X]) runKeeper(ctx context.Context, consumers []*Consumer[X]) {
	h := c.house
	for h.w.Sleep(ctx, time.Duration(h.w.Rand()%uint64(forgetEvery))) == nil {
		reading, err := h.read(ctx, driver.Query{})
		if err != nil {
			h.warn(ctx, "nothing is forgotten now", "err", err)
			continue
		}
		before := reading.Now.Add(-h.o.Retention)
		c.forget(ctx, "", func(ctx context.Context) (int, error) {
			return h.store.Tend(ctx, driver.Chore{Forget: &driver.Forget{Before: before, Limit: forgetRound}})
		})
		before = reading.Now.Add(-h.o.InboxRetention)
		for _, consumer := range consumers {
			c.forget(ctx, consumer.name, func(ctx context.Context) (int, error) {
				return consumer.inbox.Tend(ctx, driver.InboxChore{Consumer: consumer.name,
					Forget: &driver.InboxForget{Before: before, Margin: inboxMargin, Limit: forgetRound}})
			})
		}
	}
}

// forget repeats a round until it finds less than it may take.
func (c *Client[X]) forget(ctx context.Context, consumer string, round func(context.Context) (int, error)) {
	h := c.house
	for ctx.Err() == nil {
		call, cancel := h.w.Deadline(ctx, h.o.Lease)
		n, err := round(call)
		cancel()
		if err != nil {
			h.warn(ctx, "forgetting failed, trying again in an hour", "consumer", consumer, "err", err)
			return
		}
		h.o.Observer.Count(Count{Step: "forget", Result: "forgotten", Consumer: consumer, N: n})
		if n < forgetRound {
			return
		}
		_ = h.w.Sleep(ctx, forgetPause)
	}
}

func (h *house) read(ctx context.Context, q driver.Query) (driver.Reading, error) {
	call, cancel := h.w.Deadline(ctx, h.o.Lease)
	defer cancel()
	return h.store.Read(call, q)
}
