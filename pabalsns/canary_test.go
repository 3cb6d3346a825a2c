package pabalsns_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/pabalsns"
	"github.com/pabal-go/pabal/topology"
)

// A canary comes back through a queue that nobody reads, whose other messages stay; a running consumer answers; a subscription
// through which nothing comes is found; nothing is left behind.
func TestCanaries(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	o := newOwner(t, url)
	both := driver.Topology{Topics: village.Topics, Queues: append([]driver.QueueSpec{{Name: "notification", Topics: []string{"paid"}}}, village.Queues...)}
	for _, fifo := range []bool{false, true} {
		t.Run(fmt.Sprintf("fifo %v", fifo), func(t *testing.T) {
			options := pabalsns.Options{Prefix: installation(), FIFO: fifo}
			topic := options.Prefix + "paid"
			if fifo {
				topic += ".fifo"
			}
			b := open(t, url, options)
			check(t, b, both)
			send(t, b, 5)
			foreign := messages(`{"specversion":"1.0","id":"0192f5d4-0000-7000-8000-000000000000","source":"pabal-verify","type":"pabal.canary"}`)
			if v := verdicts(b.Publish(t.Context(), settlement, foreign)); v != "accepted" {
				t.Fatal(v)
			}
			if found, err := topology.Verify(t.Context(), b, both, 3*time.Second); err != nil || len(found) > 0 {
				t.Errorf("all is well: %v, %v", found, err)
			}
			receive(t, b, 6)

			consume(t, open(t, url, options), "notification")
			// SNS stops delivering to settlement: no emulator enforces a policy, so its subscription goes.
			o.unsubscribe(topic, "settlement")
			found, err := topology.Verify(t.Context(), b, both, 3*time.Second)
			var all []string
			for _, f := range found {
				all = append(all, f.What)
			}
			const want = "subscription of queue settlement to topic paid is missing\n" +
				"what is published to topic paid does not reach queue settlement: no canary came through"
			if got := strings.Join(all, "\n"); err != nil || got != want {
				t.Errorf("found %s, %v", got, err)
			}
			queues, err := o.sqs.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: aws.String(options.Prefix + "pabal-verify-")})
			if err != nil || len(queues.QueueUrls) > 0 {
				t.Errorf("left behind: %v, %v", queues.QueueUrls, err)
			}
		})
	}
}

// consume runs a service that reads a queue, and whose handler no canary reaches.
func consume(t *testing.T, b driver.Broker, queue string) {
	t.Helper()
	w := world.Real()
	ctx, stop := context.WithCancel(context.Background())
	client, err := pabal.New(ctx, sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct), b, queue,
		&pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	paid := pabal.Define("paid", pabal.Key(func(s string) string { return s }))
	pabal.Handle(client.Consumer(queue, nil), paid, func(context.Context, *sim.Tx, pabal.Received[string]) error {
		t.Error("a canary was handled as an event")
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := client.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// unsubscribe removes the subscription of a queue.
func (o *owner) unsubscribe(topic, queue string) {
	o.t.Helper()
	list, err := o.sns.ListSubscriptionsByTopic(o.t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(arn("sns", topic))})
	o.ok(err)
	for _, sub := range list.Subscriptions {
		if strings.HasSuffix(*sub.Endpoint, queue) {
			_, err := o.sns.Unsubscribe(o.t.Context(), &sns.UnsubscribeInput{SubscriptionArn: sub.SubscriptionArn})
			o.ok(err)
		}
	}
}
