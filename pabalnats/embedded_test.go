package pabalnats_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// A server in this process whose disk was full stores again once there is room, and what it accepted before is not lost.
func TestEmbeddedServerOutlivesAFullDisk(t *testing.T) {
	volume := servers.SmallVolume(t, 24)
	b, err := pabalnats.Open(filepath.Join(volume.Root, "nats"), &pabalnats.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // of a test
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	owed := map[string]bool{}
	accepted := func() bool {
		m := message(uuid.New())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a server that cannot write does not answer
		defer cancel()
		v := b.Publish(ctx, driver.Destination{Topic: "paid"}, []driver.Message{m})[0]
		if v.Kind == driver.Accepted {
			owed[string(m.Body)] = true
		}
		return v.Kind == driver.Accepted
	}
	for range 50 {
		if !accepted() {
			t.Fatal("an idle server does not accept")
		}
	}
	for _, d := range receive(t, b, 10) { // not acknowledged: it comes again
		delete(owed, string(d.Body))
	}
	volume.Fill()
	within(t, 10*time.Second, "messages are refused", func() bool { return !accepted() })
	volume.Empty()
	within(t, 30*time.Second, "messages are accepted again", accepted)
	for deadline := time.Now().Add(20 * time.Second); len(owed) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages were accepted, and did not come: %v", len(owed), slices.Collect(maps.Keys(owed)))
		}
		deliveries, err := b.Receive(t.Context(), "settlement", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			delete(owed, string(d.Body))
		}
		if err := b.Ack(t.Context(), "settlement", deliveries); err != nil {
			t.Fatal(err)
		}
	}
}
