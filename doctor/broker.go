package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pabal-go/pabal/driver"
)

// topologyOf is what stores need at their broker, as they remember it: each source's topics and record queue, each consumer's
// queue with its subscriptions.
func topologyOf(all []*observation) (t driver.Topology) {
	topic := func(name string, ordered bool) {
		i := slices.IndexFunc(t.Topics, func(s driver.TopicSpec) bool { return s.Name == name })
		if i < 0 {
			i, t.Topics = len(t.Topics), append(t.Topics, driver.TopicSpec{Name: name})
		}
		t.Topics[i].Ordered = t.Topics[i].Ordered || ordered
	}
	queue := func(name, of string) {
		i := slices.IndexFunc(t.Queues, func(q driver.QueueSpec) bool { return q.Name == name })
		if i < 0 {
			i, t.Queues = len(t.Queues), append(t.Queues, driver.QueueSpec{Name: name})
		}
		if of != "" && !slices.Contains(t.Queues[i].Topics, of) {
			t.Queues[i].Topics = append(t.Queues[i].Topics, of)
		}
	}
	for _, o := range all {
		for _, one := range o.topics {
			topic(one.Name, one.Ordered)
			queue("event-record-"+o.source, one.Name)
		}
		for _, c := range o.consumers {
			for _, m := range c.topics {
				topic(m.Topic, false)
				queue(c.name, m.Topic)
			}
		}
	}
	return t
}

// examineBroker compares a broker with what it should be.
func examineBroker(
	ctx context.Context, b driver.Broker, limits driver.Limits, t driver.Topology, all []*observation,
) (found []driver.Finding, err error) {
	if limits.Hold > 0 && limits.Hold < shortHold {
		found = append(found, driver.Finding{Severity: driver.Note,
			What: fmt.Sprintf("a received message is ours for %v only: each longer pause of a process has it delivered once more, which counts "+
				"against the queue's receive limit where it has one", limits.Hold),
			Mend: "?hold=30s in the broker's address # Options.Hold"})
	}
	if auditor, ok := b.(driver.Auditor); ok {
		audited, err := auditor.Audit(ctx, t)
		if err != nil {
			return found, err
		}
		found = append(found, audited...)
	} else {
		var missing *driver.MissingError
		if err := b.Check(ctx, t, false); err != nil && !errors.As(err, &missing) {
			return found, err
		}
		if missing != nil {
			for _, what := range missing.Missing {
				found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P1", What: what + " is missing",
					Mend: "start its service, which makes what it needs # where it may not: pabal topology apply --file FILE"})
			}
		}
	}
	if surveyor, ok := b.(driver.Surveyor); ok {
		return unstored(ctx, surveyor, t, all, found)
	}
	return found, nil
}

// unstored counts the dead letters of queues of which no store tells: a consumer of its source's name, as most have, may never
// have got to store anything. A queue that is not there has none.
func unstored(
	ctx context.Context, s driver.Surveyor, t driver.Topology, all []*observation, found []driver.Finding,
) ([]driver.Finding, error) {
	var rest driver.Topology
	for _, o := range all {
		if o.source != "" && !slices.ContainsFunc(t.Queues, func(q driver.QueueSpec) bool { return q.Name == o.source }) {
			rest.Queues = append(rest.Queues, driver.QueueSpec{Name: o.source})
		}
	}
	dead, err := s.DeadLetters(ctx, rest)
	for _, d := range dead {
		found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P1, P5",
			What: fmt.Sprintf("dead-letter queues of queue %s hold about %d messages", d.Queue, d.Messages),
			Mend: "pabal topology revive --queue " + d.Queue})
	}
	return found, err
}
