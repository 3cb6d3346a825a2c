package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// naiveRun does by hand, with the SDK, what a service does at first: it publishes after its commit, and receives, handles and
// deletes one message after another. A record consumer reads back what was published.
type naiveRun struct {
	prefix, url string
	loops       int // receivers of a queue
	traffic     traffic
}

// bareTopic is a topic and its queues, without Pabal.
type bareTopic struct {
	sns    *sns.Client
	sqs    *sqs.Client
	arn    string
	queues []string // URLs
}

func openBareTopic(ctx context.Context, cfg aws.Config, prefix string, queues ...string) (*bareTopic, error) {
	b := &bareTopic{sns: sns.NewFromConfig(cfg), sqs: sqs.NewFromConfig(cfg)}
	topic, err := b.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String(prefix + "order-pay-done")})
	if err != nil {
		return nil, err
	}
	b.arn = *topic.TopicArn
	for _, name := range queues {
		q, err := b.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(prefix + name)})
		if err != nil {
			return nil, err
		}
		a, err := b.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
			QueueUrl: q.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"},
		})
		if err != nil {
			return nil, err
		}
		_, err = b.sns.Subscribe(ctx, &sns.SubscribeInput{TopicArn: &b.arn, Protocol: aws.String("sqs"),
			Endpoint: aws.String(a.Attributes["QueueArn"]), Attributes: map[string]string{"RawMessageDelivery": "true"}})
		if err != nil {
			return nil, err
		}
		b.queues = append(b.queues, *q.QueueUrl)
	}
	return b, nil
}

func (r naiveRun) do(ctx context.Context) (snsResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, snsTime, errLate)
	defer cancel()
	cfg := awsConfig(r.url, nil)
	cfg.HTTPClient = readOnly{cfg.HTTPClient}
	t, err := openBareTopic(ctx, cfg, r.prefix, append(snsServices[:len(snsServices):len(snsServices)], "record")...)
	if err != nil {
		return snsResult{}, err
	}
	j := newJournal(r.traffic.events, len(t.queues))
	running, stop := context.WithCancel(ctx)
	var receivers sync.WaitGroup
	errs := make(chan error, 1)
	for reader, url := range t.queues {
		for range r.loops {
			receivers.Go(func() {
				if err := t.consume(running, ctx, url, func(n int) { j.handle(reader, n) }); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
		}
	}
	defer receivers.Wait()
	defer stop()
	began := time.Now()
	nothingOwed := func() int { return 0 } // its writers wait for each answer
	if err := r.traffic.run(ctx, nothingOwed, func(n int) error { return t.publish(ctx, j, n) }); err != nil {
		return snsResult{}, err
	}
	err = j.wait(ctx, func() bool { return true })
	result := snsResult{took: time.Since(began)}
	select {
	case err = <-errs:
	default:
	}
	if err == nil {
		result.ms, err = j.latencies(len(snsServices), r.traffic.events)
	}
	return result, err
}

func (t *bareTopic) publish(ctx context.Context, j *journal, n int) error {
	body, err := json.Marshal(paidEvent(n))
	if err != nil {
		return err
	}
	j.commit(n)
	_, err = t.sns.Publish(ctx, &sns.PublishInput{TopicArn: &t.arn, Message: aws.String(string(body))})
	return err
}

// consume handles messages until running ends; whole bounds its calls, for a receive is not cancelled.
func (t *bareTopic) consume(running, whole context.Context, url string, handle func(n int)) error {
	for running.Err() == nil {
		got, err := t.sqs.ReceiveMessage(whole, &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 1, WaitTimeSeconds: 1})
		if err != nil {
			return err
		}
		for i := range got.Messages {
			m := &got.Messages[i]
			var p paid
			if err := json.Unmarshal([]byte(aws.ToString(m.Body)), &p); err != nil {
				return fmt.Errorf("message %s: %w", aws.ToString(m.MessageId), err)
			}
			handle(int(p.Amount))
			if _, err := t.sqs.DeleteMessage(whole, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle}); err != nil {
				return err
			}
		}
	}
	return nil
}
