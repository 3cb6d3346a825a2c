package pabalsns

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/pabal-go/pabal/driver"
)

// GroupOf and DedupOf are a message's ids at a FIFO topic.
func GroupOf(m driver.Message) string { return groupOf(&m) }

// DedupOf is its deduplication id.
func DedupOf(m driver.Message) string { return dedupOf(&m) }

// ReadOnlyBodies is the client that Open puts around the configured one.
func ReadOnlyBodies(client aws.HTTPClient) aws.HTTPClient { return readOnlyBodies(client) }

// ApplyOld makes a plan, and carries it out once more when it has been carried out.
func (b *Broker) ApplyOld(ctx context.Context, t driver.Topology) error {
	s, err := b.survey(ctx, t, true)
	if err != nil {
		return err
	}
	changes, err := s.plan()
	if err != nil {
		return err
	}
	return errors.Join(b.apply(ctx, changes), b.apply(ctx, changes))
}

// ReceivedAt makes of a delivery one that was received then.
func ReceivedAt(d driver.Delivery, at time.Time) driver.Delivery {
	r := d.Receipt.(receipt)
	r.at = at
	d.Receipt = r
	return d
}
