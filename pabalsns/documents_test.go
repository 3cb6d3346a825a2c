package pabalsns_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsns"
)

// The printed documents are valid, name everything, and give a role no more than it needs.
func TestPrintedDocuments(t *testing.T) {
	b := open(t, "http://127.0.0.1:1", pabalsns.Options{ // nothing is asked
		Prefix: "acme-", FIFO: true, FIFOQueues: []string{"settlement"}, QueueKey: "alias/acme", Topics: map[string]string{"old": arn("sns", "Old")},
	})
	topology := driver.Topology{
		Topics: []driver.TopicSpec{{Name: "paid", Ordered: true}, {Name: "old"}},
		Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}, {Name: "event-record-order", Topics: []string{"paid", "old"}}},
	}
	var terraform struct {
		Resource map[string]map[string]map[string]any
	}
	var template struct {
		Resources map[string]struct {
			Type       string
			Properties map[string]any
		}
	}
	decode(t, &terraform, func(w *bytes.Buffer) error { return b.Print(w, "terraform", topology) })
	decode(t, &template, func(w *bytes.Buffer) error { return b.Print(w, "cloudformation", topology) })
	r := terraform.Resource
	if len(r["aws_sns_topic"]) != 1 || len(r["aws_sqs_queue"]) != 5 || len(r["aws_sqs_queue_policy"]) != 5 || len(r["aws_sns_topic_subscription"]) != 3 {
		t.Errorf("terraform: %v", r)
	}
	if q := r["aws_sqs_queue"]["settlement-fifo"]; q["name"] != "acme-settlement.fifo" || q["kms_master_key_id"] != "alias/acme" ||
		q["redrive_policy"] != `{"deadLetterTargetArn":"${aws_sqs_queue.settlement-dlq-fifo.arn}","maxReceiveCount":100}` {
		t.Errorf("terraform: queue %v", q)
	}
	types := map[string]int{}
	for id, one := range template.Resources {
		types[one.Type]++
		if strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Errorf("logical id %q", id)
		}
	}
	if types["AWS::SNS::Topic"] != 1 || types["AWS::SQS::Queue"] != 5 || types["AWS::SQS::QueuePolicy"] != 5 || types["AWS::SNS::Subscription"] != 3 {
		t.Errorf("CloudFormation: %v", types)
	}
	for role, want := range map[string]string{"publisher": "sns:Publish", "relay": "sns:Publish", "consumer": "sqs:ReceiveMessage", "operator": "sns:Subscribe"} {
		var policy struct {
			Version   string
			Statement []struct{ Action, Resource []string }
		}
		decode(t, &policy, func(w *bytes.Buffer) error { return b.Print(w, "iam:"+role, topology) })
		found, answers, counts := false, false, false
		for _, s := range policy.Statement {
			found = found || slices.Contains(s.Action, want)
			if slices.Contains(s.Resource, "arn:aws:sqs:us-east-1:*:acme-pabal-verify-*") {
				answers = slices.Contains(s.Action, "sqs:GetQueueUrl") && slices.Contains(s.Action, "sqs:SendMessage") ||
					role == "operator" && slices.Contains(s.Action, "sqs:CreateQueue") && slices.Contains(s.Action, "sqs:DeleteQueue")
				continue // where canaries are answered
			}
			if slices.Contains(s.Resource, "arn:aws:sqs:us-east-1:*:acme-*-dlq") && slices.Contains(s.Resource, "arn:aws:sqs:us-east-1:*:acme-*-dlq.fifo") {
				counts = slices.Equal(s.Action, []string{"sqs:GetQueueUrl", "sqs:GetQueueAttributes"}) // and may do nothing else there
				continue
			}
			record := slices.Contains(s.Resource, "arn:aws:sqs:us-east-1:*:acme-event-record-order")
			if role == "consumer" && record || role == "consumer" && slices.Contains(s.Action, "sns:Publish") ||
				role == "publisher" && slices.Contains(s.Action, "sqs:ReceiveMessage") && !record || slices.Contains(s.Resource, "*") {
				t.Errorf("%s may %v on %v", role, s.Action, s.Resource)
			}
		}
		if !found || !answers || !counts || policy.Version != "2012-10-17" {
			t.Errorf("%s: %v", role, policy)
		}
	}
	for _, format := range b.Formats() {
		decode(t, &struct{}{}, func(w *bytes.Buffer) error { return b.Print(w, format, topology) })
	}
	for _, format := range []string{"iam:king", "iam:", "yaml"} {
		if err := b.Print(&bytes.Buffer{}, format, topology); err == nil {
			t.Errorf("something is printed as %s", format)
		}
	}
}

func decode(t *testing.T, into any, write func(*bytes.Buffer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b.Bytes(), into); err != nil {
		t.Fatalf("%v:\n%s", err, &b)
	}
}
