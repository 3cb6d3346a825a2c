package pabalsns

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/pabal-go/pabal/driver"
)

// The same topology as documents, for companies where a service may not make anything. Here the accounts are known to whoever
// applies them, and nobody races: each queue's policy names the very topics that it is subscribed to. Brought topics and
// queues are left out; subscriptions between a brought and an own one are in.

const iamFormat = "iam:" // and the role

// Formats implements driver.Surveyor.
func (b *Broker) Formats() []string {
	return []string{"terraform", "cloudformation", "iam:publisher", "iam:relay", "iam:consumer", "iam:operator"}
}

// Print implements driver.Surveyor, without asking AWS anything. "terraform" is Terraform's JSON syntax, for a file whose name
// ends in .tf.json; "cloudformation" a template in JSON. "iam:" and a role is an identity policy of the least that the role
// needs with FixedTopology.
func (b *Broker) Print(w io.Writer, format string, t driver.Topology) error {
	switch role, isRole := strings.CutPrefix(format, iamFormat); {
	case format == "terraform":
		return b.terraform(w, t)
	case format == "cloudformation":
		return b.cloudFormation(w, t)
	case isRole:
		return b.iam(w, t, role)
	}
	return fmt.Errorf("format %q: one of %s", format, strings.Join(b.Formats(), ", "))
}

// blueprint is a topology without asking AWS. ARNs of own things have the account "*" unless it is known.
func (b *Broker) blueprint(t driver.Topology) (*survey, error) {
	b.mu.Lock()
	home := b.account
	b.mu.Unlock()
	if home.id == "" {
		home = account{"aws", "*"}
	}
	return b.outline(t, home, true, func(*topicSurvey) error { return nil })
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

func setKey(fields object, name, key string) {
	if key != "" {
		fields[name] = key
	}
}
