package pabalsns

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Canaries. A canary goes to a topic as a CloudEvent of type CanaryType whose extension replyqueue names a queue. Whoever reads a
// subscribed queue acknowledges it, and sends to that queue (driver.Destination.Queue) a CloudEvent of type CanaryReplyType
// with the same id and, as source, the name of the queue that it came through. A queue that nobody reads is looked into.

const (
	// CanaryType is the CloudEvents type of a canary.
	CanaryType = "pabal.canary"
	// CanaryReplyType is the CloudEvents type of what answers a canary.
	CanaryReplyType = "pabal.canary.reply"

	canaryPrefix = "canary-"
	canaryLook   = 100 // messages of a queue that are looked through for a canary, at most
)

// canary is what we read and write of the CloudEvents.
type canary struct {
	SpecVersion string    `json:"specversion"`
	ID          uuid.UUID `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Time        time.Time `json:"time"`
	ReplyQueue  string    `json:"replyqueue,omitempty"`
}

// Canary sends a canary through every subscription of a topology and finds those through which it did not come within wait,
// half of which is for running consumers to answer. It is the one way to notice a queue policy or a key's policy that
// does not let SNS in. It makes a queue of its own, whose name begins with "canary-", and deletes it.
func (b *Broker) Canary(ctx context.Context, t driver.Topology, wait time.Duration) (findings []Finding, err error) {
	reply := canaryPrefix + uuid.NewString()
	out, err := b.sqsAdmin.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: aws.String(b.atAWS(reply, false)), Attributes: map[string]string{"MessageRetentionPeriod": "300"},
	})
	if err != nil {
		return nil, fmt.Errorf("create queue for canaries: %w", err)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		_, _ = b.sqsAdmin.DeleteQueue(clean, &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl}) // an empty queue is no harm
	}()
	owed, findings := b.sendCanaries(ctx, t, reply)
	half, end := time.Now().Add(wait/2), time.Now().Add(wait)
	for len(owed) > 0 && time.Now().Before(half) && ctx.Err() == nil {
		err = b.look(ctx, aws.ToString(out.QueueUrl), func(c canary) bool {
			delete(owed, flight{c.ID, c.Source})
			return c.Type == CanaryReplyType
		})
		if err != nil {
			return findings, err
		}
	}
	for first := true; len(owed) > 0 && (first || time.Now().Before(end)) && ctx.Err() == nil; first = false {
		for _, q := range t.Queues {
			if err := b.lookInto(ctx, q.Name, owed); err != nil {
				return findings, err
			}
		}
	}
	for f, topic := range owed {
		findings = append(findings, Finding{
			fmt.Sprintf("subscription of queue %s to topic %s", f.queue, topic), fmt.Sprintf("a canary did not come within %v", wait),
			"look at the queue's policy, at the key's policy, and whether somebody else reads the queue", true,
		})
	}
	sortFindings(findings)
	return findings, ctx.Err()
}

// flight is a canary on its way through a queue.
type flight struct {
	id    uuid.UUID
	queue string
}

// sendCanaries sends one to each topic, and answers what is owed for it: the topic by canary and queue.
func (b *Broker) sendCanaries(ctx context.Context, t driver.Topology, reply string) (owed map[flight]string, findings []Finding) {
	owed = map[flight]string{}
	for _, topic := range t.Topics {
		c := canary{"1.0", uuid.New(), "pabal", CanaryType, time.Now().UTC(), reply}
		m := driver.Message{
			ID: c.ID, Dedup: c.ID.String(), Body: []byte(text(c)),
			Attributes: []driver.Attribute{{Name: "type", Value: CanaryType}, {Name: "replyqueue", Value: reply}},
		}
		if v := b.Publish(ctx, driver.Destination{Topic: topic.Name}, []driver.Message{m})[0]; v.Kind != driver.Accepted {
			problem := fmt.Sprintf("does not take a canary: %v", v.Err)
			findings = append(findings, Finding{"topic " + topic.Name, problem, "see the message", true})
			continue
		}
		for _, q := range t.Queues {
			for _, name := range q.Topics {
				if name == topic.Name {
					owed[flight{c.ID, q.Name}] = topic.Name
				}
			}
		}
	}
	return owed, findings
}

// lookInto looks for canaries in a queue that nobody answered for.
func (b *Broker) lookInto(ctx context.Context, queue string, owed map[flight]string) error {
	here := false
	for f := range owed {
		here = here || f.queue == queue
	}
	if !here {
		return nil
	}
	url, err := b.queueURL(ctx, queue)
	if err != nil {
		return err
	}
	return b.look(ctx, url, func(c canary) bool {
		_, ours := owed[flight{c.ID, queue}]
		delete(owed, flight{c.ID, queue})
		return ours && c.Type == CanaryType
	})
}

// look receives from a queue, removes what found says yes to, and gives the rest back.
func (b *Broker) look(ctx context.Context, url string, found func(canary) bool) error {
	var rest []string
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		for _, handle := range rest { // or they come again by themselves
			_, _ = b.sqsAdmin.ChangeMessageVisibility(clean, &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: &handle})
		}
	}()
	for len(rest) < canaryLook {
		out, err := b.sqsAdmin.ReceiveMessage(context.WithoutCancel(ctx), &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: batchEntries, WaitTimeSeconds: 1, VisibilityTimeout: 30,
		})
		if err != nil {
			return fmt.Errorf("look for canaries: %w", err)
		}
		if len(out.Messages) == 0 {
			return nil
		}
		for _, m := range out.Messages {
			var c canary
			if json.Unmarshal([]byte(aws.ToString(m.Body)), &c) != nil || !found(c) {
				rest = append(rest, aws.ToString(m.ReceiptHandle))
				continue
			}
			if _, err := b.sqsAdmin.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				return fmt.Errorf("remove canary: %w", err)
			}
		}
	}
	return nil
}
