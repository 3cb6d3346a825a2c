package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsns"
)

const (
	adapterEvents = 4000
	adapterLanes  = 4
	tens          = 10
)

// messageOf is about what the core makes of an event.
var (
	messageBody       = `{"specversion":"1.0","data":{"orderNo":"A0000001","memo":"` + strings.Repeat("x", 400) + `"}}`
	messageAttributes = []driver.Attribute{{Name: "type", Value: "order-pay-done"}, {Name: "source", Value: "order"}}
)

// adapter compares the processor time of this process with pabalsns between it and the server, and with the SDK alone for the
// same calls: events published in tens by four lanes, then four queues emptied in tens and acknowledged.
func (s *snsPart) adapter(ctx context.Context, b *bench) ([]row, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(b.rounds)*snsTime, errLate)
	defer cancel()
	var own, bare, ratio, ownCalls, bareCalls []float64
	measure := func(do func(context.Context, string, *atomic.Int64) error) (cpu, calls float64, err error) {
		runtime.GC()
		var n atomic.Int64
		busy := cpuTime()
		err = do(ctx, s.prefix(), &n)
		return float64((cpuTime() - busy).Microseconds()) / adapterEvents, float64(n.Load()) / adapterEvents, err
	}
	for range b.rounds {
		o, n, err := measure(s.throughAdapter)
		if err != nil {
			return nil, fmt.Errorf("adapter: %w", err)
		}
		own, ownCalls = append(own, o), append(ownCalls, n)
		o, n, err = measure(s.throughSDK)
		if err != nil {
			return nil, fmt.Errorf("SDK alone: %w", err)
		}
		bare, bareCalls = append(bare, o), append(bareCalls, n)
		ratio = append(ratio, own[len(own)-1]/o)
	}
	return []row{
		{"pabalsns: CPU an event, published and taken from four queues", fmt.Sprintf("%s µs, %.3f calls", spread(own, "%.0f"), median(ownCalls)), ""},
		{"the SDK alone with the same calls", fmt.Sprintf("%s µs, %.3f calls", spread(bare, "%.0f"), median(bareCalls)), ""},
		{"ratio of the two", spread(ratio, "%.2f"), "≤ 1.25"},
	}, nil
}

var adapterQueues = []string{"settlement", "notification", "ledger", "event-record-order"}

func (s *snsPart) throughAdapter(ctx context.Context, prefix string, calls *atomic.Int64) error {
	broker, err := pabalsns.Open(awsConfig(s.url, calls),
		&pabalsns.Options{Prefix: prefix, Wait: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	topology := driver.Topology{Topics: []driver.TopicSpec{{Name: "order-pay-done"}}}
	for _, name := range adapterQueues {
		topology.Queues = append(topology.Queues, driver.QueueSpec{Name: name, Topics: []string{"order-pay-done"}})
	}
	if err := broker.Check(ctx, topology, true); err != nil {
		return err
	}
	publish := func(n int) error {
		list := make([]driver.Message, n)
		for i := range list {
			list[i] = driver.Message{ID: uuid.New(), Body: []byte(messageBody), Attributes: messageAttributes}
		}
		for _, v := range broker.Publish(ctx, driver.Destination{Topic: "order-pay-done"}, list) {
			if v.Kind != driver.Accepted {
				return fmt.Errorf("not accepted: %w", v.Err)
			}
		}
		return nil
	}
	take := func(queue int) (int, error) {
		got, err := broker.Receive(ctx, adapterQueues[queue], tens)
		if err == nil {
			err = broker.Ack(ctx, adapterQueues[queue], got)
		}
		return len(got), err
	}
	err = adapterWork(ctx, publish, take)
	return errors.Join(err, broker.Close())
}

func (s *snsPart) throughSDK(ctx context.Context, prefix string, calls *atomic.Int64) error {
	cfg := awsConfig(s.url, calls)
	cfg.HTTPClient = readOnly{cfg.HTTPClient}
	t, err := openBareTopic(ctx, cfg, prefix, adapterQueues...)
	if err != nil {
		return err
	}
	publish := func(n int) error {
		in := &sns.PublishBatchInput{TopicArn: &t.arn}
		for i := range n {
			e := snstypes.PublishBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), Message: aws.String(messageBody),
				MessageAttributes: map[string]snstypes.MessageAttributeValue{}}
			for _, a := range messageAttributes {
				e.MessageAttributes[a.Name] = snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: &a.Value}
			}
			in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries, e)
		}
		_, err := t.sns.PublishBatch(ctx, in)
		return err
	}
	take := func(queue int) (int, error) {
		url := &t.queues[queue]
		got, err := t.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: tens, WaitTimeSeconds: 1,
			MessageAttributeNames:       []string{"All"},
			MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameApproximateReceiveCount}})
		if err != nil || len(got.Messages) == 0 {
			return 0, err
		}
		in := &sqs.DeleteMessageBatchInput{QueueUrl: url}
		for i := range got.Messages {
			in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: got.Messages[i].ReceiptHandle})
		}
		_, err = t.sqs.DeleteMessageBatch(ctx, in)
		return len(got.Messages), err
	}
	return adapterWork(ctx, publish, take)
}

// adapterWork publishes everything, and then empties the queues.
func adapterWork(ctx context.Context, publish func(n int) error, take func(queue int) (int, error)) error {
	errs := make(chan error, adapterLanes+len(adapterQueues))
	var running sync.WaitGroup
	for range adapterLanes {
		running.Go(func() {
			for n := 0; n < adapterEvents/adapterLanes; n += tens {
				if err := publish(tens); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	running.Wait()
	for queue := range adapterQueues {
		running.Go(func() {
			got := 0
			for got < adapterEvents && ctx.Err() == nil {
				n, err := take(queue)
				if err != nil {
					errs <- err
					return
				}
				got += n
			}
			if got != adapterEvents {
				errs <- fmt.Errorf("%d of %d messages came out of queue %s", got, adapterEvents, adapterQueues[queue])
			}
		})
	}
	running.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
