package pabalsns

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// survey is what is there of a topology, and what it should be: read once, then compared without further calls.
type survey struct {
	b      *Broker
	home   account
	topics []*topicSurvey
	queues []*queueSurvey
}

type topicSurvey struct {
	name       string
	arn        string // also of one that is not there
	there      bool
	brought    bool
	attributes map[string]string
}

type queueSurvey struct {
	name       string
	awsName    string
	arn        string // also of one that is not there
	url        string // "": it is not there
	brought    bool
	attributes map[string]string
	policy     *policy
	dead       []*queueSurvey        // its dead-letter queues; none of a brought one
	fed        []*subscriptionSurvey // by the topics of the topology
}

type subscriptionSurvey struct {
	topic      *topicSurvey
	arn        string // "": it is not there
	attributes map[string]string
}

func (t *topicSurvey) fifo() bool  { return isFIFO(t.arn) }
func (q *queueSurvey) fifo() bool  { return isFIFO(q.awsName) }
func (q *queueSurvey) there() bool { return q.url != "" }

// redrivePolicy is the attribute RedrivePolicy of a queue or a subscription.
type redrivePolicy struct {
	Target      string  `json:"deadLetterTargetArn"`
	MaxReceives *number `json:"maxReceiveCount,omitempty"`
}

// number is written as a number, and read as that or as a text: SQS answers what was sent.
type number int

func (n *number) UnmarshalJSON(b []byte) error {
	i, err := strconv.Atoi(strings.Trim(string(b), `"`))
	*n = number(i)
	return err
}

func parseRedrive(text string) (p redrivePolicy) {
	_ = json.Unmarshal([]byte(text), &p) // what cannot be read is none
	return p
}

// survey reads a topology. Without dead, dead-letter queues are left out, for a service whose role may not read them.
func (b *Broker) survey(ctx context.Context, t driver.Topology, dead bool) (*survey, error) {
	home, err := b.home(ctx)
	if err != nil {
		return nil, err
	}
	s, err := b.outline(t, home, dead, func(topic *topicSurvey) error {
		arn, attributes, err := b.findTopic(ctx, topic.name)
		if arn != "" {
			topic.arn, topic.attributes, topic.there = arn, attributes, true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, q := range s.queues {
		for _, one := range append([]*queueSurvey{q}, q.dead...) {
			if err := s.read(ctx, one); err != nil {
				return nil, err
			}
		}
	}
	return s, s.subscriptions(ctx)
}

// outline is what a topology should be. find may know that a topic is there, and of the other kind.
func (b *Broker) outline(t driver.Topology, home account, dead bool, find func(*topicSurvey) error) (*survey, error) {
	s := &survey{b: b, home: home}
	for _, spec := range t.Topics {
		topic := &topicSurvey{name: spec.Name, arn: b.o.Topics[spec.Name]}
		if topic.brought = topic.arn != ""; !topic.brought {
			topic.arn = home.arn("sns", b.region, b.atAWS(spec.Name, b.o.FIFO && spec.Ordered))
		}
		if err := find(topic); err != nil {
			return nil, err
		}
		s.topics = append(s.topics, topic)
	}
	for _, spec := range t.Queues {
		url, brought := b.o.Queues[spec.Name]
		q := s.outlineQueue(spec.Name, b.queueName(spec.Name))
		q.url, q.brought = url, brought
		kinds := []bool{q.fifo()} // of dead-letter queues
		for _, name := range spec.Topics {
			topic, err := s.subscribable(q, name)
			if err != nil {
				return nil, err
			}
			q.fed = append(q.fed, &subscriptionSurvey{topic: topic})
			if !slices.Contains(kinds, topic.fifo()) {
				kinds = append(kinds, topic.fifo())
			}
		}
		for _, fifo := range kinds {
			if dead && !brought {
				q.dead = append(q.dead, s.outlineQueue(spec.Name+deadSuffix, b.deadQueue(spec.Name, fifo)))
			}
		}
		s.queues = append(s.queues, q)
	}
	return s, nil
}

func (s *survey) outlineQueue(name, awsName string) *queueSurvey {
	return &queueSurvey{name: name, awsName: awsName, arn: s.home.arn("sqs", s.b.region, awsName), policy: &policy{}}
}

// subscribable answers a topic that a queue can be subscribed to.
func (s *survey) subscribable(q *queueSurvey, name string) (*topicSurvey, error) {
	i := slices.IndexFunc(s.topics, func(t *topicSurvey) bool { return t.name == name })
	if i < 0 {
		return nil, fmt.Errorf("queue %s is subscribed to topic %s, which is not part of the topology", q.name, name)
	}
	if topic := s.topics[i]; !q.fifo() || topic.fifo() {
		return topic, nil
	}
	return nil, fmt.Errorf("queue %s is a FIFO queue and topic %s a standard topic: SNS refuses to subscribe it", q.name, name)
}

// read reads a queue's attributes.
func (s *survey) read(ctx context.Context, q *queueSurvey) (err error) {
	q.policy, _ = parsePolicy("") // of a queue without one
	if !q.brought {
		if q.url, err = s.b.findQueue(ctx, q.awsName); err != nil || q.url == "" {
			return err
		}
	}
	out, err := s.b.sqsAdmin.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &q.url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll},
	})
	if noQueue(err) {
		q.url = "" // deleted, and its name not yet forgotten
		return nil
	}
	if err != nil {
		return fmt.Errorf("read queue %s: %w", q.awsName, err)
	}
	q.attributes = out.Attributes
	if arn := out.Attributes["QueueArn"]; arn != "" {
		q.arn = arn
	}
	if q.policy, err = parsePolicy(out.Attributes["Policy"]); err != nil {
		return fmt.Errorf("queue %s: %w", q.awsName, err)
	}
	return nil
}

// subscriptions finds, topic by topic, which queues are subscribed.
func (s *survey) subscriptions(ctx context.Context) error {
	for _, topic := range s.topics {
		fed := map[string]*subscriptionSurvey{} // by the queue's ARN
		for _, q := range s.queues {
			for _, sub := range q.fed {
				if sub.topic == topic && topic.there && q.there() {
					fed[q.arn] = sub
				}
			}
		}
		pages := sns.NewListSubscriptionsByTopicPaginator(s.b.snsAdmin, &sns.ListSubscriptionsByTopicInput{TopicArn: &topic.arn})
		for found := 0; found < len(fed) && pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return fmt.Errorf("list subscriptions of topic %s: %w", topic.name, err)
			}
			for _, listed := range page.Subscriptions {
				sub := fed[aws.ToString(listed.Endpoint)]
				if sub == nil || aws.ToString(listed.Protocol) != "sqs" || sub.arn != "" {
					continue
				}
				found++
				if err := s.readSubscription(ctx, sub, aws.ToString(listed.SubscriptionArn)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *survey) readSubscription(ctx context.Context, sub *subscriptionSurvey, arn string) error {
	out, err := s.b.snsAdmin.GetSubscriptionAttributes(ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
	if hasCode(err, "NotFound", "NotFoundException") {
		return nil // unsubscribed meanwhile
	}
	if err != nil {
		return fmt.Errorf("read subscription %s: %w", arn, err)
	}
	sub.arn, sub.attributes = arn, out.Attributes
	return nil
}

// filter answers a subscription's filter, or "": a filter makes gaps, which hold ordered keys for ever.
func (sub *subscriptionSurvey) filter() string {
	if f := sub.attributes["FilterPolicy"]; f != "{}" {
		return f
	}
	return ""
}

// deadFor is the dead-letter queue of this kind, or nil.
func (q *queueSurvey) deadFor(fifo bool) *queueSurvey {
	for _, d := range q.dead {
		if d.fifo() == fifo {
			return d
		}
	}
	return nil
}

// number reads an attribute that is a number of seconds or of things.
func (q *queueSurvey) number(attribute string) int {
	n, _ := strconv.Atoi(q.attributes[attribute]) // absent: 0
	return n
}
