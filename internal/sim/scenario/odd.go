package scenario

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"strings"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Events that are more than an object of plain characters: bytes, texts that JSON or a broker could stumble over, headers, a version, a
// trace, messages without envelope. Each says by itself what it has to be.

type printing struct {
	N    int    `json:"n"`
	Text string `json:"text"`
}

var (
	orderScanned = pabal.Define("order-scanned", pabal.Key(scannedKey)).On(orderPaid.Topic()).Version("2") // among orderPaid's
	orderPrinted = pabal.Define[json.RawMessage]("order-printed").On(orderViewed.Topic())
	orderPosted  = pabal.Define[json.RawMessage]("order-posted").On(orderViewed.Topic()).Bare()

	oddTexts = []string{
		"\ufffe and \uffff are legal here", "파발 · \u2028 \u00a0 😀", `"quoted" \ <&>`, "\x01 and \t and \n", "\uffff\uffff and ￥",
	}
	postedTexts = []string{"파발 · 😀", `"quoted" \ <&>`, "tab\tand\nline"}
)

// scanned is the payload of an orderScanned: its key, some bytes, and their sum.
func scanned(w world.World, key string) []byte {
	b := append([]byte(key), 0)
	for range 1 + w.Rand()%4 {
		b = binary.BigEndian.AppendUint64(b, w.Rand())
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func scannedKey(b []byte) string {
	key, _, _ := strings.Cut(string(b), "\x00")
	return key
}

// whole reports whether a payload is as it was.
func whole(b []byte) bool {
	n := len(b) - 4
	return n > 0 && crc32.ChecksumIEEE(b[:n]) == binary.BigEndian.Uint32(b[n:])
}

// scannedHeaders are those of an orderScanned.
func scannedHeaders(b []byte, traceparent string) map[string]string {
	return map[string]string{
		"length": fmt.Sprint(len(b)), "note": oddTexts[int(b[len(b)-1])%len(oddTexts)], "nothing": "", "traceparent": traceparent,
	}
}

// traced has what is recorded carry a trace, in every other order.
func (r *run) traced(ctx context.Context, w world.World) context.Context {
	if !r.c.Odd || w.Rand()%2 == 0 {
		return ctx
	}
	return pabal.WithTraceparent(ctx, fmt.Sprintf("00-%016x%016x-%016x-01", w.Rand(), w.Rand()|1, w.Rand()|1))
}

// odd is what an order consists of besides, now and then, when events are odd.
func (r *run) odd(ctx context.Context, w world.World, key func() string) (events []pabal.Event) {
	if !r.c.Odd || w.Rand()%5 > 1 {
		return nil
	}
	n := int(w.Rand() % 100)
	switch w.Rand() % 4 {
	case 0, 1:
		b := scanned(w, key())
		e := orderScanned.New(b)
		for name, value := range scannedHeaders(b, pabal.Traceparent(ctx)) { // the order does not matter
			e = e.With(name, value)
		}
		events = append(events, e)
	case 2:
		events = append(events, orderPrinted.New(printed(n, oddTexts)))
	default:
		events = append(events, orderPosted.New(printed(n, postedTexts)))
	}
	return events
}

// printed is a text of JSON that says which of texts it holds; what need not be escaped is not.
func printed(n int, texts []string) json.RawMessage {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(texts[n%len(texts)]) // texts encode
	return json.RawMessage(fmt.Sprintf(`{ "n": %d, "text": %s}`, n, strings.TrimSpace(b.String())))
}

// asPaid is an event with another payload.
func asPaid[T any](e pabal.Received[T]) pabal.Received[paid] {
	return pabal.Received[paid]{
		ID: e.ID, Source: e.Source, Topic: e.Topic, Type: e.Type, Key: e.Key, Position: e.Position, RecordedAt: e.RecordedAt, Job: e.Job,
	}
}

// handleOdd registers handlers that find out whether odd events are what they were.
func (r *run) handleOdd(
	consumer *pabal.Consumer[*sim.Tx], one func(context.Context, *sim.Tx, pabal.Received[paid]) error,
) {
	pabal.Handle(consumer, orderScanned, func(ctx context.Context, tx *sim.Tx, e pabal.Received[[]byte]) error {
		ours := e.Source == "order"
		if !whole(e.Data) || ours && (e.Version != "2" || e.Key != scannedKey(e.Data)) {
			return r.fail("wire: %s (key %q, version %q) has become %x", e.ID, e.Key, e.Version, e.Data)
		}
		if want := scannedHeaders(e.Data, pabal.Traceparent(ctx)); ours && !maps.Equal(e.Headers, want) {
			return r.fail("wire: headers of %s are %q, not %q", e.ID, e.Headers, want)
		}
		return one(ctx, tx, asPaid(e))
	})
	text := func(texts []string) func(context.Context, *sim.Tx, pabal.Received[json.RawMessage]) error {
		return func(ctx context.Context, tx *sim.Tx, e pabal.Received[json.RawMessage]) error {
			var is printing
			if err := json.Unmarshal(e.Data, &is); err != nil || is.Text != texts[is.N%len(texts)] {
				return r.fail("wire: %s has become %q: %v", e.ID, e.Data, err)
			}
			return one(ctx, tx, asPaid(e))
		}
	}
	pabal.Handle(consumer, orderPrinted, text(oddTexts))
	pabal.Handle(consumer, orderPosted, text(postedTexts))
}

// checkForm holds a message against what every broker carries, and a bare one against what its readers expect.
func (r *run) checkForm(m *driver.Message) {
	for _, c := range string(m.Body) {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xfffe || c == 0xffff || c == 0xfffd {
			_ = r.fail("wire: the message of %s holds %U, which not every broker carries", m.ID, c)
		}
	}
	if typeOf(m) == orderPosted.Name() && m.Body[2] != '"' && m.Body[2] != 'n' {
		_ = r.fail("wire: the message of %s is not its payload: %s", m.ID, m.Body)
	}
}

func typeOf(m *driver.Message) string {
	for _, a := range m.Attributes {
		if a.Name == "type" {
			return a.Value
		}
	}
	return ""
}

// skipAgain has an operator repeat what he was not told of: a bare event that he skipped, and that stayed parked.
func (r *run) skipAgain() {
	var ids []uuid.UUID
	for _, e := range r.databases["order"].Events() {
		if p := r.databases["order"].PendingOf(e.ID); p != nil && p.Parked() && r.watch.skipped[e.ID] && e.Bare {
			ids = append(ids, e.ID)
		}
	}
	if n, err := r.operator["order"].Skip(context.Background(), ids...); err != nil || n != len(ids) {
		_ = r.fail("skip: %d of %d parked events are skipped: %v", n, len(ids), err)
	}
}
