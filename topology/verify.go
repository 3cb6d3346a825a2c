// Package topology proves that what is published to a topic reaches the queues that are subscribed to it. A subscription may
// exist and deliver nothing: its queue's policy refuses, its filter drops, its key cannot be used. No attribute shows all of
// that; a message that has come through does.
package topology

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

const (
	receiveMost = 100
	lookedAtMax = 10_000 // messages of a queue that nobody reads
)

// Verify publishes a canary to each topic of t and waits until it has come through every queue that t subscribes to it: a
// running consumer, or confirmer, answers with one message to a temporary queue that the canary names; of a queue that
// nobody reads, Verify receives by itself, and gives back what is not its own. It takes at most patience for the answers and
// as long again for the queues without; 30 s is a good patience. A broker that is a driver.Auditor is audited first, and with a
// driver.Surveyor the temporary queue is removed in the end.
//
// Findings say what does not work and what mends it; the error says that it could not be found out.
func Verify(ctx context.Context, b driver.Broker, t driver.Topology, patience time.Duration) (found []driver.Finding, err error) {
	if auditor, ok := b.(driver.Auditor); ok {
		if found, err = auditor.Audit(ctx, t); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		found = slices.DeleteFunc(found, func(f driver.Finding) bool { return f.Severity == driver.Note }) // doctor shows them
	}
	surveyor, _ := b.(driver.Surveyor)
	id := uuid.New()
	v := &verification{broker: b, reply: driver.ReplyPrefix + hex.EncodeToString(id[:6]), topics: map[uuid.UUID]string{}}
	if err := b.Check(ctx, driver.Topology{Queues: []driver.QueueSpec{{Name: v.reply}}}, true); err != nil {
		return found, fmt.Errorf("make the temporary queue %s: %w", v.reply, err)
	}
	if surveyor != nil {
		defer func() {
			whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			if e := surveyor.RemoveQueue(whole, v.reply); e != nil && err == nil {
				err = fmt.Errorf("remove the temporary queue %s: %w", v.reply, e)
			}
		}()
	}
	for _, q := range t.Queues {
		for _, topic := range q.Topics {
			v.owed = append(v.owed, passage{topic, q.Name})
		}
	}
	for _, topic := range t.Topics {
		if refused := v.send(ctx, topic.Name); refused != nil {
			found = append(found, *refused)
		}
	}
	if err := v.listen(ctx, patience); err != nil {
		return found, err
	}
	if err := v.look(ctx, patience); err != nil {
		return found, err
	}
	for _, p := range v.owed {
		found = append(found, driver.Finding{
			Severity: driver.Broken, Promise: "P1",
			What: fmt.Sprintf("what is published to topic %s does not reach queue %s: no canary came through", p.topic, p.queue),
			Mend: "pabal topology plan   # then look at the subscription's filter, the queue's policy and its encryption key",
		})
	}
	return found, nil
}

type verification struct {
	broker driver.Broker
	reply  string
	topics map[uuid.UUID]string // canaries that were accepted
	owed   []passage
}

// passage is a subscription through which a canary shall come.
type passage struct{ topic, queue string }

// canary is what this package writes and reads of a message; package pabal has the whole.
type canary struct {
	SpecVersion string    `json:"specversion"`
	ID          uuid.UUID `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Topic       string    `json:"topic"`
	Time        time.Time `json:"time"`
	SentAt      time.Time `json:"sentat"`
	ReplyTo     string    `json:"replyto"`
}

// send publishes a topic's canary; what the broker refuses is a finding, and owes nothing more.
func (v *verification) send(ctx context.Context, topic string) *driver.Finding {
	now := time.Now().UTC().Truncate(time.Microsecond)
	c := canary{SpecVersion: "1.0", ID: uuid.New(), Source: "pabal-verify", Type: driver.CanaryType, Topic: topic, Time: now, SentAt: now, ReplyTo: v.reply}
	body, err := json.Marshal(c)
	if err != nil {
		return &driver.Finding{What: err.Error()}
	}
	verdicts := v.broker.Publish(ctx, driver.Destination{Topic: topic}, []driver.Message{{
		ID: c.ID, Dedup: c.ID.String() + "/0", Group: "pabal-canary", Body: body,
		Attributes: []driver.Attribute{{Name: "id", Value: c.ID.String()}, {Name: "source", Value: c.Source}, {Name: "type", Value: c.Type}},
	}})
	if verdicts[0].Kind == driver.Accepted {
		v.topics[c.ID] = topic
		return nil
	}
	v.owed = slices.DeleteFunc(v.owed, func(p passage) bool { return p.topic == topic })
	return &driver.Finding{
		Severity: driver.Broken, Promise: "P1",
		What: fmt.Sprintf("topic %s does not accept a canary: %v", topic, verdicts[0].Err), Mend: "pabal topology plan",
	}
}

// settle notes that a topic's canary has come through a queue.
func (v *verification) settle(topic, queue string) {
	v.owed = slices.DeleteFunc(v.owed, func(p passage) bool { return p == passage{topic, queue} })
}

// listen takes in the answers until none is owed or patience is over.
func (v *verification) listen(ctx context.Context, patience time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for len(v.owed) > 0 && wait.Err() == nil {
		deliveries, err := v.broker.Receive(wait, v.reply, receiveMost)
		if err != nil && wait.Err() == nil {
			return fmt.Errorf("receive answers: %w", err)
		}
		for i := range deliveries {
			var answer canary
			if json.Unmarshal(deliveries[i].Body, &answer) != nil {
				continue // not ours
			}
			if topic, ours := v.topics[answer.ID]; ours {
				v.settle(topic, answer.ReplyTo)
			}
		}
		if len(deliveries) > 0 {
			_ = v.broker.Ack(ctx, v.reply, deliveries) // the queue goes anyway
		}
	}
	return ctx.Err()
}

// look receives from the queues that owe an answer, each until its canaries are found or patience is over.
func (v *verification) look(ctx context.Context, patience time.Duration) error {
	var queues []string
	for _, p := range v.owed {
		if !slices.Contains(queues, p.queue) {
			queues = append(queues, p.queue)
		}
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, queue := range queues {
		if err := v.lookInto(ctx, wait, queue); err != nil {
			return fmt.Errorf("look into queue %s: %w", queue, err)
		}
	}
	return ctx.Err()
}

func (v *verification) lookInto(ctx, wait context.Context, queue string) error {
	var others []driver.Delivery
	defer func() { // also after an error: they come again by themselves, later
		if len(others) > 0 {
			_, _ = v.broker.Extend(context.WithoutCancel(ctx), queue, others, 0)
		}
	}()
	owes := func() bool { return slices.ContainsFunc(v.owed, func(p passage) bool { return p.queue == queue }) }
	for owes() && wait.Err() == nil && len(others) < lookedAtMax {
		deliveries, err := v.broker.Receive(wait, queue, receiveMost)
		if err != nil && wait.Err() == nil {
			return err
		}
		for i := range deliveries {
			var c canary
			topic, ours := "", false
			if json.Unmarshal(deliveries[i].Body, &c) == nil {
				topic, ours = v.topics[c.ID]
			}
			if !ours {
				others = append(others, deliveries[i])
				continue
			}
			v.settle(topic, queue)
			if err := v.broker.Ack(ctx, queue, deliveries[i:i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}
