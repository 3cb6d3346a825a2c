package pabalsns

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// DeadLetters answers, for each queue of a topology that is there, about how many messages its dead-letter queues hold.
// Brought queues are left out: their dead-letter queues are their owner's.
func (b *Broker) DeadLetters(ctx context.Context, t driver.Topology) (map[string]int, error) {
	counts := map[string]int{}
	for _, spec := range t.Queues {
		if _, brought := b.o.Queues[spec.Name]; brought {
			continue
		}
		for _, fifo := range []bool{false, true} {
			url, err := b.findQueue(ctx, b.deadQueue(spec.Name, fifo))
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
			counts[spec.Name] += q.number("ApproximateNumberOfMessages")
		}
	}
	return counts, nil
}

// Redrive brings the messages of a queue's dead-letter queues back to it, until these are empty, and answers how many. A
// message is sent before it is deleted: what interrupts that doubles it, which the inbox absorbs, and never loses it.
//
// It does by itself what StartMessageMoveTask does, for that one takes no messages that SNS could not deliver ("limited to
// [...] dead-letter queues of other Amazon SQS queues only" in the API reference).
func (b *Broker) Redrive(ctx context.Context, queue string) (moved int, err error) {
	to, err := b.queueURL(ctx, queue)
	if err != nil {
		return 0, err
	}
	for _, fifo := range []bool{false, true} {
		from, err := b.findQueue(ctx, b.deadQueue(queue, fifo))
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
