package pabalnats_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// audited is part of what openVillage makes.
var audited = driver.Topology{
	Topics: []driver.TopicSpec{{Name: "paid"}},
	Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}},
}

// endangering are the findings of an audit that endanger a promise, each a line: severity, promise, what.
func endangering(t *testing.T, b *pabalnats.Broker) (list []string) {
	t.Helper()
	found, err := b.Audit(t.Context(), audited)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Mend == "" {
			t.Errorf("%s: nothing mends it", f.What)
		}
		if f.Severity != driver.Note {
			list = append(list, f.Severity.String()+", "+f.Promise+": "+f.What)
		}
	}
	return list
}

func noted(t *testing.T, b *pabalnats.Broker, what string) bool {
	t.Helper()
	found, err := b.Audit(t.Context(), audited)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Severity == driver.Note && strings.Contains(f.What, what) {
			return true
		}
	}
	return false
}

// What an operator may have set behind Pabal's back is found, each by itself, on a server.
func TestAuditFindsWhatEndangersAPromise(t *testing.T) {
	server := servers.NATS(t, nil)
	b := openVillage(t, server.URL, &pabalnats.Options{Logger: quiet()})
	js := asOperator(t, server.URL)
	if found := endangering(t, b); len(found) > 0 {
		t.Fatalf("all is well: %q", found)
	}
	const unseen = "when messages are synced to disk cannot be seen from here: a power cut loses what is newer"
	if !noted(t, b, unseen) {
		t.Errorf("no note says %q", unseen)
	}
	s, err := js.Stream(t.Context(), "pabal")
	if err != nil {
		t.Fatal(err)
	}
	stream := s.CachedInfo().Config
	for _, c := range []struct {
		set  func(*jetstream.StreamConfig)
		want string
	}{
		{func(c *jetstream.StreamConfig) { c.NoAck = true }, "broken, P1: stream pabal acknowledges nothing"},
		{func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 100 }, "at risk, P1: stream pabal drops the oldest messages"},
		{func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardOld, 1<<20 }, "at risk, P1: stream pabal drops the oldest messages"},
		{func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgsPerSubject = jetstream.DiscardOld, 9 }, "at risk, P1: stream pabal drops the oldest messages"},
		{func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, "at risk, P1: stream pabal keeps messages for 1h0m0s, not for 336h0m0s"},
		{func(c *jetstream.StreamConfig) { c.MaxAge = 0 }, "at risk, P4: stream pabal keeps messages for ever, not for 336h0m0s"},
		{func(c *jetstream.StreamConfig) { c.MaxAge = 400 * time.Hour }, "at risk, P4: stream pabal keeps messages for 400h0m0s, not for 336h0m0s"},
	} {
		changed := stream
		c.set(&changed)
		if _, err := js.UpdateStream(t.Context(), changed); err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		if found := endangering(t, b); len(found) != 1 || !strings.HasPrefix(found[0], c.want) {
			t.Errorf("want %q, found %q", c.want, found)
		}
		if _, err := js.UpdateStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}

	q, err := s.Consumer(t.Context(), "settlement")
	if err != nil {
		t.Fatal(err)
	}
	queue := q.CachedInfo().Config
	for _, c := range []struct {
		set  func(*jetstream.ConsumerConfig)
		want string
	}{
		{func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, "at risk, P1: queue settlement gives a message up after 5 deliveries"},
		{func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }, "at risk, P1: queue settlement is removed with its messages when nobody reads it for 1h0m0s"},
		{func(c *jetstream.ConsumerConfig) { c.FilterSubjects = []string{"pabal.queue.settlement"} }, "broken, P1: subscription of queue settlement to topic paid is missing"},
	} {
		changed := queue
		c.set(&changed)
		if _, err := s.UpdateConsumer(t.Context(), changed); err != nil {
			t.Fatalf("%s: %v", c.want, err)
		}
		if found := endangering(t, b); len(found) != 1 || !strings.HasPrefix(found[0], c.want) {
			t.Errorf("want %q, found %q", c.want, found)
		}
		if strings.HasPrefix(c.want, "broken") && !noted(t, b, "queue settlement is subscribed to no topic") {
			t.Error("no note says that queue settlement is subscribed to no topic")
		}
		if _, err := s.UpdateConsumer(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
	}
	queue.AckWait = 2 * time.Second
	if _, err := s.UpdateConsumer(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	if !noted(t, b, "queue settlement leaves a message to its receiver for 2s, not for 30s") || len(endangering(t, b)) > 0 {
		t.Error("no note says that the queue's hold is short")
	}
}

// What cannot be changed once it is there, somebody made so.
func TestAuditFindsWhatWasMadeWrong(t *testing.T) {
	server := servers.NATS(t, nil)
	js := asOperator(t, server.URL)
	for name, c := range map[string]struct {
		stream jetstream.StreamConfig
		policy jetstream.AckPolicy
		want   string
	}{
		"memory": {jetstream.StreamConfig{Retention: jetstream.InterestPolicy, Storage: jetstream.MemoryStorage}, jetstream.AckExplicitPolicy,
			"at risk, P1: stream memory keeps messages in memory"},
		"work": {jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}, jetstream.AckExplicitPolicy,
			"broken, P1: stream work has the retention of a work queue"},
		"none": {jetstream.StreamConfig{Retention: jetstream.InterestPolicy}, jetstream.AckNonePolicy,
			"broken, P1: queue settlement counts messages as handled that nobody acknowledged"},
	} {
		c.stream.Name, c.stream.Subjects = name, []string{name + ".topic.>", name + ".queue.>"}
		c.stream.MaxAge, c.stream.Discard = 14*24*time.Hour, jetstream.DiscardNew
		s, err := js.CreateStream(t.Context(), c.stream)
		if err != nil {
			t.Fatal(name, err)
		}
		deliver := jetstream.DeliverNewPolicy
		if c.stream.Retention == jetstream.WorkQueuePolicy {
			deliver = jetstream.DeliverAllPolicy // a work queue takes no other
		}
		wait := 30 * time.Second
		if c.policy == jetstream.AckNonePolicy {
			wait = 0
		}
		_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "settlement", AckPolicy: c.policy, AckWait: wait,
			DeliverPolicy: deliver, FilterSubjects: []string{name + ".queue.settlement", name + ".topic.paid"}})
		if err != nil {
			t.Fatal(name, err)
		}
		b := open(t, server.URL, &pabalnats.Options{Logger: quiet(), Stream: name})
		if err := b.Check(t.Context(), driver.Topology{Topics: audited.Topics}, true); err != nil {
			t.Fatal(name, err)
		}
		if found := endangering(t, b); len(found) != 1 || !strings.HasPrefix(found[0], c.want) {
			t.Errorf("want %q, found %q", c.want, found)
		}
	}
}

// On a cluster one replica is found, three are well.
func TestAuditFindsTheOnlyReplica(t *testing.T) {
	cluster := servers.StartNATSCluster(t, nil)
	if found := endangering(t, openVillage(t, cluster.URL, &pabalnats.Options{Logger: quiet()})); len(found) > 0 {
		t.Errorf("all is well: %q", found)
	}
	found := endangering(t, openVillage(t, cluster.URL, &pabalnats.Options{Logger: quiet(), Stream: "single", Replicas: 1}))
	if len(found) != 2 || !strings.HasPrefix(found[0], "at risk, P1: stream single has 1 replica on a cluster") ||
		!strings.HasPrefix(found[1], "at risk, P1: key-value bucket single-topology has 1 replica") {
		t.Errorf("found %q", found)
	}
}

// In process it is known how messages are synced.
func TestAuditFindsTheRelaxedServer(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		b, err := pabalnats.Open(t.TempDir(), &pabalnats.Options{Logger: quiet(), Relaxed: relaxed})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context(), audited, true); err != nil {
			t.Fatal(err)
		}
		found := endangering(t, b)
		if relaxed != (len(found) == 1 && strings.HasPrefix(found[0], "at risk, P1: messages count as stored before they are synced")) {
			t.Errorf("relaxed %v: found %q", relaxed, found)
		}
		if noted(t, b, "synced") {
			t.Error("a note says that it is not known")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
