package pabalsns

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// DeadLetters implements driver.Surveyor; SQS counts about. Brought queues are left out: their dead-letter queues are their
// owner's.
func (b *Broker) DeadLetters(ctx context.Context, t driver.Topology) (dead []driver.DeadLetter, err error) {
	for _, spec := range t.Queues {
		if _, brought := b.o.Queues[spec.Name]; brought {
			continue
		}
		messages := 0
		for _, name := range b.deadQueues(spec.Name) {
			url, err := b.findQueue(ctx, name)
			if err != nil {
				return nil, err
			}
			if url == "" {
				continue
			}
			out, err := b.sqsAdmin.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
				QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameApproximateNumberOfMessages},
			})
			if err != nil {
				return nil, fmt.Errorf("count dead letters of queue %s: %w", spec.Name, err)
			}
			q := queueSurvey{attributes: out.Attributes}
			messages += q.number("ApproximateNumberOfMessages")
		}
		if messages > 0 {
			dead = append(dead, driver.DeadLetter{Queue: spec.Name, Messages: messages})
		}
	}
	return dead, nil
}

// deadQueues are the names at AWS of the dead-letter queues that a queue of ours may have.
func (b *Broker) deadQueues(queue string) []string {
	return []string{b.deadQueue(queue, false), b.deadQueue(queue, true)}
}

// Revive implements driver.Surveyor: it moves the messages of a queue's dead-letter queues until these are empty. A message
// is sent before it is deleted: what interrupts that doubles it, which the inbox absorbs, and never loses it.
//
// It does by itself what StartMessageMoveTask does, for that one takes no messages that SNS could not deliver ("limited to
// [...] dead-letter queues of other Amazon SQS queues only" in the API reference).
func (b *Broker) Revive(ctx context.Context, queue string) (moved int, err error) {
	if url, brought := b.o.Queues[queue]; brought {
		return 0, fmt.Errorf("queue %s is %s: its dead letters are its owner's", queue, url)
	}
	to, err := b.queueURL(ctx, queue)
	if err != nil {
		return 0, err
	}
	for _, name := range b.deadQueues(queue) {
		from, err := b.findQueue(ctx, name)
		if err != nil {
			return moved, err
		}
		for from != "" {
			n, more, err := b.moveSome(ctx, from, to)
			moved += n
			if err != nil {
				return moved, fmt.Errorf("bring back dead letters of queue %s: %w", queue, err)
			}
			if !more {
				break
			}
		}
	}
	return moved, nil
}

// moveSome moves up to ten messages; more: there were some.
func (b *Broker) moveSome(ctx context.Context, from, to string) (moved int, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	out, err := b.sqsAdmin.ReceiveMessage(context.WithoutCancel(ctx), &sqs.ReceiveMessageInput{
		QueueUrl: &from, MaxNumberOfMessages: batchEntries, WaitTimeSeconds: 1, VisibilityTimeout: seconds(b.o.Hold),
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameMessageGroupId},
	})
	if err != nil || len(out.Messages) == 0 {
		return 0, false, err
	}
	for i := range out.Messages {
		m := &out.Messages[i]
		in := &sqs.SendMessageInput{QueueUrl: &to, MessageBody: m.Body, MessageAttributes: m.MessageAttributes}
		if isFIFO(to) {
			group := m.Attributes[string(sqstypes.MessageSystemAttributeNameMessageGroupId)]
			if group == "" {
				group = aws.ToString(m.MessageId)
			}
			in.MessageGroupId, in.MessageDeduplicationId = &group, aws.String("redrive-"+aws.ToString(m.MessageId))
		}
		if _, err := b.sqsAdmin.SendMessage(ctx, in); err != nil {
			return moved, false, err
		}
		if _, err := b.sqsAdmin.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &from, ReceiptHandle: m.ReceiptHandle}); err != nil {
			return moved, false, err
		}
		moved++
	}
	return moved, true, nil
}

// RemoveQueue implements driver.Surveyor: it removes a queue of ours and its dead-letter queues, with what lies in them. One
// that is not there is no error; brought ones are refused.
func (b *Broker) RemoveQueue(ctx context.Context, queue string) error {
	if url, brought := b.o.Queues[queue]; brought {
		return fmt.Errorf("queue %s is %s: only its owner removes it", queue, url)
	}
	for _, name := range append([]string{b.queueName(queue)}, b.deadQueues(queue)...) {
		url, err := b.findQueue(ctx, name)
		if err != nil {
			return err
		}
		if url == "" {
			continue
		}
		if _, err := b.sqsAdmin.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil && !noQueue(err) {
			return fmt.Errorf("remove queue %s: %w", name, err)
		}
	}
	b.mu.Lock()
	r := b.readers[queue]
	delete(b.readers, queue)
	delete(b.urls, queue)
	b.mu.Unlock()
	if r != nil {
		r.abandon()
	}
	return nil
}
