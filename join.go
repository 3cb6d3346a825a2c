package pabal

import (
	"context"
	"fmt"
	"slices"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Joining: since when a consumer can expect to be told. Rule 4 of the inbox asks (place.go).

// subscribed notes, once in a consumer's life, since when its queue is known to be subscribed to each topic: what was recorded
// later must come, however long it takes (ADR 2). It is false when ctx ended before.
func (c *Consumer[X]) subscribed(ctx context.Context, since world.Mono) bool {
	for pause := retryFirst; ctx.Err() == nil; pause = min(2*pause, retryMost) {
		err := c.noteSubscribed(ctx, since)
		if err == nil {
			return true
		}
		c.house.warn(ctx, "database is away, trying again", "consumer", c.name, "err", err)
		_ = c.house.w.Sleep(ctx, pause)
	}
	return false
}

// remembered is whether the queue was subscribed to every topic before, in the life of another process.
func (c *Consumer[X]) remembered(ctx context.Context) bool {
	call, cancel := c.house.w.Deadline(ctx, c.house.o.Lease)
	defer cancel()
	r, err := c.inbox.Read(call, driver.InboxQuery{Consumer: c.name, Memories: true})
	if err != nil {
		return false // it is made sure of, then
	}
	for _, topic := range c.topics {
		if !slices.ContainsFunc(r.Memories, func(m driver.Memory) bool { return m.Source == "" && m.Topic == topic.Name }) {
			return false
		}
	}
	return true
}

func (c *Consumer[X]) noteSubscribed(ctx context.Context, since world.Mono) error {
	call, cancel := c.house.w.Deadline(ctx, c.house.o.Lease)
	defer cancel()
	r, err := c.inbox.Read(call, driver.InboxQuery{Consumer: c.name, Memories: true})
	if err != nil {
		return fmt.Errorf("read memories: %w", err)
	}
	for _, topic := range c.topics {
		at := r.Now.Add(-c.house.w.Now().Sub(since)) // the database may have been away for long
		for _, m := range r.Memories {
			if m.Source == "" && m.Topic == topic.Name {
				at = m.JoinedAt
			}
		}
		if err := c.noteJoin(call, driver.Join{Topic: topic.Name, SentAt: at}); err != nil {
			return err
		}
	}
	return nil
}

// join notes, before anything is placed, that a source's topic is seen for the first time, or from earlier on.
func (c *Consumer[X]) join(ctx context.Context, group []*arrival) error {
	for _, a := range group {
		if a.row.Position == 0 || a.delivery == nil {
			continue
		}
		c.house.mu.Lock()
		joined, known := c.joined[a.row.Source+"/"+a.row.Topic]
		subscribed, also := c.joined["/"+a.row.Topic]
		c.house.mu.Unlock()
		if known && !a.row.SentAt.Before(joined) {
			continue
		}
		at := a.row.SentAt
		if also && subscribed.Before(at) {
			at = subscribed
		}
		if err := c.noteJoin(ctx, driver.Join{Source: a.row.Source, Topic: a.row.Topic, SentAt: at}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumer[X]) noteJoin(ctx context.Context, j driver.Join) error {
	if _, err := c.inbox.Tend(ctx, driver.InboxChore{Consumer: c.name, Join: &j}); err != nil {
		return fmt.Errorf("join %s/%s: %w", j.Source, j.Topic, err)
	}
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	c.joined[j.Source+"/"+j.Topic] = j.SentAt
	return nil
}
