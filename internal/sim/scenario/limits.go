package scenario

import (
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
)

// Brokers that take and give little at a time.

// brokerOptions are those of the run's broker.
func (r *run) brokerOptions() sim.BrokerOptions {
	o := r.c.Broker
	if !r.c.Narrow {
		return o
	}
	o.Limits = driver.Limits{ // Amazon's, but for what is in flight
		Message: 256 << 10, Batch: 10, BatchBytes: 256 << 10, Receive: 10, InFlight: 60,
		Name: 80, Hold: 30 * time.Second, Wait: 5 * time.Second, Redelivery: 4 * 24 * time.Hour,
	}
	switch r.c.Seed / 5 % 3 { // narrower still
	case 1: // two messages, of 1,100 bytes each, as they are counted; they have less than half of that
		o.Limits.Batch, o.Limits.BatchBytes, o.Limits.Receive, o.Limits.InFlight = 0, 2300, 0, 12
	case 2:
		o.Limits.Batch, o.Limits.Receive, o.Limits.InFlight = 3, 2, 4
	}
	return o
}

// fits holds what is published in one call against the broker's limits.
func (b *watchedBroker) fits(messages []driver.Message) {
	l := b.Limits()
	bytes := 0
	for i := range messages {
		bytes += len(messages[i].Body)
		for _, a := range messages[i].Attributes {
			bytes += len(a.Name) + len(a.Value)
		}
	}
	if l.Batch > 0 && len(messages) > l.Batch || l.BatchBytes > 0 && len(messages) > 1 && bytes > l.BatchBytes {
		_ = b.v.r.fail("limits: %s sends %d messages of %d bytes at a time", b.p.name, len(messages), bytes)
	}
}

// asks holds what is asked of a queue against the broker's limits.
func (b *watchedBroker) asks(queue string, limit int) {
	l := b.Limits()
	if l.Receive > 0 && limit > l.Receive {
		_ = b.v.r.fail("limits: %s asks for %d messages", b.p.name, limit)
	}
	if held := b.p.inFlight[queue]; l.InFlight > 0 && held+limit > l.InFlight {
		_ = b.v.r.fail("limits: %s has %d messages of %s and asks for %d", b.p.name, held, queue, limit)
	}
}
