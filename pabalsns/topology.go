package pabalsns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pabal-go/pabal/driver"
)

// Topology: compare, and set what differs. CreateQueue, CreateTopic and Subscribe are idempotent only with equal attributes
// (API references), and a deleted queue's name is blocked for 60 s, so nothing is ever recreated; what others have set is
// only ever widened: a retention raised, a policy's statement added.

// change is one thing that has to be done.
type change struct {
	action    string // "create" or "set"
	resource  string // such as "queue settlement", "subscription of queue settlement to topic order-pay-done"
	attribute string // of "set": its name at AWS
	from, to  string // of "set": its value now, "" where there is none, and then

	foreign bool   // nobody but its owner does it
	missing string // what driver.MissingError says without it; "": messages arrive all the same
	do      func(ctx context.Context) error
}

func (c change) String() string {
	if c.action == "create" {
		return "create " + c.resource
	}
	return fmt.Sprintf("set %s of %s: %s → %s", c.attribute, c.resource, orNone(c.from), c.to)
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

// Plan implements driver.Surveyor, in the order in which things are mended. Brought topics and queues (Options.Topics, Options.Queues)
// must be there already, and stay as they are; subscriptions between them are part of the plan.
func (b *Broker) Plan(ctx context.Context, t driver.Topology) ([]string, error) {
	s, err := b.survey(ctx, t, true)
	if err != nil {
		return nil, err
	}
	changes, err := s.plan()
	if err != nil {
		return nil, err
	}
	return linesOf(changes), nil
}

func linesOf(changes []change) []string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = c.String()
	}
	return lines
}

// apply carries changes out, one by one, up to the first error. What was made meanwhile by somebody else is no error.
func (b *Broker) apply(ctx context.Context, changes []change) error {
	for _, c := range changes {
		if err := c.do(ctx); err != nil && !alreadyThere(err) {
			return fmt.Errorf("%s %s: %w", c.action, c.resource, err)
		}
	}
	return nil
}

// alreadyThere: made by another process with other attributes, which the next comparison will see.
func alreadyThere(err error) bool {
	return hasCode(err, "QueueNameExists", "QueueAlreadyExists", "AWS.SimpleQueueService.QueueNameExists") ||
		hasCode(err, "InvalidParameter", "InvalidParameterException") && strings.Contains(err.Error(), "already exists")
}

// settleRounds bounds how often a check compares again after it has changed something.
const settleRounds = 5

// Check implements driver.Broker. A change without which messages do not arrive is only taken for done when the next
// comparison does not find it any more.
func (b *Broker) Check(ctx context.Context, t driver.Topology, create bool) error {
	for round := 0; ; round++ {
		s, err := b.survey(ctx, t, create)
		if err != nil {
			return b.destinationError(driver.Destination{}, err)
		}
		changes, err := s.plan()
		if err != nil || len(changes) == 0 {
			return err
		}
		if !create {
			return missingOf(changes)
		}
		if missingOf(changes) == nil && round > 0 { // set, and not kept: messages arrive all the same, and Audit tells
			b.warn("topology", "AWS does not keep what was set", "changes", linesOf(changes))
			return nil
		}
		if round == settleRounds {
			return fmt.Errorf("the topology does not settle: somebody else changes it; still to do: %s", strings.Join(linesOf(changes), "; "))
		}
		if err := b.apply(ctx, changes); err != nil {
			return b.destinationError(driver.Destination{}, err)
		}
	}
}

func missingOf(changes []change) error {
	var missing []string
	for _, c := range changes {
		if c.missing != "" {
			missing = append(missing, c.missing)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &driver.MissingError{Missing: missing}
}

// plan is what has to be done; a filter is an error, for nobody but its owner may remove it.
func (s *survey) plan() ([]change, error) {
	for _, q := range s.queues {
		for _, sub := range q.fed {
			if f := sub.filter(); f != "" {
				return nil, fmt.Errorf("%s has the filter policy %s, which holds ordered keys for ever: remove it", subscriptionName(q, sub), f)
			}
		}
	}
	return s.changes()
}

// changes are what differs. Things come before what refers to them.
func (s *survey) changes() (all []change, err error) {
	for _, topic := range s.topics {
		all = append(all, s.topicChanges(topic)...)
	}
	for _, q := range s.queues {
		for _, d := range q.dead {
			changes, err := s.queueChanges(d, q)
			if err != nil {
				return nil, err
			}
			all = append(all, changes...)
		}
		changes, err := s.queueChanges(q, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, changes...)
		for _, sub := range q.fed {
			all = append(all, s.subscriptionChanges(q, sub)...)
		}
	}
	return all, nil
}

func subscriptionName(q *queueSurvey, sub *subscriptionSurvey) string {
	return fmt.Sprintf("subscription of queue %s to topic %s", q.name, sub.topic.name)
}

func (s *survey) topicChanges(t *topicSurvey) []change {
	b, resource := s.b, "topic "+t.name
	key := b.o.TopicKey
	switch {
	case !t.there && t.brought:
		return []change{absent(resource, t.arn)}
	case !t.there:
		return []change{{action: "create", resource: resource, missing: resource, do: func(ctx context.Context) error {
			_, err := b.snsAdmin.CreateTopic(ctx, &sns.CreateTopicInput{
				Name: aws.String(nameOfARN(t.arn)), Attributes: b.topicAttributes(t.fifo()),
			})
			return err
		}}}
	case key != "" && !t.brought && t.attributes["KmsMasterKeyId"] != key:
		return []change{{
			action: "set", resource: resource, attribute: "KmsMasterKeyId", from: t.attributes["KmsMasterKeyId"], to: key,
			do: func(ctx context.Context) error {
				_, err := b.snsAdmin.SetTopicAttributes(ctx, &sns.SetTopicAttributesInput{
					TopicArn: &t.arn, AttributeName: aws.String("KmsMasterKeyId"), AttributeValue: &key,
				})
				return err
			},
		}}
	}
	return nil
}

// absent is a brought thing that is not there: nobody but its owner makes it.
func absent(resource, address string) change {
	c := change{action: "create", resource: resource, foreign: true, missing: resource + " (" + address + ")"}
	c.do = func(context.Context) error {
		return fmt.Errorf("%s is configured and not there: its owner has to make it", address)
	}
	return c
}

// topicAttributes are those of a new topic. FifoThroughputScope MessageGroup is high throughput, which leaves the order of
// a group alone ("High throughput for FIFO topics" in the developer guide).
func (b *Broker) topicAttributes(fifo bool) map[string]string {
	a := map[string]string{}
	if fifo {
		a["FifoTopic"], a["ContentBasedDeduplication"], a["FifoThroughputScope"] = "true", "false", "MessageGroup"
	}
	if b.o.TopicKey != "" {
		a["KmsMasterKeyId"] = b.o.TopicKey
	}
	return a
}

// queueChanges are those of a queue, or of a dead-letter queue of the queue source.
func (s *survey) queueChanges(q, source *queueSurvey) ([]change, error) {
	resource := "queue " + q.name
	if source != nil {
		resource = "dead-letter queue " + q.awsName
	}
	if !q.there() && q.brought {
		return []change{absent(resource, s.b.o.Queues[q.name])}, nil
	}
	want, err := s.queueAttributes(q, source)
	if err != nil {
		return nil, err
	}
	missing := ""
	if source == nil {
		missing = resource
	}
	if !q.there() {
		return []change{{action: "create", resource: resource, missing: missing, do: func(ctx context.Context) error {
			_, err := s.b.sqsAdmin.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &q.awsName, Attributes: want})
			return err
		}}}, nil
	}
	var changes []change
	for _, name := range []string{"KmsMasterKeyId", "MessageRetentionPeriod", "Policy", "RedriveAllowPolicy", "RedrivePolicy"} {
		to, from := want[name], q.attributes[name]
		if to == "" || to == from || q.enough(name, to) || q.brought && name != "Policy" {
			continue
		}
		c := change{action: "set", resource: resource, attribute: name, from: from, to: to}
		c.do = func(ctx context.Context) error {
			_, err := s.b.sqsAdmin.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
				QueueUrl: &q.url, Attributes: map[string]string{name: to},
			})
			return err
		}
		if name == "Policy" && source == nil {
			c.missing = "permission of SNS on " + resource + " (its policy)"
		}
		if q.brought {
			c = absent(c.missing, q.url)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// queueAttributes are those of a new queue, or of a dead-letter queue of the queue source. VisibilityTimeout is only a default
// for other readers: Receive sends its own.
func (s *survey) queueAttributes(q, source *queueSurvey) (map[string]string, error) {
	o := &s.b.o
	a := map[string]string{"MessageRetentionPeriod": wholeSeconds(o.Retention), "VisibilityTimeout": wholeSeconds(o.Hold)}
	fed := q.fed
	if source != nil {
		a["MessageRetentionPeriod"] = wholeSeconds(o.DeadRetention)
		fed = source.fed
		if q.fifo() == source.fifo() {
			a["RedriveAllowPolicy"] = text(map[string]any{"redrivePermission": "byQueue", "sourceQueueArns": []string{source.arn}})
		}
	} else if d := q.deadFor(q.fifo()); d != nil {
		n := number(o.MaxReceives)
		a["RedrivePolicy"] = text(redrivePolicy{d.arn, &n})
	}
	if q.fifo() {
		a["FifoQueue"], a["DeduplicationScope"], a["FifoThroughputLimit"] = "true", "messageGroup", "perMessageGroupId"
	}
	if o.QueueKey != "" {
		a["KmsMasterKeyId"] = o.QueueKey
	}
	var topics []string
	for _, sub := range fed {
		if source == nil || sub.topic.fifo() == q.fifo() {
			topics = append(topics, sub.topic.arn)
		}
	}
	if len(topics) > 0 && slices.ContainsFunc(topics, func(arn string) bool { return !q.policy.allows(q.arn, arn) }) {
		p, err := q.policy.with(q.arn, s.ownTopics(), topics)
		if err != nil {
			return nil, err
		}
		a["Policy"] = p
	}
	return a, nil
}

// ownTopics is the pattern of the installation's topics.
func (s *survey) ownTopics() string { return s.home.arn("sns", s.b.region, s.b.o.Prefix+"*") }

// enough reports whether an attribute, though different, serves: what somebody has set on purpose is left alone.
func (q *queueSurvey) enough(name, want string) bool {
	switch name {
	case "MessageRetentionPeriod":
		n, _ := strconv.Atoi(want) // ours
		return q.number(name) >= n
	case "RedrivePolicy":
		p := parseRedrive(q.attributes[name])
		return p.Target != "" && p.MaxReceives != nil && *p.MaxReceives >= 20
	case "RedriveAllowPolicy":
		var p struct{ RedrivePermission string }
		_ = json.Unmarshal([]byte(q.attributes[name]), &p) // what cannot be read is not enough
		return p.RedrivePermission == "allowAll" || p.RedrivePermission == "byQueue"
	}
	return false
}

func (s *survey) subscriptionChanges(q *queueSurvey, sub *subscriptionSurvey) []change {
	resource := subscriptionName(q, sub)
	want := map[string]string{"RawMessageDelivery": "true"}
	if d := q.deadFor(sub.topic.fifo()); d != nil {
		want["RedrivePolicy"] = text(redrivePolicy{Target: d.arn})
	}
	if sub.arn == "" {
		return []change{{action: "create", resource: resource, missing: resource, do: func(ctx context.Context) error {
			_, err := s.b.snsAdmin.Subscribe(ctx, &sns.SubscribeInput{
				TopicArn: &sub.topic.arn, Protocol: aws.String("sqs"), Endpoint: &q.arn, Attributes: want, ReturnSubscriptionArn: true,
			})
			return err
		}}}
	}
	var changes []change
	for _, name := range []string{"RawMessageDelivery", "RedrivePolicy"} {
		to, from := want[name], sub.attributes[name]
		if to == "" || strings.EqualFold(to, from) || name == "RedrivePolicy" && parseRedrive(from).Target != "" {
			continue
		}
		c := change{action: "set", resource: resource, attribute: name, from: from, to: to}
		if name == "RawMessageDelivery" {
			c.missing = "raw message delivery of the " + resource
		}
		c.do = func(ctx context.Context) error {
			_, err := s.b.snsAdmin.SetSubscriptionAttributes(ctx, &sns.SetSubscriptionAttributesInput{
				SubscriptionArn: &sub.arn, AttributeName: &name, AttributeValue: &to,
			})
			return err
		}
		changes = append(changes, c)
	}
	return changes
}

func wholeSeconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// text is JSON of what always encodes.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(errors.Join(errors.New("pabalsns: a document of its own does not encode"), err))
	}
	return string(b)
}
