package pabal

import (
	"context"
	"strings"

	"github.com/pabal-go/pabal/driver"
)

// Canaries: `pabal topology verify` publishes one to each topic, and whoever reads a queue that got a copy answers with one
// message to the queue that the canary names. It is the one way to notice a subscription that exists and does not deliver,
// such as one whose queue policy is missing at Amazon SQS. A canary is no event: no inbox sees it.

func (e *envelope) isCanary() bool { return e.Type == driver.CanaryType && !e.foreign }

// answer tells the canary's sender that it has come through a queue. Whoever waits asks again if the answer is lost.
func (h *house) answer(ctx context.Context, canary *envelope, queue string) {
	if !strings.HasPrefix(canary.ReplyTo, driver.ReplyPrefix) || checkName("reply queue", canary.ReplyTo) != nil {
		return
	}
	call, cancel := h.w.Deadline(ctx, h.o.PublishTimeout)
	defer cancel()
	answer := envelope{Event: canary.Event, Source: h.source, SentAt: canary.SentAt, ReplyTo: queue}
	answer.Payload, answer.ContentType = []byte("null"), contentJSON
	m := answer.message(dedup(newID(h.w), 0))
	for _, v := range h.broker.Publish(call, driver.Destination{Queue: canary.ReplyTo}, []driver.Message{m}) {
		if v.Kind != driver.Accepted {
			h.warn(ctx, "canary could not be answered", "queue", queue, "reply_to", canary.ReplyTo, "err", v.Err)
		}
	}
}
