package pabalsns_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

// owner is somebody else with access to the account.
type owner struct {
	t   *testing.T
	sns *sns.Client
	sqs *sqs.Client
}

func newOwner(t *testing.T, url string) *owner {
	cfg := configuration(url)
	return &owner{t, sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg)}
}

func (o *owner) ok(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) url(queue string) *string {
	o.t.Helper()
	out, err := o.sqs.GetQueueUrl(o.t.Context(), &sqs.GetQueueUrlInput{QueueName: &queue})
	o.ok(err)
	return out.QueueUrl
}

func (o *owner) attributes(queue string) map[string]string {
	o.t.Helper()
	out, err := o.sqs.GetQueueAttributes(o.t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: o.url(queue), AttributeNames: []sqstypes.QueueAttributeName{"All"},
	})
	o.ok(err)
	return out.Attributes
}

func (o *owner) set(queue, attribute, value string) {
	o.t.Helper()
	_, err := o.sqs.SetQueueAttributes(o.t.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: o.url(queue), Attributes: map[string]string{attribute: value},
	})
	o.ok(err)
}

func arn(service, name string) string {
	return "arn:aws:" + service + ":us-east-1:000000000000:" + name
}

func (o *owner) subscription(topic string) (arnOf string, attributes map[string]string) {
	o.t.Helper()
	list, err := o.sns.ListSubscriptionsByTopic(o.t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(arn("sns", topic))})
	o.ok(err)
	if len(list.Subscriptions) != 1 {
		o.t.Fatalf("topic %s has %d subscriptions", topic, len(list.Subscriptions))
	}
	out, err := o.sns.GetSubscriptionAttributes(o.t.Context(), &sns.GetSubscriptionAttributesInput{
		SubscriptionArn: list.Subscriptions[0].SubscriptionArn,
	})
	o.ok(err)
	return *list.Subscriptions[0].SubscriptionArn, out.Attributes
}

func (o *owner) setSubscription(topic, attribute, value string) {
	o.t.Helper()
	sub, _ := o.subscription(topic)
	_, err := o.sns.SetSubscriptionAttributes(o.t.Context(), &sns.SetSubscriptionAttributesInput{
		SubscriptionArn: &sub, AttributeName: &attribute, AttributeValue: &value,
	})
	o.ok(err)
}

func plan(t *testing.T, b *pabalsns.Broker, topology driver.Topology) string {
	t.Helper()
	lines, err := b.Plan(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// A plan says what will be done, in order; once applied nothing is left to do, and nothing was read to be written again.
func TestPlanAndApply(t *testing.T) {
	proxy := hostile.Start(t, servers.Fauxqs(t, false).URL, 1, hostile.Rates{})
	b, o := open(t, proxy.URL, pabalsns.Options{Prefix: "acme-"}), newOwner(t, proxy.URL)
	const want = `create topic paid
create dead-letter queue acme-settlement-dlq
create queue settlement
create subscription of queue settlement to topic paid`
	if got := plan(t, b, village); got != want {
		t.Fatal(got)
	}
	if err := b.ApplyOld(t.Context(), village); err != nil { // all is there
		t.Fatal(err)
	}
	if got := plan(t, b, village); got != "" {
		t.Error(got)
	}
	q, d := o.attributes("acme-settlement"), o.attributes("acme-settlement-dlq")
	if q["MessageRetentionPeriod"] != "864000" || d["MessageRetentionPeriod"] != "1209600" ||
		q["RedrivePolicy"] != `{"deadLetterTargetArn":"`+arn("sqs", "acme-settlement-dlq")+`","maxReceiveCount":100}` ||
		d["RedriveAllowPolicy"] != `{"redrivePermission":"byQueue","sourceQueueArns":["`+arn("sqs", "acme-settlement")+`"]}` {
		t.Errorf("queue %v, dead-letter queue %v", q, d)
	}
	for _, policy := range []string{q["Policy"], d["Policy"]} {
		for _, part := range []string{`"Service":"sns.amazonaws.com"`, `"sqs:SendMessage"`, `"aws:SourceArn":"` + arn("sns", "acme-*") + `"`} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s is not in the policy %s", part, policy)
			}
		}
	}
	if _, sub := o.subscription("acme-paid"); sub["RawMessageDelivery"] != "true" ||
		sub["RedrivePolicy"] != `{"deadLetterTargetArn":"`+arn("sqs", "acme-settlement-dlq")+`"}` {
		t.Errorf("subscription %v", sub)
	}
	before := proxy.Calls()
	check(t, b, village)
	for action, n := range proxy.Calls() {
		if n != before[action] && !strings.HasPrefix(action, "Get") && !strings.HasPrefix(action, "List") {
			t.Errorf("a check of what is there calls %s", action)
		}
	}
}

// What differs is set, and only that; what others set on purpose is kept.
func TestOnlyWhatDiffersIsSet(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b, o := open(t, url, pabalsns.Options{}), newOwner(t, url)
	check(t, b, village)
	foreign := `{"Sid":"Theirs","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"sqs:*","Resource":"*"}`
	o.set("settlement", "Policy", `{"Version":"2012-10-17","Id":"x","Statement":`+foreign+`}`)
	o.set("settlement", "RedrivePolicy", `{"deadLetterTargetArn":"`+arn("sqs", "theirs")+`","maxReceiveCount":"50"}`)
	o.set("settlement", "VisibilityTimeout", "77")
	o.set("settlement-dlq", "MessageRetentionPeriod", "3600")
	o.setSubscription("paid", "RawMessageDelivery", "false")
	lines := strings.Split(plan(t, b, village), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "set MessageRetentionPeriod of dead-letter queue settlement-dlq: 3600 → 1209600") ||
		!strings.HasPrefix(lines[1], "set Policy of queue settlement: ") ||
		lines[2] != "set RawMessageDelivery of subscription of queue settlement to topic paid: false → true" {
		t.Fatalf("the plan:\n%s", strings.Join(lines, "\n"))
	}
	err := b.Check(t.Context(), village, false)
	var missing *driver.MissingError
	if !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{
		"permission of SNS on queue settlement (its policy)", "raw message delivery of the subscription of queue settlement to topic paid",
	}) {
		t.Errorf("without create: %v", err)
	}
	check(t, b, village)
	got := o.attributes("settlement")
	if !strings.Contains(got["Policy"], foreign) || !strings.Contains(got["Policy"], `"Id":"x"`) || !strings.Contains(got["Policy"], "PabalTopics") {
		t.Errorf("the policy is now %s", got["Policy"])
	}
	if got["VisibilityTimeout"] != "77" || !strings.Contains(got["RedrivePolicy"], "theirs") {
		t.Errorf("what others set is gone: %v", got)
	}
	o.set("settlement", "Policy", strings.Replace(got["Policy"], `"Statement":[`, `"Statement":[{"Effect":"Deny","Principal":"*","Action":"sqs:SendMessage","Resource":"*"},`, 1))
	if err := b.Check(t.Context(), village, true); err == nil || !strings.Contains(err.Error(), "forbids what topic paid sends") {
		t.Errorf("a policy that denies: %v", err)
	}
}

// A filter makes gaps that hold ordered keys for ever: it is an error, with the command that removes it, and is not touched.
func TestFilterIsAnError(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b, o := open(t, url, pabalsns.Options{}), newOwner(t, url)
	check(t, b, village)
	if findings, err := b.Audit(t.Context(), village); err != nil || len(findings) > 0 {
		t.Errorf("all is well: %v, %v", findings, err)
	}
	o.setSubscription("paid", "FilterPolicy", `{"type":["paid"]}`)
	for _, create := range []bool{true, false} {
		if err := b.Check(t.Context(), village, create); err == nil || !strings.Contains(err.Error(), "has the filter policy") {
			t.Errorf("create %v: %v", create, err)
		}
	}
	findings, err := b.Audit(t.Context(), village)
	sub, _ := o.subscription("paid")
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Mend, sub) {
		t.Errorf("%v, %v", findings, err)
	}
}

func TestAuditFindsWhatIsWrong(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b, o := open(t, url, pabalsns.Options{}), newOwner(t, url)
	check(t, b, village)
	o.set("settlement", "KmsMasterKeyId", "alias/aws/sqs")
	o.set("settlement", "RedrivePolicy", `{"deadLetterTargetArn":"`+arn("sqs", "settlement-dlq")+`","maxReceiveCount":3}`)
	o.set("settlement", "MessageRetentionPeriod", "1209600")
	o.set("settlement", "DelaySeconds", "5")
	_, err := o.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: o.url("settlement-dlq"), MessageBody: aws.String("x")})
	o.ok(err)
	findings, err := b.Audit(t.Context(), village)
	o.ok(err)
	var all strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&all, "%s (%s)\n", f.What, f.Mend)
	}
	for _, want := range []string{
		"RedrivePolicy of queue settlement is", "(pabal topology apply --file FILE)", "queue settlement is encrypted with alias/aws/sqs", "queue settlement delays every message by 5s",
		"keeps messages no longer than its queue", "dead-letter queue settlement-dlq holds about 1 messages (pabal topology revive --queue settlement)",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &all)
		}
	}
}

// Existing topics and queues, of any name, are used as they are; what is missing of them is reported and not made.
func TestBroughtTopicsAndQueues(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	o := newOwner(t, url)
	options := pabalsns.Options{
		Topics: map[string]string{"paid": arn("sns", "Legacy_Payments")},
		Queues: map[string]string{"settlement": url + "/000000000000/Legacy_Settlement"},
	}
	b := open(t, url, options)
	err := b.Check(t.Context(), village, true)
	if err == nil || !strings.Contains(err.Error(), "Legacy_Payments is configured and not there") {
		t.Errorf("a topic that is not there: %v", err)
	}
	_, err = o.sns.CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("Legacy_Payments")})
	o.ok(err)
	if err := b.Check(t.Context(), village, true); err == nil || !strings.Contains(err.Error(), "Legacy_Settlement is configured and not there") {
		t.Errorf("a queue that is not there: %v", err)
	}
	_, err = o.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("Legacy_Settlement")})
	o.ok(err)
	if err := b.Check(t.Context(), village, true); err == nil {
		t.Error("a queue whose policy lets nobody in is not reported")
	}
	policy := `{"Statement":[{"Effect":"Allow","Principal":{"Service":["sns.amazonaws.com"]},"Action":"SQS:SendMessage","Resource":"` +
		arn("sqs", "Legacy_Settlement") + `","Condition":{"ArnEquals":{"aws:SourceArn":["` + arn("sns", "Legacy_Payments") + `"]}}}]}`
	o.set("Legacy_Settlement", "Policy", policy)
	check(t, b, village)
	if got := o.attributes("Legacy_Settlement"); got["Policy"] != policy || got["RedrivePolicy"] != "" || got["MessageRetentionPeriod"] != "345600" {
		t.Errorf("the queue was changed: %v", got)
	}
	send(t, b, 3)
	receive(t, b, 3)
	if _, err := b.Revive(t.Context(), "settlement"); err == nil || !strings.Contains(err.Error(), "its owner's") {
		t.Errorf("dead letters of another's queue: %v", err)
	}
	if err := b.RemoveQueue(t.Context(), "settlement"); err == nil || !strings.Contains(err.Error(), "only its owner removes it") {
		t.Errorf("another's queue is removed: %v", err)
	}
	o.url("Legacy_Settlement")
}

// A FIFO queue on a standard topic is refused before SNS does it; a topic of both kinds would part publishers from queues.
func TestFIFOTopologyIsSound(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	b := open(t, url, pabalsns.Options{FIFOQueues: []string{"settlement"}})
	if err := b.Check(t.Context(), village, true); err == nil || !strings.Contains(err.Error(), "SNS refuses to subscribe it") {
		t.Errorf("a FIFO queue on a standard topic: %v", err)
	}
	check(t, open(t, url, pabalsns.Options{}), village)
	fifo := open(t, url, pabalsns.Options{FIFO: true})
	check(t, fifo, village) // made before FIFO: it stays what it is
	o := newOwner(t, url)
	_, err := o.sns.CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("paid.fifo"), Attributes: map[string]string{"FifoTopic": "true"}})
	o.ok(err)
	if err := fifo.Check(t.Context(), village, true); err == nil || !strings.Contains(err.Error(), "is there as a standard and as a FIFO topic") {
		t.Errorf("both kinds: %v", err)
	}
}
