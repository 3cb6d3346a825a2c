package topology_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
	"github.com/pabal-go/pabal/topology"
)

var shipped = pabal.Define[string]("shipped")

var subscribed = driver.Topology{
	Topics: []driver.TopicSpec{{Name: "shipped"}},
	Queues: []driver.QueueSpec{{Name: "audit", Topics: []string{"shipped"}}, {Name: "unread", Topics: []string{"shipped"}},
		{Name: "event-record-order", Topics: []string{"shipped"}}},
}

// running starts a service that reads queue audit and confirms.
func running(t *testing.T, server *sim.BrokerServer, w world.World) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	client, err := pabal.New(ctx, sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct), server.Connect(w, sim.Direct), "order",
		&pabal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	pabal.Handle(client.Consumer("audit", nil), shipped, func(context.Context, *sim.Tx, pabal.Received[string]) error {
		t.Error("a canary was handled as an event")
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := client.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCanaryComesThroughEverySubscription(t *testing.T) {
	w := world.Real()
	server := sim.NewBrokerServer(w, sim.BrokerOptions{})
	broker := server.Connect(w, sim.Direct)
	if err := broker.Check(t.Context(), subscribed, true); err != nil {
		t.Fatal(err)
	}
	running(t, server, w)
	// Somebody else's message lies in the queue that nobody reads; it stays there.
	other := driver.Message{Body: []byte(`{"not":"a canary"}`)}
	broker.Publish(t.Context(), driver.Destination{Queue: "unread"}, []driver.Message{other})
	found, err := topology.Verify(t.Context(), broker, subscribed, time.Second)
	if err != nil || len(found) > 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	left, err := broker.Receive(t.Context(), "unread", 10)
	if err != nil || len(left) != 1 || string(left[0].Body) != string(other.Body) {
		t.Errorf("queue unread holds %d messages, %v", len(left), err)
	}

	server.Unsubscribe("unread", "shipped")
	server.Unsubscribe("audit", "shipped")
	found, err = topology.Verify(t.Context(), broker, subscribed, 300*time.Millisecond)
	text := fmt.Sprint(found)
	if err != nil || len(found) != 2 || !strings.Contains(text, "topic shipped does not reach queue audit") ||
		!strings.Contains(text, "topic shipped does not reach queue unread") {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestConsumersAnswerToNoOtherQueue(t *testing.T) {
	w := world.Real()
	server := sim.NewBrokerServer(w, sim.BrokerOptions{})
	broker := server.Connect(w, sim.Direct)
	if err := broker.Check(t.Context(), driver.Topology{Queues: []driver.QueueSpec{{Name: "payments"}}}, true); err != nil {
		t.Fatal(err)
	}
	running(t, server, w)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	forged := fmt.Sprintf(`{"specversion":"1.0","id":"0192aaaa-0000-7000-8000-000000000000","source":"x","type":"pabal.canary","topic":"shipped",`+
		`"time":%q,"sentat":%q,"replyto":"payments"}`, now, now)
	broker.Publish(t.Context(), driver.Destination{Queue: "audit"}, []driver.Message{{Body: []byte(forged)}})
	for server.Owed() != "" { // until the forged canary has been read
		time.Sleep(time.Millisecond)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := broker.Receive(ended, "payments", 1); err != nil || len(got) > 0 {
		t.Errorf("queue payments got %d messages, %v", len(got), err)
	}
}

func ExampleVerify() {
	w := world.Real()
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct) // or of pabalsns.Open
	ctx := context.Background()
	if err := broker.Check(ctx, subscribed, true); err != nil {
		panic(err)
	}
	found, err := topology.Verify(ctx, broker, subscribed, 10*time.Millisecond)
	fmt.Println(found, err)
	// Output: [] <nil>
}
