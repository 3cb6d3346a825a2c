package pabalsns

import (
	"fmt"
	"io"
	"strings"

	"github.com/pabal-go/pabal/driver"
)

// iam writes the least that a role needs, as an identity policy of IAM, with FixedTopology:
//
//   - "publisher": a service that records events, its confirmer and its redeliveries: publishes to all topics, sends to all
//     queues, receives from the queues event-record-…
//   - "relay": `pabal relay`, which does the same for somebody else
//   - "consumer": receives from all other queues
//   - "operator": reads the topology, makes it (`pabal topology apply`), and brings dead letters back
//
// All but the operator answer canaries, which name a queue that `pabal topology verify` makes for a while. All may count the dead
// letters of the installation, for metrics: also beside a queue that there may be one day, or SQS would deny to know it.
//
// Which topics and queues that are is what t lists: give it one service's part. The account is "*" where no call has told
// it yet. With customer keys a publisher also needs kms:GenerateDataKey and kms:Decrypt, a consumer kms:Decrypt.
func (b *Broker) iam(w io.Writer, t driver.Topology, role string) error {
	s, err := b.blueprint(t)
	if err != nil {
		return err
	}
	var topics, queues, records, consumed, dead []string
	for _, t := range s.topics {
		topics = append(topics, t.arn)
	}
	for _, q := range s.queues {
		queues = append(queues, q.arn)
		if strings.HasPrefix(q.name, recordPrefix) {
			records = append(records, q.arn)
		} else {
			consumed = append(consumed, q.arn)
		}
		for _, d := range q.dead {
			dead = append(dead, d.arn)
		}
	}
	var list []any
	allow := func(resources []string, actions ...string) {
		if len(resources) > 0 {
			list = append(list, object{"Effect": "Allow", "Action": actions, "Resource": resources})
		}
	}
	// A subscription's attributes are a permission on its topic ("Actions, resources, and condition keys for Amazon SNS").
	look := []string{"sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic", "sns:GetSubscriptionAttributes"}
	receive := []string{
		"sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility",
	}
	count := []string{
		s.home.arn("sqs", b.region, b.deadQueue("*", false)), s.home.arn("sqs", b.region, b.deadQueue("*", true)),
	}
	answers := []string{s.home.arn("sqs", b.region, b.o.Prefix+driver.ReplyPrefix+"*")}
	switch role {
	case "publisher", "relay":
		allow(topics, append([]string{"sns:Publish"}, look...)...)
		allow(queues, "sqs:GetQueueUrl", "sqs:SendMessage")
		allow(records, receive...)
		allow(answers, "sqs:GetQueueUrl", "sqs:SendMessage")
		allow(count, "sqs:GetQueueUrl", "sqs:GetQueueAttributes")
	case "consumer":
		allow(topics, look...)
		allow(consumed, receive...)
		allow(answers, "sqs:GetQueueUrl", "sqs:SendMessage")
		allow(count, "sqs:GetQueueUrl", "sqs:GetQueueAttributes")
	case "operator":
		allow(topics, append([]string{"sns:CreateTopic", "sns:SetTopicAttributes", "sns:Subscribe",
			"sns:SetSubscriptionAttributes", "sns:Publish"}, look...)...)
		allow(append(queues, dead...), append([]string{"sqs:CreateQueue", "sqs:SetQueueAttributes", "sqs:SendMessage"}, receive...)...)
		allow(answers, append(receive, "sqs:CreateQueue", "sqs:DeleteQueue")...)
		allow(count, "sqs:GetQueueUrl", "sqs:GetQueueAttributes")
	default:
		return fmt.Errorf("IAM role %q: publisher, relay, consumer or operator", role)
	}
	return document(w, object{"Version": "2012-10-17", "Statement": list})
}
