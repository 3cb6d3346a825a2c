package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
)

// RunMisbehaving runs every case on brokers that misbehave, from a seed, for callers that do again what failed, as the core does.
// Publish is refused, fails for half of its messages, and, where the broker deduplicates, is carried out late or without an
// answer; messages come fewer at a time, shuffled, and some with a later call; everything stalls. The cases expect what they
// always do. The environment may have another seed (misbehave.SeedVariable).
func RunMisbehaving(t *testing.T, h Harness, seed uint64) {
	chosen := seed
	seed = misbehave.Seed(chosen)
	trouble := misbehave.New(seed, nil)
	plain := h.Open
	h.Open = func(t *testing.T) func(*testing.T) driver.Broker {
		connect := plain(t)
		return func(t *testing.T) driver.Broker { return &patientBroker{misbehave.Broker(connect(t), trouble)} }
	}
	rates := misbehave.Rates{Refused: 0.4, Lost: 0.3, Stalled: 0.1, StallMost: 20 * time.Millisecond}
	publish := misbehave.Rates{Refused: 0.1, HalfFailed: 0.4, Stalled: 0.1, StallMost: 20 * time.Millisecond}
	want := []string{"Check Refused", "Check Lost", "Publish Refused", "Publish HalfFailed", "Receive Refused", "Receive Short",
		"Receive Shuffled", "Receive HeldBack", "Ack HalfFailed", "Extend Refused"}
	if !h.NoDedup {
		publish.Lost, publish.Silent, publish.Late, publish.LateMost = 0.1, 0.1, 0.1, 20*time.Millisecond
		want = append(want, "Publish Lost", "Publish Silent", "Publish Late")
	}
	ack := rates
	ack.HalfFailed = 0.3
	trouble.Set(misbehave.Plan{"": rates, "Publish": publish, "Ack": ack, "Receive": {
		Refused: 0.1, Short: 0.3, Shuffled: 0.3, HeldBack: 0.3, Stalled: 0.1, StallMost: 20 * time.Millisecond,
	}})
	t.Logf("seed %d", seed)
	Run(t, h)
	if done := trouble.Done(); !t.Failed() && seed == chosen { // by another one, what is rarely called may be spared
		for _, fault := range want {
			if done[fault] == 0 {
				t.Errorf("%s never happened: %v", fault, done)
			}
		}
	}
}

// patientBroker does calls again that fail on purpose.
type patientBroker struct{ driver.Broker }

func (b *patientBroker) Check(ctx context.Context, t driver.Topology, create bool) (err error) {
	for err = misbehave.Err; errors.Is(err, misbehave.Err); {
		err = b.Broker.Check(ctx, t, create)
	}
	return err
}

func (b *patientBroker) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	verdicts := make([]driver.Verdict, len(messages))
	for left := messages; ; {
		var failed []driver.Message
		for i, v := range b.Broker.Publish(ctx, to, left) {
			at := placeOf(messages, left[i])
			if verdicts[at] = v; v.Kind == driver.Again && (v.Err == nil || errors.Is(v.Err, misbehave.Err)) {
				failed = append(failed, left[i])
			}
		}
		if left = failed; len(left) == 0 || ctx.Err() != nil {
			return verdicts
		}
	}
}

func placeOf(messages []driver.Message, m driver.Message) int {
	for i := range messages {
		if messages[i].ID == m.ID {
			return i
		}
	}
	panic("a message that was not sent")
}

func (b *patientBroker) Receive(ctx context.Context, queue string, limit int) (got []driver.Delivery, err error) {
	for err = misbehave.Err; errors.Is(err, misbehave.Err); {
		got, err = b.Broker.Receive(ctx, queue, limit)
	}
	return got, err
}

func (b *patientBroker) Ack(ctx context.Context, queue string, deliveries []driver.Delivery) (err error) {
	for err = misbehave.Err; errors.Is(err, misbehave.Err); {
		err = b.Broker.Ack(ctx, queue, deliveries)
	}
	return err
}

func (b *patientBroker) Extend(ctx context.Context, queue string, deliveries []driver.Delivery, d time.Duration) (lost []int, err error) {
	for err = misbehave.Err; errors.Is(err, misbehave.Err); {
		lost, err = b.Broker.Extend(ctx, queue, deliveries, d)
	}
	return lost, err
}
