package pabalsns

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pabal-go/pabal/driver"
)

// cloudFormation writes a topology as a CloudFormation template in JSON.
func (b *Broker) cloudFormation(w io.Writer, t driver.Topology) error {
	s, err := b.blueprint(t)
	if err != nil {
		return err
	}
	c := &template{resources: object{}, ids: map[string]string{}}
	for _, t := range s.topics {
		if t.brought {
			continue
		}
		p := fifoFields(object{"TopicName": nameOfARN(t.arn)}, t.fifo(), "FifoTopic", "FifoThroughputScope", "MessageGroup")
		setKey(p, "KmsMasterKeyId", b.o.TopicKey)
		c.add("Topic", t.name, "AWS::SNS::Topic", p)
	}
	for _, q := range s.queues {
		for _, one := range append(slices.Clone(q.dead), q) {
			if !q.brought {
				c.queue(b, q, one)
			}
		}
		for _, sub := range q.fed {
			p := object{"TopicArn": c.topicARN(sub.topic), "Protocol": "sqs", "Endpoint": c.queueARN(q), "RawMessageDelivery": true}
			if d := q.deadFor(sub.topic.fifo()); d != nil {
				p["RedrivePolicy"] = object{"deadLetterTargetArn": c.queueARN(d)}
			}
			c.add("Subscription", q.name+"-to-"+sub.topic.name, "AWS::SNS::Subscription", p)
		}
	}
	return document(w, object{"AWSTemplateFormatVersion": "2010-09-09", "Resources": c.resources})
}

// template is a CloudFormation template under way.
type template struct {
	resources object
	ids       map[string]string // logical ids, which are letters and digits only, by kind and name
}

func (c *template) id(kind, name string) string {
	if id := c.ids[kind+name]; id != "" {
		return id
	}
	id := kind
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	for base, n := id, 2; slices.Contains(values(c.ids), id); n++ { // a-b and a_b
		id = fmt.Sprint(base, n)
	}
	c.ids[kind+name] = id
	return id
}

func values(m map[string]string) (list []string) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func (c *template) add(kind, name, resource string, properties any) {
	c.resources[c.id(kind, name)] = object{"Type": resource, "Properties": properties}
}

func (c *template) topicARN(t *topicSurvey) any {
	if t.brought {
		return t.arn
	}
	return object{"Ref": c.id("Topic", t.name)}
}

// queueARN is a reference to a queue that the template makes; to a brought one it is spelled out.
func (c *template) queueARN(q *queueSurvey) any {
	if q.brought {
		return object{"Fn::Sub": "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:" + q.awsName}
	}
	return object{"Fn::GetAtt": []string{c.id("Queue", q.awsName), "Arn"}}
}

// queue adds the queue one, which is q or one of its dead-letter queues, and its policy.
func (c *template) queue(b *Broker, q, one *queueSurvey) {
	p := object{"QueueName": one.awsName, "MessageRetentionPeriod": int(b.o.Retention.Seconds()),
		"VisibilityTimeout": int(b.o.Hold.Seconds())}
	if one == q {
		p["RedrivePolicy"] = object{"deadLetterTargetArn": c.queueARN(q.deadFor(q.fifo())), "maxReceiveCount": b.o.MaxReceives}
	} else {
		p["MessageRetentionPeriod"] = int(b.o.DeadRetention.Seconds())
		if one.fifo() == q.fifo() { // by name: the queue refers to this one, and CloudFormation knows no circles
			p["RedriveAllowPolicy"] = object{"redrivePermission": "byQueue", "sourceQueueArns": []any{
				object{"Fn::Sub": "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:" + q.awsName}}}
		}
	}
	if fifoFields(p, one.fifo(), "FifoQueue", "FifoThroughputLimit", "perMessageGroupId"); one.fifo() {
		p["DeduplicationScope"] = "messageGroup"
	}
	setKey(p, "KmsMasterKeyId", b.o.QueueKey)
	c.add("Queue", one.awsName, "AWS::SQS::Queue", p)
	var statements []any
	for i, topic := range q.feeding(one) {
		s := ourStatement(fmt.Sprintf("%s%d", ourTopicSid, i), "", "")
		s["Resource"] = c.queueARN(one)
		s["Condition"] = object{"ArnLike": object{"aws:SourceArn": c.topicARN(topic)}}
		statements = append(statements, s)
	}
	if len(statements) > 0 {
		c.add("Policy", one.awsName, "AWS::SQS::QueuePolicy", object{"Queues": []any{object{"Ref": c.id("Queue", one.awsName)}},
			"PolicyDocument": object{"Version": "2012-10-17", "Statement": statements}})
	}
}
