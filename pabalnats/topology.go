package pabalnats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
)

// Topology. A consumer's filter subjects can only be replaced as a whole, so two processes that add a topic each would undo
// each other's. What a queue is subscribed to therefore lies in a key-value bucket beside the stream, which knows
// compare-and-set and only grows; filters are written from it, until it has not changed meanwhile.

func (b *Broker) topicSubject(name string) string { return b.o.Stream + ".topic." + name }
func (b *Broker) queueSubject(name string) string { return b.o.Stream + ".queue." + name }
func (b *Broker) bucket() string                  { return b.o.Stream + "-topology" }

// Check implements driver.Broker. In a cluster what was just made, or whose leader went, has no leader for a moment: the
// whole is tried again then, for up to 10 s, and changes nothing that is there.
func (b *Broker) Check(ctx context.Context, t driver.Topology, create bool) error {
	const most, pause = 10 * time.Second, 200 * time.Millisecond
	for end := time.Now().Add(most); ; {
		err := b.check(ctx, t, create)
		if err == nil || !leaderless(err) || ctx.Err() != nil || time.Now().Add(pause).After(end) {
			return b.disconnected(err)
		}
		select {
		case <-ctx.Done():
			return b.disconnected(err)
		case <-time.After(pause):
		}
	}
}

// disconnected says of an error why there is no connection, where that is its cause: it would tell of a wait that ended.
func (b *Broker) disconnected(err error) error {
	if err == nil || b.conn.IsConnected() {
		return err
	}
	if last := b.conn.LastError(); last != nil {
		return fmt.Errorf("not connected to NATS: %w (%w)", last, err)
	}
	return fmt.Errorf("not connected to NATS: %w", err)
}

// leaderless tells the answers of a cluster that chooses a leader: none at all, and JetStream's own "unavailable".
func leaderless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.As(err, &api) && api.Code == 503
}

func (b *Broker) check(ctx context.Context, t driver.Topology, create bool) error {
	stream, err := b.stream(ctx, create)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		missing := append([]string{"stream " + b.o.Stream}, b.missingBucket(t)...)
		for _, q := range t.Queues {
			missing = append(missing, missingQueue(q)...)
		}
		return &driver.MissingError{Missing: missing}
	}
	if err != nil {
		return err
	}
	kv, err := b.js.KeyValue(ctx, b.bucket())
	switch {
	case err == nil:
		err = b.raiseBucket(ctx, create)
	case errors.Is(err, jetstream.ErrBucketNotFound) && create:
		kv, err = b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: b.bucket(), Replicas: b.replicas()})
	}
	var missing []string
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		missing, t.Topics, err = b.missingBucket(t), nil, nil
	}
	if err != nil {
		return fmt.Errorf("open key-value bucket %s: %w", b.bucket(), err)
	}
	for _, topic := range t.Topics {
		if err := b.checkTopic(ctx, kv, topic.Name, create, &missing); err != nil {
			return fmt.Errorf("check topic %s: %w", topic.Name, err)
		}
	}
	var young time.Duration
	for _, q := range t.Queues {
		left, err := b.checkQueue(ctx, kv, stream, q, create, &missing)
		if err != nil {
			return fmt.Errorf("check queue %s: %w", q.Name, err)
		}
		young = max(young, left)
	}
	if len(missing) > 0 {
		return &driver.MissingError{Missing: missing}
	}
	return rest(ctx, young)
}

// rest waits for d.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// missingBucket names the bucket of the topology and the topics that would be written there.
func (b *Broker) missingBucket(t driver.Topology) []string {
	missing := []string{"key-value bucket " + b.bucket()}
	for _, topic := range t.Topics {
		missing = append(missing, "topic "+topic.Name)
	}
	return missing
}

// missingQueue names a queue and its subscriptions.
func missingQueue(q driver.QueueSpec) []string {
	missing := []string{"queue " + q.Name}
	for _, topic := range q.Topics {
		missing = append(missing, missingSubscription(q, topic))
	}
	return missing
}

func missingSubscription(q driver.QueueSpec, topic string) string {
	return fmt.Sprintf("subscription of queue %s to topic %s", q.Name, topic)
}

// stream looks the stream up, or makes it; without create the error of a missing one is ErrStreamNotFound.
func (b *Broker) stream(ctx context.Context, create bool) (jetstream.Stream, error) {
	stream, err := b.js.Stream(ctx, b.o.Stream)
	if err == nil {
		b.atomic.Store(stream.CachedInfo().Config.AllowAtomicPublish && (b.embedded == nil || b.synced()))
		return stream, b.raise(ctx, stream, create)
	}
	if !create || !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("look up stream %s: %w", b.o.Stream, err)
	}
	stream, err = b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: b.o.Stream, Subjects: []string{b.o.Stream + ".topic.>", b.o.Stream + ".queue.>"},
		Retention: jetstream.InterestPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		MaxAge: b.o.Retention, Replicas: b.replicas(), Duplicates: rememberIDs, AllowAtomicPublish: b.synced(),
		Description: "Pabal: a subject for each topic and each queue",
	})
	if err != nil {
		return nil, fmt.Errorf("create stream %s with %d replicas (Options.Replicas): %w", b.o.Stream, b.replicas(), err)
	}
	b.atomic.Store(b.synced())
	return stream, nil
}

// raise gives a stream as many replicas as the options ask for, if it has fewer. The servers copy it, and then its consumers, by
// themselves (nats-server 2.15 takes half a minute), and serve it meanwhile. What was made with more stays so: fewer copies of
// what is acknowledged are an operator's decision.
func (b *Broker) raise(ctx context.Context, stream jetstream.Stream, create bool) error {
	config := stream.CachedInfo().Config
	if !create || config.Replicas >= b.o.Replicas {
		return nil
	}
	was := config.Replicas
	config.Replicas = b.o.Replicas
	if _, err := b.js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("raise the replicas of stream %s from %d to %d (Options.Replicas): %w", config.Name, was, b.o.Replicas, err)
	}
	b.o.Logger.Info("NATS stream gets more replicas", "stream", config.Name, "from", was, "to", b.o.Replicas)
	return nil
}

// raiseBucket does so with the stream of the key-value bucket.
func (b *Broker) raiseBucket(ctx context.Context, create bool) error {
	if !create || b.o.Replicas <= 1 {
		return nil
	}
	stream, err := b.js.Stream(ctx, "KV_"+b.bucket())
	if err != nil {
		return err
	}
	return b.raise(ctx, stream, create)
}

// replicas of what is made; those of queues follow the stream's.
func (b *Broker) replicas() int {
	switch {
	case b.o.Replicas > 0:
		return b.o.Replicas
	case b.conn.ConnectedClusterName() != "":
		return 3
	}
	return 1
}

func (b *Broker) checkTopic(ctx context.Context, kv jetstream.KeyValue, name string, create bool, missing *[]string) error {
	_, err := kv.Get(ctx, "topic."+name)
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if !create {
		*missing = append(*missing, "topic "+name)
		return nil
	}
	_, err = kv.Put(ctx, "topic."+name, []byte("{}"))
	return err
}

// checkQueue says for how long a subscription is still young.
func (b *Broker) checkQueue(
	ctx context.Context, kv jetstream.KeyValue, stream jetstream.Stream, q driver.QueueSpec, create bool, missing *[]string,
) (young time.Duration, err error) {
	if create {
		err = b.subscribeQueue(ctx, kv, stream, q)
	} else {
		err = b.missingOf(ctx, stream, q, missing)
	}
	if err != nil || stream.CachedInfo().Config.Replicas < 2 {
		return 0, err
	}
	return b.young(ctx, kv, stream, q.Name)
}

func (b *Broker) subscribeQueue(ctx context.Context, kv jetstream.KeyValue, stream jetstream.Stream, q driver.QueueSpec) error {
	b.subscribing.Lock() // to read and to change a consumer's filter are two calls
	defer b.subscribing.Unlock()
	for {
		topics, err := b.subscribe(ctx, kv, q)
		if err != nil {
			return err
		}
		if err := b.filter(ctx, kv, stream, q.Name, topics); err != nil {
			return err
		}
		now, _, err := b.subscriptions(ctx, kv, q.Name)
		if err != nil {
			return err
		}
		if slices.Equal(now, topics) {
			return nil
		}
	}
}

// knownAfter is how long every server of a cluster may take to hear of a subscription. Each replica of a stream drops what comes while it
// knows of no queue for it, and says nothing: if it leads one day the message is gone, though it was accepted. There is no way to
// ask them; a server hears of changes with the next heartbeat (1 s in nats-server 2.15, some milliseconds under load).
const knownAfter = 1500 * time.Millisecond

// young is how long a queue's last subscription is still younger than knownAfter, whoever made it, by the servers' clocks.
func (b *Broker) young(ctx context.Context, kv jetstream.KeyValue, stream jetstream.Stream, queue string) (time.Duration, error) {
	changed, err := kv.Get(ctx, "changed."+queue)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := stream.Consumer(ctx, queue)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return 0, nil // it is missing
	}
	if err != nil {
		return 0, err
	}
	return min(knownAfter, max(0, knownAfter-c.CachedInfo().TimeStamp.Sub(changed.Created()))), nil
}

// change does something with a queue's subscriptions, and notes before and after when it was.
func (b *Broker) change(ctx context.Context, kv jetstream.KeyValue, queue string, do func() error) error {
	if _, err := kv.Put(ctx, "changed."+queue, nil); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	_, err := kv.Put(ctx, "changed."+queue, nil)
	return err
}

func (b *Broker) missingOf(ctx context.Context, stream jetstream.Stream, q driver.QueueSpec, missing *[]string) error {
	c, err := stream.Consumer(ctx, q.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		*missing = append(*missing, missingQueue(q)...)
		return nil
	}
	if err != nil {
		return err
	}
	for _, topic := range q.Topics {
		if !slices.Contains(filters(c.CachedInfo().Config), b.topicSubject(topic)) {
			*missing = append(*missing, missingSubscription(q, topic))
		}
	}
	return nil
}

// subscriptions reads what a queue is subscribed to, in order, and the revision of that; 0: nothing yet.
func (b *Broker) subscriptions(ctx context.Context, kv jetstream.KeyValue, queue string) ([]string, uint64, error) {
	entry, err := kv.Get(ctx, "queue."+queue)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var topics []string
	err = json.Unmarshal(entry.Value(), &topics)
	return topics, entry.Revision(), err
}

// subscribe adds the topics of q to what its queue is subscribed to, and returns all of that.
func (b *Broker) subscribe(ctx context.Context, kv jetstream.KeyValue, q driver.QueueSpec) ([]string, error) {
	for {
		topics, revision, err := b.subscriptions(ctx, kv, q.Name)
		if err != nil {
			return nil, err
		}
		all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(topics, q.Topics))))
		if slices.Equal(all, topics) {
			return topics, nil
		}
		value, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		if revision == 0 {
			_, err = kv.Create(ctx, "queue."+q.Name, value)
		} else {
			_, err = kv.Update(ctx, "queue."+q.Name, value, revision)
		}
		if err != nil && !wrongRevision(err) {
			return nil, err
		}
	}
}

func wrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) // of a replicated bucket
}

// filter makes the queue's consumer, or adds what its filter subjects lack and sets its hold. It takes none away: another
// Check may have added a topic since the topics were read, and what is published while a subject is missing is gone.
func (b *Broker) filter(ctx context.Context, kv jetstream.KeyValue, stream jetstream.Stream, queue string, topics []string) error {
	want := []string{b.queueSubject(queue)}
	for _, topic := range topics {
		want = append(want, b.topicSubject(topic))
	}
	c, err := stream.Consumer(ctx, queue)
	if err == nil {
		config := c.CachedInfo().Config
		has := filters(config)
		all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(has, want))))
		if config.AckWait == b.o.Hold && len(all) == len(has) {
			return nil
		}
		config.FilterSubject, config.FilterSubjects, config.AckWait = "", all, b.o.Hold
		return b.change(ctx, kv, queue, func() error {
			_, err := stream.UpdateConsumer(ctx, config)
			return err
		})
	}
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	return b.change(ctx, kv, queue, func() error {
		_, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: queue, FilterSubjects: want, AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.o.Hold, MaxDeliver: -1,
			MaxAckPending: inFlight, DeliverPolicy: jetstream.DeliverNewPolicy,
			Description: "Pabal: queue " + queue,
		})
		return err
	})
}

func filters(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}
