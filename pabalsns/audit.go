package pabalsns

import (
	"context"
	"fmt"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// Audit implements driver.Surveyor: it finds what is missing or differs, filters, keys that SNS may not use, dead-letter
// queues that forget too early, and messages in them. Whether messages really arrive only a canary tells: a key's policy, for
// example, cannot be read from here.
func (b *Broker) Audit(ctx context.Context, t driver.Topology) ([]driver.Finding, error) {
	s, err := b.survey(ctx, t, true)
	if err != nil {
		return nil, err
	}
	var findings []driver.Finding
	changes, err := s.changes()
	if err != nil {
		findings = append(findings, driver.Finding{Promise: "P1", What: err.Error(), Mend: "change that policy by hand"})
	}
	for _, c := range changes {
		f := driver.Finding{Promise: "P1", What: c.resource + " is missing", Mend: "pabal topology apply --file FILE"}
		if c.action == "set" {
			f.What = fmt.Sprintf("%s of %s is %s, not %s", c.attribute, c.resource, orNone(c.from), c.to)
		}
		if c.missing != "" { // messages do not arrive
			f.Severity = driver.Broken
		}
		if c.foreign {
			f.Mend = "its owner has to make it"
		}
		findings = append(findings, f)
	}
	for _, q := range s.queues {
		findings = append(findings, q.findings()...)
	}
	return findings, nil
}

// findings are what a plan does not mend.
func (q *queueSurvey) findings() (list []driver.Finding) {
	add := func(severity driver.Severity, promise, resource, mend, problem string, args ...any) {
		list = append(list, driver.Finding{Severity: severity, Promise: promise, What: resource + " " + fmt.Sprintf(problem, args...), Mend: mend})
	}
	resource := "queue " + q.name
	for _, sub := range q.fed {
		name := subscriptionName(q, sub)
		if f := sub.filter(); f != "" {
			add(driver.Broken, "P1, P5", name, "aws sns set-subscription-attributes --subscription-arn "+sub.arn+
				" --attribute-name FilterPolicy --attribute-value '{}'", "has the filter policy %s: gaps hold ordered keys for ever", f)
		}
		if sub.attributes["PendingConfirmation"] == "true" {
			add(driver.Broken, "P1", name, "its queue's owner confirms it", "is not confirmed")
		}
		if q.brought && sub.arn != "" && parseRedrive(sub.attributes["RedrivePolicy"]).Target == "" {
			add(driver.AtRisk, "P1", name, "give it a RedrivePolicy", "has no dead-letter queue: what SNS cannot deliver is gone")
		}
	}
	if !q.there() {
		return list
	}
	// What the policy of any other key says is not to be seen from here: a canary tells.
	if key := q.attributes["KmsMasterKeyId"]; key == "alias/aws/sqs" {
		add(driver.Broken, "P1", resource, "use a customer key, or SSE-SQS", "is encrypted with %s, whose policy does not let SNS use it", key)
	}
	redrive := parseRedrive(q.attributes["RedrivePolicy"])
	if q.brought && (redrive.Target == "" || redrive.MaxReceives != nil && *redrive.MaxReceives < 20) {
		add(driver.AtRisk, "P1", resource, "give it a RedrivePolicy with a maxReceiveCount of 100",
			"moves messages to a dead-letter queue too early, or never: %s", orNone(q.attributes["RedrivePolicy"]))
	}
	if hold := time.Duration(q.number("DelaySeconds")) * time.Second; hold > 0 {
		add(driver.AtRisk, "P3", resource, "set DelaySeconds to 0", "delays every message by %v", hold)
	}
	for _, d := range q.dead {
		if !d.there() {
			continue
		}
		name := "dead-letter queue " + d.awsName
		if d.number("MessageRetentionPeriod") <= q.number("MessageRetentionPeriod") {
			add(driver.AtRisk, "P1", name, "raise its MessageRetentionPeriod", "keeps messages no longer than its queue, counted from their first queue")
		}
		if n := d.number("ApproximateNumberOfMessages"); n > 0 {
			add(driver.Broken, "P1, P5", name, "pabal topology revive --queue "+q.name, "holds about %d messages", n)
		}
	}
	return list
}
