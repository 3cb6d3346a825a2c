package pabalsns

import (
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

// ReceivedAt makes of a delivery one that was received then.
func ReceivedAt(d driver.Delivery, at time.Time) driver.Delivery {
	r := d.Receipt.(receipt)
	r.at = at
	d.Receipt = r
	return d
}
