package pabalnats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/pabal-go/pabal/driver"
)

// Atomic batches (NATS architecture decision record 50). A server that syncs always does so for each message, one after the
// other; a batch that is published atomically it syncs once. It keeps such a batch in files of its own until it is whole,
// which costs as much as some fourteen syncs, so small batches are better off without (BenchmarkPublish). A stream without
// allow_atomic is never sent any.

const (
	atomicLeast = 32
	atomicMost  = 1000 // the server's limit, if nobody lowered it
)

// synced tells that the server is ours, and syncs each message before it is accepted.
func (b *Broker) synced() bool { return b.embedded != nil && !b.o.Relaxed }

// publishAtomically publishes messages all together or not at all; the verdict is that of each. It is not done when messages had
// better go one by one: there are few of them, or the server refused the batch, for which one of them may be the reason.
func (b *Broker) publishAtomically(ctx context.Context, subject string, messages []driver.Message) (v driver.Verdict, done bool) {
	if !b.atomic.Load() || len(messages) < atomicLeast || len(messages) > atomicMost {
		return v, false
	}
	batch := make([]*nats.Msg, len(messages))
	for i := range messages {
		var v driver.Verdict
		if batch[i], v = b.message(subject, &messages[i]); batch[i] == nil {
			return v, false
		}
	}
	_, err := jetstreamext.PublishMsgBatch(ctx, b.js, batch, jetstreamext.BatchFlowControl{AckFirst: false})
	var refused *jetstream.APIError
	switch {
	case err == nil:
		return driver.Verdict{Kind: driver.Accepted}, true
	case errors.As(err, &refused), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadHeaderMsg):
		return v, false
	default: // no answer: it may be stored
		return verdictOf(err), true
	}
}
