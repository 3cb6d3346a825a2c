package pabalnats_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

const many = 40 // messages, enough for an atomic batch

func messages(n int) (all []driver.Message) {
	for range n {
		all = append(all, message(uuid.New()))
	}
	return all
}

// count says how many of the verdicts are of a kind, and what the others say.
func count(verdicts []driver.Verdict, kind driver.VerdictKind) (n int, others []error) {
	for _, v := range verdicts {
		if v.Kind == kind {
			n++
		} else {
			others = append(others, v.Err)
		}
	}
	return n, others
}

// together receives n messages, each once and in the order in which they were published, and says how many were published in an
// atomic batch.
func together(t *testing.T, b *pabalnats.Broker, published []driver.Message) (n int) {
	t.Helper()
	for i, d := range receive(t, b, len(published)) {
		if string(d.Body) != string(published[i].Body) {
			t.Fatalf("message %d is %s, not %s", i, d.Body, published[i].Body)
		}
		if d.Receipt.(jetstream.Msg).Headers().Get(jetstreamext.BatchIDHeader) != "" {
			n++
		}
		if err := b.Ack(t.Context(), "settlement", []driver.Delivery{d}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A server of this process that syncs each message gets large batches atomically; nothing else does.
func TestAtomicBatchesWhereEachMessageIsSynced(t *testing.T) {
	open := func(relaxed bool) *pabalnats.Broker {
		b, err := pabalnats.Open(t.TempDir(), &pabalnats.Options{Logger: quiet(), Relaxed: relaxed})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		if err := b.Check(t.Context(), village, true); err != nil {
			t.Fatal(err)
		}
		return b
	}
	synced, relaxed, elsewhere := open(false), open(true), openVillage(t, startServer(t), &pabalnats.Options{Logger: quiet()})
	for _, c := range []struct {
		name     string
		b        *pabalnats.Broker
		messages int
		together int
	}{
		{"synced", synced, many, many}, {"synced, few", synced, 10, 0}, {"synced, more than a batch may have", synced, 1001, 0},
		{"relaxed", relaxed, many, 0}, {"elsewhere", elsewhere, many, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := messages(c.messages)
			if n, others := count(c.b.Publish(t.Context(), driver.Destination{Topic: "paid"}, all), driver.Accepted); n != len(all) {
				t.Fatalf("%d of %d accepted: %v", n, len(all), errors.Join(others...))
			}
			if n := together(t, c.b, all); n != c.together {
				t.Errorf("%d of %d messages were published in an atomic batch, want %d", n, len(all), c.together)
			}
		})
	}
}

// atomicVillage is the village on a server elsewhere, whose stream an operator has given allow_atomic.
func atomicVillage(t *testing.T, change func(*jetstream.StreamConfig)) (*pabalnats.Broker, jetstream.JetStream) {
	t.Helper()
	url := startServer(t)
	b := openVillage(t, url, &pabalnats.Options{Logger: quiet()})
	js := asOperator(t, url)
	changeStream(t, js, func(c *jetstream.StreamConfig) {
		c.AllowAtomicPublish = true
		if change != nil {
			change(c)
		}
	})
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	return b, js
}

// Of a batch that is published again some may be there already: those are accepted as well, and none is there twice.
func TestAtomicBatchWithSomethingThatIsThere(t *testing.T) {
	b, _ := atomicVillage(t, nil)
	all := messages(2 * many)
	for _, n := range []int{many, many, 2 * many} {
		if n, others := count(b.Publish(t.Context(), driver.Destination{Topic: "paid"}, all[:n]), driver.Accepted); len(others) > 0 {
			t.Fatalf("%d accepted: %v", n, errors.Join(others...))
		}
	}
	if n := together(t, b, all); n != many {
		t.Errorf("%d messages were published in an atomic batch, want %d: the first time", n, many)
	}
	left, err := b.Receive(t.Context(), "settlement", 1)
	if err != nil || len(left) > 0 {
		t.Errorf("%d messages more: %v", len(left), err)
	}
}

// Each message of a batch that cannot be stored as a whole gets its own verdict.
func TestAtomicBatchThatIsRefused(t *testing.T) {
	bad := func(name, value string) func([]driver.Message) {
		return func(all []driver.Message) { all[7].Attributes = []driver.Attribute{{Name: name, Value: value}} }
	}
	for _, c := range []struct {
		name     string
		change   func(*jetstream.StreamConfig)
		spoil    func([]driver.Message)
		accepted int
		kind     driver.VerdictKind
		says     string
	}{
		{"body larger than the server takes", nil, func(all []driver.Message) { all[7].Body = make([]byte, 2<<20) }, many - 1, driver.Never, "the server takes 1048576 at most"},
		{"attributes larger than the server takes", nil, bad("trace", strings.Repeat("x", 2<<20)), many - 1, driver.Never, "the server takes 1048576 at most"},
		{"larger than the stream takes", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 },
			func(all []driver.Message) { all[7].Body = make([]byte, 2000) }, many - 1, driver.Never, "the stream's max_msg_size"},
		{"no room", func(c *jetstream.StreamConfig) { c.MaxMsgs = 25 }, nil, 25, driver.Again, "the stream has no room"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _ := atomicVillage(t, c.change)
			all := messages(many)
			if c.spoil != nil {
				c.spoil(all)
			}
			verdicts := b.Publish(t.Context(), driver.Destination{Topic: "paid"}, all)
			var stored []driver.Message
			for i, v := range verdicts {
				switch {
				case v.Kind == driver.Accepted:
					stored = append(stored, all[i])
				case v.Kind != c.kind || !strings.Contains(fmt.Sprint(v.Err), c.says):
					t.Errorf("message %d: %v", i, v)
				}
			}
			if len(stored) != c.accepted {
				t.Errorf("%d accepted, want %d", len(stored), c.accepted)
			}
			if n := together(t, b, stored); n != 0 {
				t.Errorf("%d messages were published in an atomic batch", n)
			}
		})
	}
}

// A batch that nobody answers is not accepted, and its error tells why.
func TestAtomicBatchWithoutStream(t *testing.T) {
	b, js := atomicVillage(t, nil)
	if err := js.DeleteStream(t.Context(), "pabal"); err != nil {
		t.Fatal(err)
	}
	verdicts := b.Publish(t.Context(), driver.Destination{Topic: "paid"}, messages(many))
	if n, others := count(verdicts, driver.Again); n != many || !errors.Is(verdicts[0].Err, driver.ErrDestination) {
		t.Errorf("%d are to be sent again, the first as %v; the others: %v", n, verdicts[0].Err, errors.Join(others...))
	}
}
