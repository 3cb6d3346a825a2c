package pabalnats_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// open connects, and closes at the test's end.
func open(t *testing.T, url string, o *pabalnats.Options) *pabalnats.Broker {
	t.Helper()
	b, err := pabalnats.Connect(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func openVillage(t *testing.T, url string, o *pabalnats.Options) *pabalnats.Broker {
	t.Helper()
	b := open(t, url, o)
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	return b
}

// asOperator is JetStream as somebody else sees it.
func asOperator(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestConformanceCluster(t *testing.T) {
	cluster := servers.StartNATSCluster(t, nil)
	brokertest.Run(t, brokertest.Harness{NoLost: true, NoTopics: true, Open: func(*testing.T) func(*testing.T) driver.Broker {
		stream := uuid.NewString() // an installation of the test's own
		return func(t *testing.T) driver.Broker {
			return open(t, cluster.URL, &pabalnats.Options{Stream: stream, Hold: 2 * time.Second})
		}
	}})
}

// On a cluster everything has three replicas by default, or as many as the options say; what is there stays as it is, unless the
// options ask for more.
func TestReplicas(t *testing.T) {
	cluster := servers.StartNATSCluster(t, nil)
	js := asOperator(t, cluster.URL)
	want := func(stream string, n int) {
		t.Helper()
		within(t, time.Minute, fmt.Sprintf("all of %s has %d replicas", stream, n), func() bool {
			for _, name := range []string{stream, "KV_" + stream + "-topology"} {
				s, err := js.Stream(t.Context(), name)
				if err != nil || s.CachedInfo().Config.Replicas != n || s.CachedInfo().Cluster == nil || len(s.CachedInfo().Cluster.Replicas) != n-1 {
					return false
				}
			}
			c, err := js.Consumer(t.Context(), stream, "settlement")
			return err == nil && c.CachedInfo().Cluster != nil && len(c.CachedInfo().Cluster.Replicas) == n-1
		})
	}
	asking := func(stream string, n int) *pabalnats.Broker {
		t.Helper()
		return openVillage(t, cluster.URL, &pabalnats.Options{Logger: quiet(), Stream: stream, Replicas: n})
	}
	asking("pabal", 0)
	want("pabal", 3)
	b := asking("single", 1)
	want("single", 1)
	asking("single", 0) // the default is for what is made
	if err := open(t, cluster.URL, &pabalnats.Options{Logger: quiet(), Stream: "single", Replicas: 3}).Check(t.Context(), village, false); err != nil {
		t.Errorf("a Check that makes nothing: %v", err)
	}
	want("single", 1)
	sent := publish(t, b, 100)
	asking("single", 3)
	want("single", 3)
	asking("single", 1) // never fewer
	want("single", 3)
	cluster.Current()
	leader := cluster.Leader("single")
	leader.Kill()
	cluster.Leader("single")
	consumer := open(t, cluster.URL, &pabalnats.Options{Logger: quiet(), Stream: "single"})
	done := make(chan []string, 1)
	done <- sent
	collect(t, consumer, done) // from the other nodes
}

// A server by itself has one replica of everything, and says so.
func TestReplicasOfOneServer(t *testing.T) {
	url := startServer(t)
	openVillage(t, url, &pabalnats.Options{Logger: quiet()})
	b := open(t, url, &pabalnats.Options{Logger: quiet(), Replicas: 3})
	err := b.Check(t.Context(), village, true)
	if err == nil || !strings.Contains(err.Error(), "from 1 to 3 (Options.Replicas)") {
		t.Errorf("it answers %v", err)
	}
}

// Each replica drops what comes while it knows of no queue for it: what is published once Check has returned nil, by anyone whose
// Check has, is kept by all of them, whether the queue is new or the topic.
func TestSubscriptionIsKnownToEveryReplica(t *testing.T) {
	cluster := servers.StartNATSCluster(t, nil)
	openVillage(t, cluster.URL, &pabalnats.Options{Logger: quiet()})
	var nodes []*pabalnats.Broker
	for _, n := range cluster.Nodes {
		nodes = append(nodes, open(t, n.URL, &pabalnats.Options{Logger: quiet()}))
	}
	const topics, each = 24, 20
	var all sync.WaitGroup
	for i := range topics {
		topic, queue := fmt.Sprintf("topic-%d", i), "settlement"
		if i%2 == 0 {
			queue = fmt.Sprintf("queue-%d", i)
		}
		spec := driver.Topology{Topics: []driver.TopicSpec{{Name: topic}}, Queues: []driver.QueueSpec{{Name: queue, Topics: []string{topic}}}}
		for n := range 2 { // the second finds it there
			all.Go(func() {
				b := nodes[(i+n)%3]
				if err := b.Check(t.Context(), spec, true); err != nil {
					t.Error(err)
					return
				}
				var list []driver.Message
				for range each {
					list = append(list, message(uuid.New()))
				}
				for _, v := range b.Publish(t.Context(), driver.Destination{Topic: topic}, list) {
					if v.Kind != driver.Accepted {
						t.Errorf("%s: %v", topic, v.Err)
					}
				}
			})
		}
	}
	all.Wait()
	var counts []int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if counts = cluster.Messages("pabal"); slices.Min(counts) == topics*2*each {
			return
		}
	}
	t.Errorf("of %d messages the servers keep %v", topics*2*each, counts)
}

// load publishes without pause, each message until it is accepted, as the core does: every try with a deduplication id of
// its own. It answers all that were accepted.
func load(ctx context.Context, b *pabalnats.Broker) (accepted []string, again int) {
	var batch []driver.Message
	for {
		for len(batch) < 20 && ctx.Err() == nil {
			batch = append(batch, message(uuid.New()))
		}
		if len(batch) == 0 {
			return accepted, again
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		var left []driver.Message
		for i, v := range b.Publish(call, driver.Destination{Topic: "paid"}, batch) {
			if v.Kind == driver.Accepted {
				accepted = append(accepted, string(batch[i].Body))
				continue
			}
			again++
			batch[i].Dedup = uuid.NewString()
			left = append(left, batch[i])
		}
		cancel()
		if batch = left; len(left) > 0 {
			select {
			case <-time.After(50 * time.Millisecond): // the core waits for 10 s
			case <-ctx.Done():
			}
		}
	}
}

// collect receives until everything that done answers has come, and counts what came twice.
func collect(t *testing.T, b *pabalnats.Broker, done <-chan []string) (came map[string]int) {
	t.Helper()
	came = map[string]int{}
	var owed []string
	missing := func() (n int) {
		for _, id := range owed {
			if came[id] == 0 {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if got, err := b.Receive(t.Context(), "settlement", 200); err == nil {
			for _, d := range got {
				came[string(d.Body)]++
			}
			_ = b.Ack(t.Context(), "settlement", got) // one that is lost only means that it comes again
		}
		select {
		case owed = <-done:
			done = nil
		default:
		}
		if done == nil && missing() == 0 {
			return came
		}
	}
	t.Fatalf("%d of %d accepted messages did not come", missing(), len(owed))
	return nil
}

// A stream's leader that is killed under load, three times, costs no message that was accepted; Publish goes on with the next
// leader by itself.
func TestKilledLeaderLosesNothing(t *testing.T) {
	cluster := servers.StartNATSCluster(t, &servers.NATSOptions{SyncAlways: true})
	o := &pabalnats.Options{Logger: quiet(), Hold: 2 * time.Second}
	producer, consumer := openVillage(t, cluster.URL, o), open(t, cluster.URL, o)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan []string, 1)
	again := 0
	var loading sync.WaitGroup
	loading.Go(func() {
		var accepted []string
		accepted, again = load(ctx, producer)
		done <- accepted
	})
	collected := make(chan map[string]int, 1)
	go func() {
		defer close(collected)
		collected <- collect(t, consumer, done)
	}()
	for round := range 3 {
		leader := cluster.Leader("pabal")
		t.Logf("round %d: %s leads and is killed", round, leader.Name)
		leader.Kill()
		cluster.Leader("pabal")
		leader.Start()
		cluster.Current()
	}
	stop()
	loading.Wait()
	came, twice := <-collected, 0
	for _, n := range came {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d messages came, %d of them twice or more; %d tries were not accepted", len(came), twice, again)
	if len(came) == 0 || again == 0 {
		t.Error("the leaders were not killed under load")
	}
}
