package pabalnats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
)

var _ driver.Auditor = (*Broker)(nil)

// Audit implements driver.Auditor: what Check would make, and what the stream and its consumers are told to do with messages.
// When a server elsewhere syncs its files it tells nobody but its operator.
func (b *Broker) Audit(ctx context.Context, t driver.Topology) (found []driver.Finding, err error) {
	var missing *driver.MissingError
	if err := b.Check(ctx, t, false); err != nil && !errors.As(err, &missing) {
		return nil, err
	}
	if missing != nil {
		for _, what := range missing.Missing {
			found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P1", What: what + " is missing",
				Mend: "start its service, which makes what it needs # where it may not: pabal topology apply --file FILE"})
		}
	}
	stream, err := b.js.Stream(ctx, b.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return found, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", b.o.Stream, err)
	}
	info := stream.CachedInfo()
	found = append(found, auditStream(&info.Config, b.o.Retention)...)
	found = append(found, b.auditReplicas(ctx, info)...)
	for _, q := range t.Queues {
		c, err := stream.Consumer(ctx, q.Name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue // it is among what is missing
		}
		if err != nil {
			return nil, fmt.Errorf("look up queue %s: %w", q.Name, err)
		}
		found = append(found, auditQueue(b.o.Stream, &c.CachedInfo().Config, b.o.Hold)...)
	}
	idle, err := b.auditIdle(ctx, stream)
	if err != nil {
		return nil, err
	}
	return slices.Concat(found, idle, b.auditSync(info.Config.Replicas)), nil
}

// auditStream judges what a stream does with messages that nobody has received yet.
func auditStream(c *jetstream.StreamConfig, retention time.Duration) (found []driver.Finding) {
	edit := func(flag string) string { return "nats stream edit " + c.Name + " " + flag }
	add := func(s driver.Severity, promise, mend, what string, args ...any) {
		found = append(found, driver.Finding{Severity: s, Promise: promise, Mend: mend,
			What: "stream " + c.Name + " " + fmt.Sprintf(what, args...)})
	}
	if c.NoAck {
		add(driver.Broken, "P1", edit("--ack"), "acknowledges nothing: a publish is never known to be stored")
	}
	if c.Storage == jetstream.MemoryStorage {
		add(driver.AtRisk, "P1", "nats stream backup, remove it, and let Pabal make it anew",
			"keeps messages in memory: a restart of its server loses what queues have not received")
	}
	if limited := c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxMsgsPerSubject > 0; limited && c.Discard == jetstream.DiscardOld {
		add(driver.AtRisk, "P1", edit("--discard new"), "drops the oldest messages once it is full, whoever has not received them")
	}
	if c.Retention == jetstream.WorkQueuePolicy {
		add(driver.Broken, "P1", "remove it, and let Pabal make it anew", "has the retention of a work queue: only one queue gets a message")
	}
	switch age := c.MaxAge; {
	case age != 0 && age < retention:
		add(driver.AtRisk, "P1", edit("--max-age "+retention.String()), "keeps messages for %v, not for %v: a service that is away "+
			"longer loses its copies", age, retention)
	case age == 0:
		add(driver.AtRisk, "P4", edit("--max-age "+retention.String()), "keeps messages for ever, not for %v: one may come when its "+
			"consumer no longer remembers whether it handled it, and is parked", retention)
	case age > retention:
		add(driver.AtRisk, "P4", fmt.Sprintf("?retention=%v in the broker's address of every process # Options.Retention", age),
			"keeps messages for %v, not for %v: one may come when its consumer no longer remembers whether it handled it, and is parked",
			age, retention)
	}
	return found
}

// auditQueue judges how a queue's consumer delivers.
func auditQueue(stream string, c *jetstream.ConsumerConfig, hold time.Duration) (found []driver.Finding) {
	edit := func(flag string) string { return fmt.Sprintf("nats consumer edit %s %s %s", stream, c.Durable, flag) }
	add := func(s driver.Severity, promise, mend, what string, args ...any) {
		found = append(found, driver.Finding{Severity: s, Promise: promise, Mend: mend,
			What: "queue " + c.Durable + " " + fmt.Sprintf(what, args...)})
	}
	if c.AckPolicy != jetstream.AckExplicitPolicy {
		add(driver.Broken, "P1", "remove the consumer, and let Pabal make it anew", "counts messages as handled that nobody acknowledged")
	}
	if c.MaxDeliver > 0 {
		add(driver.AtRisk, "P1", edit("--max-deliver=-1"), "gives a message up after %d deliveries, and keeps it nowhere", c.MaxDeliver)
	}
	if c.InactiveThreshold > 0 {
		add(driver.AtRisk, "P1", edit("--inactive-threshold=0s"), "is removed with its messages when nobody reads it for %v", c.InactiveThreshold)
	}
	if c.AckWait < hold {
		add(driver.Note, "", "start its service: it sets what it needs; or "+edit("--wait="+hold.String()),
			"leaves a message to its receiver for %v, not for %v: what is still handled then comes again", c.AckWait, hold)
	}
	return found
}

// auditReplicas: on a cluster, what lies on one node is away, or gone, with that node.
func (b *Broker) auditReplicas(ctx context.Context, info *jetstream.StreamInfo) (found []driver.Finding) {
	if b.conn.ConnectedClusterName() == "" {
		return nil
	}
	few := func(what, stream string, replicas int) {
		if replicas < 3 {
			found = append(found, driver.Finding{Promise: "P1",
				What: fmt.Sprintf("%s has %d replica on a cluster: a node that is lost takes its messages along", what, replicas),
				Mend: "nats stream edit " + stream + " --replicas 3"})
		}
	}
	few("stream "+info.Config.Name, info.Config.Name, info.Config.Replicas)
	if kv, err := b.js.Stream(ctx, "KV_"+b.bucket()); err == nil { // where there is none, Check has told
		few("key-value bucket "+b.bucket(), "KV_"+b.bucket(), kv.CachedInfo().Config.Replicas)
	}
	return found
}

// auditSync tells what a power cut may take.
func (b *Broker) auditSync(replicas int) []driver.Finding {
	const mend = "jetstream { sync_interval: always } # on each server; its default is two minutes"
	switch {
	case b.embedded != nil && b.o.Relaxed:
		return []driver.Finding{{Promise: "P1", What: "messages count as stored before they are synced (Relaxed): a power cut loses the newest",
			Mend: "Options.Relaxed = false"}}
	case b.embedded != nil:
		return nil
	}
	what := "a power cut loses what is newer, unless the server syncs always, which it does not tell"
	if replicas > 1 {
		what = "a power cut of most nodes at once loses what is newer, unless they sync always, which they do not tell"
	}
	return []driver.Finding{{Severity: driver.Note, What: "when messages are synced to disk cannot be seen from here: " + what, Mend: mend}}
}

// auditIdle finds queues that are there and subscribed to nothing, whoever made them.
func (b *Broker) auditIdle(ctx context.Context, stream jetstream.Stream) (found []driver.Finding, err error) {
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		name := c.Config.Durable
		if len(filters(c.Config)) > 1 || strings.HasPrefix(name, driver.ReplyPrefix) || strings.HasPrefix(name, "event-record-") {
			continue // a record queue is subscribed once its source records
		}
		found = append(found, driver.Finding{Severity: driver.Note,
			What: "queue " + name + " is subscribed to no topic: it gets only what is redelivered to it",
			Mend: fmt.Sprintf("start its service; or, if it has none any more: nats consumer rm %s %s", b.o.Stream, name)})
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	slices.SortFunc(found, func(a, b driver.Finding) int { return strings.Compare(a.What, b.What) })
	return found, nil
}
