package pabalnats_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

// What is missing of a fixed topology is named as an operator would name it, all of it, and none of it is made.
func TestFixedTopologyNamesAllThatIsMissing(t *testing.T) {
	url := startServer(t)
	b, err := pabalnats.Connect(t.Context(), url, &pabalnats.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // of a test
	whole := driver.Topology{
		Topics: []driver.TopicSpec{{Name: "paid"}, {Name: "placed"}},
		Queues: []driver.QueueSpec{
			{Name: "event-record-order", Topics: []string{"paid", "placed"}}, {Name: "settlement", Topics: []string{"paid"}},
		},
	}
	missing := func(when string, want ...string) {
		t.Helper()
		err := b.Check(t.Context(), whole, false)
		var m *driver.MissingError
		if !errors.As(err, &m) && len(want) > 0 {
			t.Fatalf("%s: %v", when, err)
		}
		if m == nil {
			m = &driver.MissingError{}
		}
		if len(want) == 0 && err != nil || !slices.Equal(m.Missing, want) {
			t.Errorf("%s: %v, not %q", when, err, want)
		}
	}
	queues := []string{
		"queue event-record-order", "subscription of queue event-record-order to topic paid",
		"subscription of queue event-record-order to topic placed", "queue settlement", "subscription of queue settlement to topic paid",
	}
	all := append([]string{"stream pabal", "key-value bucket pabal-topology", "topic paid", "topic placed"}, queues...)
	missing("nothing is there", all...)
	missing("nothing was made", all...)

	if err := b.Check(t.Context(), driver.Topology{}, true); err != nil {
		t.Fatal(err)
	}
	missing("an empty installation", append([]string{"topic paid", "topic placed"}, queues...)...)
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	missing("a part is there", append([]string{"topic placed"}, queues[:3]...)...)

	part := driver.Topology{Topics: whole.Topics, Queues: []driver.QueueSpec{{Name: "event-record-order", Topics: []string{"placed"}}}}
	if err := b.Check(t.Context(), part, true); err != nil {
		t.Fatal(err)
	}
	missing("a subscription is missing", "subscription of queue event-record-order to topic paid")

	if err := b.Check(t.Context(), whole, true); err != nil {
		t.Fatal(err)
	}
	missing("all is there")

	deleteBucket(t, url)
	missing("the bucket is gone", "key-value bucket pabal-topology", "topic paid", "topic placed")
}

func deleteBucket(t *testing.T, url string) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), "pabal-topology"); err != nil {
		t.Fatal(err)
	}
}

// Installations of different names on one server share nothing.
func TestInstallationsShareNothing(t *testing.T) {
	url := startServer(t)
	open := func(stream string) *pabalnats.Broker {
		return openVillage(t, url, &pabalnats.Options{Logger: quiet(), Stream: stream})
	}
	one, other := open("one"), open("other")
	publish(t, other, 3)
	sent := publish(t, one, 1)
	if got := receive(t, one, 1); len(got) != 1 || string(got[0].Body) != sent[0] {
		t.Errorf("received %d messages, the first %q, not %q", len(got), got[0].Body, sent[0])
	}
}
