package pabalsns

import (
	"fmt"
	"io"
	"slices"

	"github.com/pabal-go/pabal/driver"
)

// terraform writes a topology in Terraform's JSON syntax, for a file whose name ends in .tf.json.
func (b *Broker) terraform(w io.Writer, t driver.Topology) error {
	s, err := b.blueprint(t)
	if err != nil {
		return err
	}
	m := configuration{}
	for _, t := range s.topics {
		if !t.brought {
			fields := fifoFields(object{"name": nameOfARN(t.arn)}, t.fifo(), "fifo_topic", "fifo_throughput_scope", "MessageGroup")
			setKey(fields, "kms_master_key_id", b.o.TopicKey)
			m.add("aws_sns_topic", t.name, fields)
		}
	}
	for _, q := range s.queues {
		for _, one := range append(slices.Clone(q.dead), q) {
			if !q.brought {
				m.queue(b, q, one)
			}
		}
		if d := q.deadFor(q.fifo()); d != nil {
			m.add("aws_sqs_queue_redrive_allow_policy", label(d), object{"queue_url": queueID(d),
				"redrive_allow_policy": text(object{"redrivePermission": "byQueue", "sourceQueueArns": []string{queueARN(q)}})})
		}
		for _, sub := range q.fed {
			fields := object{"topic_arn": topicARN(sub.topic), "protocol": "sqs", "endpoint": queueARN(q), "raw_message_delivery": true}
			if d := q.deadFor(sub.topic.fifo()); d != nil {
				fields["redrive_policy"] = text(redrivePolicy{Target: queueARN(d)})
			}
			m.add("aws_sns_topic_subscription", sub.topic.name+"--"+q.name, fields)
		}
	}
	return document(w, object{"resource": m})
}

// configuration is resources by type and label.
type configuration map[string]object

func (m configuration) add(kind, label string, fields object) {
	if m[kind] == nil {
		m[kind] = object{}
	}
	m[kind][label] = fields
}

// label tells a FIFO queue from a standard one of the same name.
func label(q *queueSurvey) string {
	if q.fifo() {
		return q.name + "-fifo"
	}
	return q.name
}

func queueID(q *queueSurvey) string { return "${aws_sqs_queue." + label(q) + ".id}" }

func queueARN(q *queueSurvey) string {
	if q.brought {
		return q.arn
	}
	return "${aws_sqs_queue." + label(q) + ".arn}"
}

func topicARN(t *topicSurvey) string {
	if t.brought {
		return t.arn
	}
	return "${aws_sns_topic." + t.name + ".arn}"
}

// queue adds the queue one, which is q or one of its dead-letter queues, and its policy.
func (m configuration) queue(b *Broker, q, one *queueSurvey) {
	fields := object{"name": one.awsName, "message_retention_seconds": int(b.o.Retention.Seconds()),
		"visibility_timeout_seconds": int(b.o.Hold.Seconds())}
	if one == q {
		n := number(b.o.MaxReceives)
		fields["redrive_policy"] = text(redrivePolicy{queueARN(q.deadFor(q.fifo())), &n})
	} else {
		fields["message_retention_seconds"] = int(b.o.DeadRetention.Seconds())
	}
	if fifoFields(fields, one.fifo(), "fifo_queue", "fifo_throughput_limit", "perMessageGroupId"); one.fifo() {
		fields["deduplication_scope"] = "messageGroup"
	}
	setKey(fields, "kms_master_key_id", b.o.QueueKey)
	m.add("aws_sqs_queue", label(one), fields)
	var statements []any
	for i, topic := range q.feeding(one) {
		statements = append(statements, ourStatement(fmt.Sprintf("%s%d", ourTopicSid, i), queueARN(one), topicARN(topic)))
	}
	if len(statements) > 0 {
		m.add("aws_sqs_queue_policy", label(one), object{"queue_url": queueID(one),
			"policy": text(object{"Version": "2012-10-17", "Statement": statements})})
	}
}
