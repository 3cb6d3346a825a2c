package pabalnats_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// changeStream changes the stream's configuration, as an operator may.
func changeStream(t *testing.T, js jetstream.JetStream, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := js.Stream(t.Context(), "pabal")
	if err != nil {
		t.Fatal(err)
	}
	config := s.CachedInfo().Config
	change(&config)
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// A stream that is full takes messages again once a queue has drained; until then they are Again, and the error says why.
func TestFullStreamIsAgainUntilThereIsRoom(t *testing.T) {
	url := startServer(t)
	b := openVillage(t, url, &pabalnats.Options{Logger: quiet()})
	changeStream(t, asOperator(t, url), func(c *jetstream.StreamConfig) { c.MaxMsgs = 5 })
	publish(t, b, 5)
	if v := publishOne(t, b); v.Kind != driver.Again || v.Err == nil || !strings.Contains(v.Err.Error(), "the stream has no room") {
		t.Errorf("published to a full stream: %v", v)
	}
	if err := b.Ack(t.Context(), "settlement", receive(t, b, 5)); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "there is room", func() bool { return publishOne(t, b).Kind == driver.Accepted })
}

// A publisher that nobody answers, as the stream is gone, sends again; it neither waits for long nor takes it for accepted.
func TestNoRespondersIsAgain(t *testing.T) {
	url := startServer(t)
	b := openVillage(t, url, &pabalnats.Options{Logger: quiet()})
	js := asOperator(t, url)
	if err := js.DeleteStream(t.Context(), "pabal"); err != nil {
		t.Fatal(err)
	}
	if v := publishOne(t, b); v.Kind != driver.Again || v.Err == nil || !strings.Contains(v.Err.Error(), "no stream takes the message") {
		t.Errorf("published to nobody: %v", v)
	}
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "messages are accepted", func() bool { return publishOne(t, b).Kind == driver.Accepted })
}

// What the server never takes is Never, with the limit that an operator may raise.
func TestTooLargeIsNever(t *testing.T) {
	server := servers.NATS(t, &servers.NATSOptions{Settings: []string{"max_payload: 65536"}})
	b := openVillage(t, server.URL, &pabalnats.Options{Logger: quiet()})
	if most := b.Limits().Message; most != 65536 {
		t.Errorf("Limits says %d bytes", most)
	}
	large := func(bytes, attribute int) driver.Verdict {
		m := message(uuid.New())
		m.Body = make([]byte, bytes)
		m.Attributes = []driver.Attribute{{Name: "trace", Value: strings.Repeat("x", attribute)}}
		return b.Publish(t.Context(), driver.Destination{Topic: "paid"}, []driver.Message{m})[0]
	}
	for _, c := range [][2]int{{65537, 1}, {65536, 1}, {65000, 1000}} {
		want := fmt.Sprintf("message of %d bytes and its attributes: the server takes 65536 at most (its max_payload)", c[0])
		if v := large(c[0], c[1]); v.Kind != driver.Never || v.Err == nil || v.Err.Error() != want {
			t.Errorf("%d bytes and an attribute of %d: %v", c[0], c[1], v)
		}
	}
	if v := large(60000, 1000); v.Kind != driver.Accepted {
		t.Errorf("what fits: %v", v)
	}
	changeStream(t, asOperator(t, server.URL), func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
	if v := large(2000, 1); v.Kind != driver.Never || v.Err == nil || !strings.Contains(v.Err.Error(), "the stream's max_msg_size") {
		t.Errorf("larger than the stream takes: %v", v)
	}
}
