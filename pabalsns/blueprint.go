package pabalsns

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/pabal-go/pabal/driver"
)

// The same topology as documents, for companies where a service may not make anything. Here the accounts are known to whoever
// applies them, and nobody races: each queue's policy names the very topics that it is subscribed to. Brought topics and
// queues are left out; subscriptions between a brought and an own one are in.

// blueprint reads a topology without asking AWS. ARNs of own things have the account "*" unless it is known.
func (b *Broker) blueprint(t driver.Topology) (*survey, error) {
	b.mu.Lock()
	home := b.account
	b.mu.Unlock()
	if home.id == "" {
		home = account{"aws", "*"}
	}
	s := &survey{b: b, home: home}
	for _, spec := range t.Topics {
		topic := &topicSurvey{name: spec.Name, arn: b.o.Topics[spec.Name]}
		if topic.brought = topic.arn != ""; !topic.brought {
			topic.arn = home.arn("sns", b.region, b.atAWS(spec.Name, b.o.FIFO && spec.Ordered))
		}
		s.topics = append(s.topics, topic)
	}
	for _, spec := range t.Queues {
		_, brought := b.o.Queues[spec.Name]
		q := &queueSurvey{name: spec.Name, awsName: b.queueName(spec.Name), brought: brought}
		q.arn = home.arn("sqs", b.region, q.awsName)
		kinds := []bool{q.fifo()}
		for _, name := range spec.Topics {
			topic := s.topic(name)
			if err := subscribable(q, topic, name); err != nil {
				return nil, err
			}
			q.fed = append(q.fed, &subscriptionSurvey{topic: topic})
			if !slices.Contains(kinds, topic.fifo()) {
				kinds = append(kinds, topic.fifo())
			}
		}
		for _, fifo := range kinds {
			if !brought {
				d := &queueSurvey{name: spec.Name + deadSuffix, awsName: b.deadQueue(spec.Name, fifo)}
				d.arn = home.arn("sqs", b.region, d.awsName)
				q.dead = append(q.dead, d)
			}
		}
		s.queues = append(s.queues, q)
	}
	return s, nil
}

// document writes indented JSON.
func document(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}

type object = map[string]any

// Terraform writes a topology in Terraform's JSON syntax, for a file whose name ends in .tf.json.
func (b *Broker) Terraform(w io.Writer, t driver.Topology) error {
	s, err := b.blueprint(t)
	if err != nil {
		return err
	}
	topics, queues, policies, allows, subscriptions := object{}, object{}, object{}, object{}, object{}
	topicARN := func(t *topicSurvey) string {
		if t.brought {
			return t.arn
		}
		return "${aws_sns_topic." + t.name + ".arn}"
	}
	label := func(q *queueSurvey) string { // a FIFO queue beside a standard one of the same name
		if q.fifo() {
			return q.name + "-fifo"
		}
		return q.name
	}
	queueARN := func(q *queueSurvey) string {
		if q.brought {
			return q.arn
		}
		return "${aws_sqs_queue." + label(q) + ".arn}"
	}
	for _, t := range s.topics {
		if !t.brought {
			topics[t.name] = fifoFields(object{"name": nameOfARN(t.arn)}, t.fifo(), "fifo_topic", "fifo_throughput_scope", "MessageGroup")
			setKey(topics[t.name], "kms_master_key_id", b.o.TopicKey)
		}
	}
	for _, q := range s.queues {
		for _, one := range append(slices.Clone(q.dead), q) {
			if q.brought {
				continue
			}
			fields := object{"name": one.awsName, "message_retention_seconds": int(b.o.Retention.Seconds()),
				"visibility_timeout_seconds": int(b.o.Hold.Seconds())}
			if one != q {
				fields["message_retention_seconds"] = int(b.o.DeadRetention.Seconds())
			} else {
				n := number(b.o.MaxReceives)
				fields["redrive_policy"] = text(redrivePolicy{queueARN(q.deadFor(q.fifo())), &n})
			}
			if fifoFields(fields, one.fifo(), "fifo_queue", "fifo_throughput_limit", "perMessageGroupId"); one.fifo() {
				fields["deduplication_scope"] = "messageGroup"
			}
			setKey(fields, "kms_master_key_id", b.o.QueueKey)
			queues[label(one)] = fields
			var statements []any
			for i, topic := range q.feeding(one) {
				statements = append(statements, ourStatement(fmt.Sprintf("%s%d", ourTopicSid, i), queueARN(one), topicARN(topic)))
			}
			if len(statements) > 0 {
				policies[label(one)] = object{"queue_url": "${aws_sqs_queue." + label(one) + ".id}",
					"policy": text(object{"Version": "2012-10-17", "Statement": statements})}
			}
		}
		if d := q.deadFor(q.fifo()); d != nil {
			allows[label(d)] = object{"queue_url": "${aws_sqs_queue." + label(d) + ".id}",
				"redrive_allow_policy": text(object{"redrivePermission": "byQueue", "sourceQueueArns": []string{queueARN(q)}})}
		}
		for _, sub := range q.fed {
			fields := object{"topic_arn": topicARN(sub.topic), "protocol": "sqs", "endpoint": queueARN(q), "raw_message_delivery": true}
			if d := q.deadFor(sub.topic.fifo()); d != nil {
				fields["redrive_policy"] = text(redrivePolicy{Target: queueARN(d)})
			}
			subscriptions[sub.topic.name+"--"+q.name] = fields
		}
	}
	resources := object{}
	for name, group := range map[string]object{
		"aws_sns_topic": topics, "aws_sqs_queue": queues, "aws_sqs_queue_policy": policies,
		"aws_sqs_queue_redrive_allow_policy": allows, "aws_sns_topic_subscription": subscriptions,
	} {
		if len(group) > 0 {
			resources[name] = group
		}
	}
	return document(w, object{"resource": resources})
}

// feeding is the topics that may send to a queue, or to one of its dead-letter queues.
func (q *queueSurvey) feeding(one *queueSurvey) (topics []*topicSurvey) {
	for _, sub := range q.fed {
		if one == q || sub.topic.fifo() == one.fifo() {
			topics = append(topics, sub.topic)
		}
	}
	return topics
}

func fifoFields(fields object, fifo bool, flag, scope, value string) object {
	if fifo {
		fields[flag], fields[scope] = true, value
	}
	return fields
}

func setKey(fields any, name, key string) {
	if key != "" {
		fields.(object)[name] = key
	}
}
