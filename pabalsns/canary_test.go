package pabalsns_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

// Dead letters are counted, and come back to their queue; also to a FIFO queue.
func TestDeadLettersComeBack(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	o := newOwner(t, url)
	for _, fifo := range []bool{false, true} {
		options, dead := pabalsns.Options{Prefix: installation(), FIFO: fifo}, "settlement-dlq"
		in := &sqs.SendMessageInput{MessageAttributes: map[string]sqstypes.MessageAttributeValue{
			"type": {DataType: aws.String("String"), StringValue: aws.String("paid")},
		}}
		if fifo {
			options.FIFOQueues, dead = []string{"settlement"}, dead+".fifo"
			in.MessageGroupId = aws.String("1")
		}
		b := open(t, url, options)
		check(t, b, village)
		in.QueueUrl = o.url(options.Prefix + dead)
		for i := range 12 {
			in.MessageBody = aws.String(fmt.Sprint(i))
			if fifo {
				in.MessageDeduplicationId = in.MessageBody
			}
			_, err := o.sqs.SendMessage(t.Context(), in)
			o.ok(err)
		}
		if counts, err := b.DeadLetters(t.Context(), village); err != nil || counts["settlement"] != 12 {
			t.Errorf("counted %v, %v", counts, err)
		}
		if moved, err := b.Redrive(t.Context(), "settlement"); err != nil || moved != 12 {
			t.Errorf("brought back %d, %v", moved, err)
		}
		for n := 0; n < 12; {
			got := receive(t, b, 1)
			if a := got[0].Attributes; len(a) != 1 || a[0].Value != "paid" {
				t.Errorf("attributes %v", a)
			}
			o.ok(b.Ack(t.Context(), "settlement", got))
			n += len(got)
		}
		if counts, err := b.DeadLetters(t.Context(), village); err != nil || counts["settlement"] != 0 {
			t.Errorf("left %v, %v", counts, err)
		}
	}
}

// A canary comes back through a queue that nobody reads, whose other messages stay; a running consumer answers; a subscription
// through which nothing comes is found.
func TestCanaries(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b, o := open(t, url, pabalsns.Options{}), newOwner(t, url)
	both := driver.Topology{Topics: village.Topics, Queues: append([]driver.QueueSpec{{Name: "notification", Topics: []string{"paid"}}}, village.Queues...)}
	check(t, b, both)
	send(t, b, 5)
	foreign := messages(fmt.Sprintf(`{"specversion":"1.0","id":"0192f5d4-0000-7000-8000-000000000000","source":"pabal","type":%q}`, pabalsns.CanaryType))
	if v := verdicts(b.Publish(t.Context(), settlement, foreign)); v != "accepted" {
		t.Fatal(v)
	}
	if findings, err := b.Canary(t.Context(), both, 4*time.Second); err != nil || len(findings) > 0 {
		t.Errorf("all is well: %v, %v", findings, err)
	}
	receive(t, b, 6)

	answered := make(chan struct{})
	go func() { // a consumer, which answers
		defer close(answered)
		for {
			got, err := b.Receive(t.Context(), "notification", 10)
			if err != nil {
				t.Error(err)
				return
			}
			for _, d := range got {
				var c map[string]string
				if json.Unmarshal(d.Body, &c) != nil || c["type"] != pabalsns.CanaryType {
					continue
				}
				reply := messages(fmt.Sprintf(`{"specversion":"1.0","id":%q,"type":%q,"source":"notification"}`, c["id"], pabalsns.CanaryReplyType))
				if v := verdicts(b.Publish(t.Context(), driver.Destination{Queue: c["replyqueue"]}, reply)); v != "accepted" {
					t.Error(v)
				}
				if err := b.Ack(t.Context(), "notification", []driver.Delivery{d}); err != nil {
					t.Error(err)
				}
				return
			}
		}
	}()
	// SNS stops delivering to settlement: no emulator enforces a policy, so its subscription is filtered instead.
	list, err := o.sns.ListSubscriptionsByTopic(t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(arn("sns", "paid"))})
	o.ok(err)
	for _, sub := range list.Subscriptions {
		if strings.HasSuffix(*sub.Endpoint, ":settlement") {
			_, err := o.sns.Unsubscribe(t.Context(), &sns.UnsubscribeInput{SubscriptionArn: sub.SubscriptionArn})
			o.ok(err)
		}
	}
	findings, err := b.Canary(t.Context(), both, 4*time.Second)
	<-answered
	if err != nil || len(findings) != 1 || findings[0].Resource != "subscription of queue settlement to topic paid" || !findings[0].Loses {
		t.Errorf("found %v, %v", findings, err)
	}
	queues, err := o.sqs.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: aws.String("canary-")})
	if err != nil || len(queues.QueueUrls) > 0 {
		t.Errorf("left behind: %v, %v", queues.QueueUrls, err)
	}
}
