package pabalsns_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
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
		if dead, err := b.DeadLetters(t.Context(), village); err != nil || !slices.Equal(dead, []driver.DeadLetter{{Queue: "settlement", Messages: 12}}) {
			t.Errorf("counted %v, %v", dead, err)
		}
		if moved, err := b.Revive(t.Context(), "settlement"); err != nil || moved != 12 {
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
		if dead, err := b.DeadLetters(t.Context(), village); err != nil || len(dead) > 0 {
			t.Errorf("left %v, %v", dead, err)
		}
	}
}

// A removed queue is gone with its dead-letter queue; what receives from it is let go at once; a second time is no error.
func TestRemovedQueueIsGone(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b, o := open(t, url, pabalsns.Options{Prefix: "acme-", Wait: 20 * time.Second}), newOwner(t, url)
	check(t, b, village)
	moment, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := b.Receive(moment, "settlement", 1) // it leaves a poll of 20 s behind
	o.ok(err)
	for range 2 {
		o.ok(b.RemoveQueue(t.Context(), "settlement"))
	}
	queues, err := o.sqs.ListQueues(t.Context(), &sqs.ListQueuesInput{QueueNamePrefix: aws.String("acme-")})
	if err != nil || len(queues.QueueUrls) > 0 {
		t.Errorf("left behind: %v, %v", queues.QueueUrls, err)
	}
	start := time.Now()
	if err := b.Close(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("closed after %v, %v", time.Since(start), err)
	}
}
