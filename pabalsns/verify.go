package pabalsns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Finding is something wrong with a topology, and the way to mend it.
type Finding struct {
	Resource string // such as "queue settlement"
	Problem  string
	Mend     string
	Loses    bool // messages are lost, or do not come, while it is so
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s (%s)", f.Resource, f.Problem, f.Mend)
}

// Verify compares a topology with what is there and finds what is missing or differs, filters, keys that SNS may not use, dead-letter
// queues that forget too early, and messages in them. It changes nothing. Whether messages really arrive only
// [Broker.Canary] tells: a key's policy, for example, cannot be read from here.
func (b *Broker) Verify(ctx context.Context, t driver.Topology) ([]Finding, error) {
	s, err := b.survey(ctx, t, true)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	changes, err := s.changes()
	if err != nil {
		findings = append(findings, Finding{"topology", err.Error(), "see the message", true})
	}
	for _, c := range changes {
		f := Finding{c.Resource, "is missing", "pabal topology apply", c.missing != ""}
		if c.Action == "set" {
			f.Problem = fmt.Sprintf("%s is %s, not %s", c.Attribute, orNone(c.From), c.To)
		}
		findings = append(findings, f)
	}
	for _, q := range s.queues {
		findings = append(findings, q.findings()...)
	}
	return findings, nil
}

// findings are what a plan does not mend.
func (q *queueSurvey) findings() (list []Finding) {
	add := func(resource string, loses bool, mend, problem string, args ...any) {
		list = append(list, Finding{resource, fmt.Sprintf(problem, args...), mend, loses})
	}
	resource := "queue " + q.name
	for _, sub := range q.fed {
		name := subscriptionName(q, sub)
		if f := sub.filter(); f != "" {
			add(name, true, "aws sns set-subscription-attributes --subscription-arn "+sub.arn+
				" --attribute-name FilterPolicy --attribute-value '{}'", "has the filter policy %s: gaps hold ordered keys for ever", f)
		}
		if sub.attributes["PendingConfirmation"] == "true" {
			add(name, true, "its queue's owner confirms it", "is not confirmed")
		}
		if q.brought && sub.arn != "" && parseRedrive(sub.attributes["RedrivePolicy"]).Target == "" {
			add(name, false, "give it a RedrivePolicy", "has no dead-letter queue: what SNS cannot deliver is gone")
		}
	}
	if !q.there() {
		return list
	}
	if key := q.attributes["KmsMasterKeyId"]; key == "alias/aws/sqs" {
		add(resource, true, "use a customer key, or SSE-SQS", "is encrypted with %s, whose policy does not let SNS use it", key)
	} else if key != "" {
		add(resource, false, "pabal topology verify sends a canary",
			"is encrypted with %s: its policy must let sns.amazonaws.com do kms:GenerateDataKey* and kms:Decrypt", key)
	}
	redrive := parseRedrive(q.attributes["RedrivePolicy"])
	if q.brought && (redrive.Target == "" || redrive.MaxReceives != nil && *redrive.MaxReceives < 20) {
		add(resource, false, "give it a RedrivePolicy with a maxReceiveCount of 100",
			"moves messages to a dead-letter queue too early, or never: %s", orNone(q.attributes["RedrivePolicy"]))
	}
	if hold := time.Duration(q.number("DelaySeconds")) * time.Second; hold > 0 {
		add(resource, false, "set DelaySeconds to 0", "delays every message by %v", hold)
	}
	for _, d := range q.dead {
		if !d.there() {
			continue
		}
		name := "dead-letter queue " + d.awsName
		if d.number("MessageRetentionPeriod") <= q.number("MessageRetentionPeriod") {
			add(name, false, "raise its MessageRetentionPeriod", "keeps messages no longer than its queue, counted from their first queue")
		}
		if n := d.number("ApproximateNumberOfMessages"); n > 0 {
			add(name, false, "pabal topology redrive "+q.name, "holds about %d messages", n)
		}
	}
	return list
}

func sortFindings(findings []Finding) {
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.String(), b.String()) })
}
