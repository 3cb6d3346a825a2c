package pabal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What a client tells those who ask whether it can do its work.

// Ready waits until [Client.Run] has the queues of this client's consumers subscribed: what is published from then on reaches
// them. A broker has no copy of what was published before, so a program that takes requests should wait for Ready first. A
// queue that was subscribed before, as the database remembers, counts at once: a broker that is away delays only the first
// start of a service. The record queue is subscribed to a topic before anything is published there.
func (c *Client[X]) Ready(ctx context.Context) error {
	for {
		c.house.mu.Lock()
		ready := c.unready == 0
		c.house.mu.Unlock()
		if ready {
			c.ready.Set() // for the next who waits
			return nil
		}
		c.ready.Wait(ctx, time.Second)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Reachable asks the database and the broker whether they answer until ctx ends: nil, or an error that says which of them does
// not, and why. A database that only reads (a replica, after a failover) counts as one that does not, as does a broker without
// the record queue. It is what an endpoint for readiness tells, not one for liveness: a client that cannot reach them waits, and
// goes on by itself. It changes nothing.
func (c *Client[X]) Reachable(ctx context.Context) error {
	h := c.house
	var carried error
	asked := h.w.NewSignal()
	h.w.Go("reachable-"+h.source, func(world.World) { // both at once: the one that takes all the time says nothing of the other
		queue := driver.Topology{Queues: []driver.QueueSpec{{Name: recordQueue(h.source)}}}
		if carried = h.broker.Check(ctx, queue, false); carried != nil {
			carried = fmt.Errorf("broker: %w", carried)
		}
		asked.Set()
	})
	reading, stored := h.store.Read(ctx, driver.Query{})
	if stored == nil && reading.ReadOnly {
		stored = errors.New("it only reads; is it a replica?")
	}
	if stored != nil {
		stored = fmt.Errorf("database: %w", stored)
	}
	asked.Wait(context.WithoutCancel(ctx), -1)
	return errors.Join(stored, carried)
}

// subscribed is called by each consumer whose queue is there.
func (c *Client[X]) subscribed() {
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	if c.unready--; c.unready == 0 {
		c.ready.Set()
	}
}
