package scenario

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// What programs other than Pabal put into a consumer's queue: CloudEvents that know of no position, which are handled once for each
// source and id, and what nobody can read, which is parked under a hash of its bytes.

// stranger is a message from elsewhere.
type stranger struct {
	consumer, source string
	row              string    // its source there, if that is another one
	id               uuid.UUID // of its row
	m                driver.Message
	unreadable       bool
}

// hashed is the id of what has no UUID of its own.
func hashed(b []byte) uuid.UUID {
	sum := sha256.Sum256(b)
	id := uuid.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}

// longSource is longer than an inbox has room for.
var longSource = strings.Repeat("x", 70)

// unreadable are messages that no consumer can read; each has a number in it.
var unreadable = []string{
	"\xff\xfe %d", "%d", `{"n":%d}`, `{"specversion":"1.0","id":"%d"`, `{"specversion":"1.0","id":"%d","source":"x","type":"y"},`,
	`{"specversion":"0.3","id":"%d","source":"x","type":"y"}`, `{"specversion":"1.0","source":"x","type":"y","n":%d}`,
	`{"specversion":"1.0" "id":"%d"}`, `{"specversion":"1.0","id" "%d"}`, `{"specversion":"1.0","id":,"n":%d}`, `{specversion:%d}`,
	`{"n":"%d`, `{"n":[%d`,
	"{\"specversion\":\"1.\x010\",\"id\":\"%d\"}", `{"specversion":"1.0","id":"\q%d","source":"x","type":"y"}`, `{"n":[%d}]`,
	`{"specversion":"1.0","id":"%d","source":"x","type":"y","position":"0"}`,
	`{"specversion":"1.0","id":"%d","source":"x","type":"y","position":"one"}`,
	`{"specversion":"1.0","id":"%d","source":"x","type":"y","job":"none"}`,
	`{"specversion":"1.0","id":"%d","source":"x","type":"y","time":"yesterday"}`,
	`{"specversion":"1.0","id":"%d","source":"x","type":"y","data_base64":"!"}`,
	`{"specversion":"1.0","id":"019b76da-d016-7c29-a336-%012d","source":"x","type":"y","topic":"t","time":"2026-01-01T00:00:00Z",
		"sentat":"2026-01-01T00:00:00Z","position":"1"}`,
	`{"specversion":"1.0","id":"019b76da-d016-7c29-a336-%012d","source":"x","type":"y","topic":"t","time":"2026-01-01T00:00:00Z",
		"sentat":"2026-01-01T00:00:00Z","subject":"` + strings.Repeat("k", 256) + `"}`,
	`{"specversion":"1.0","id":"019b76da-d016-7c29-a336-%012d","source":"x","type":"y","topic":"t","time":"2026-01-01T00:00:00Z",
		"sentat":"2026-01-01T00:00:00Z","subject":"k","position":"2","prevposition":"1"}`,
}

// strange makes messages of one kind, by chance.
func (r *run) strange(w world.World) []stranger {
	n := w.Rand() % 1e9
	consumer := consumersOf[w.Rand()%2]
	handled := func(source string, id []byte, typ, rest string) stranger {
		body := fmt.Appendf(nil, `{"specversion":"1.0","id":"%s","source":"%s","type":"%s",%s}`, id, source, typ, rest)
		return stranger{consumer: consumer, source: source, id: hashed(id), m: driver.Message{Body: body}}
	}
	id := idByChance(w).String()
	switch w.Rand() % 6 {
	case 0: // one id of two sources
		id = fmt.Sprint(n)
		rest := `"datacontenttype":"application/json","data":{"no":"\u0041"}`
		return []stranger{handled("legacy", []byte(id), orderViewed.Name(), rest), handled("ancient", []byte(id), orderViewed.Name(), rest)}
	case 1:
		s := handled(longSource, []byte(id), orderPaid.Name(), `"data":{},"source":"`+longSource[:69]+`\u0078","nobody":{"knows":["}",{}]}`)
		s.row = hashed([]byte(longSource)).String()
		return []stranger{s}
	case 2:
		data := base64.StdEncoding.EncodeToString(scanned(w, "elsewhere"))
		return []stranger{handled("legacy", []byte(id), orderScanned.Name(), `"data_base64":"`+data+`"`)}
	case 3: // another Pabal's, without envelope
		at := r.databases["order"].Clock().Format(time.RFC3339Nano)
		return []stranger{{consumer: consumer, source: "legacy", id: uuid.MustParse(id), m: driver.Message{
			Body: printed(int(n%100), postedTexts), Attributes: attributes(id, at+" "+at+" "+orderViewed.Topic()),
		}}}
	case 4: // the same, and something is missing; or binary mode, of which Pabal knows nothing
		lists := [][]driver.Attribute{
			attributes("no uuid", "t t t"), attributes(id, "yesterday today t"), attributes(id, "2026-01-01T00:00:00Z 2026-01-01T00:00:00Z "),
			attributes(id, "times"), append(attributes(id, "2026-01-01T00:00:00Z 2026-01-01T00:00:00Z t"), driver.Attribute{Name: "source", Value: longSource}),
			{{Name: "ce-specversion", Value: "1.0"}, {Name: "ce-id", Value: id}, {Name: "ce-source", Value: "legacy"}},
		}
		body := fmt.Appendf(nil, `{"n":%d}`, n)
		r.calmly.hidden[uuid.MustParse(id)] = true
		return []stranger{{consumer: consumer, id: hashed(body), unreadable: true, m: driver.Message{
			Body: body, Attributes: lists[w.Rand()%uint64(len(lists))],
		}}}
	default:
		body := fmt.Appendf(nil, unreadable[w.Rand()%uint64(len(unreadable))], n)
		return []stranger{{consumer: consumer, id: hashed(body), unreadable: true, m: driver.Message{Body: body}}}
	}
}

func attributes(id, times string) []driver.Attribute {
	return []driver.Attribute{
		{Name: "id", Value: id}, {Name: "source", Value: "legacy"}, {Name: "type", Value: orderPosted.Name()}, {Name: "times", Value: times},
	}
}

// comeStrangers sends a consumer something from elsewhere, or once more what it had; and the confirmer as well, sometimes.
func (r *run) comeStrangers(w world.World) {
	all := &r.calmly.strangers
	if n := uint64(len(*all)); n > 0 && w.Rand()%3 == 0 {
		r.deliver(w, &(*all)[w.Rand()%n])
		return
	}
	for _, s := range r.strange(w) {
		if r.deliver(w, &s) {
			*all = append(*all, s)
		}
	}
}

// deliver puts a stranger into its queue; false if there is none.
func (r *run) deliver(w world.World, s *stranger) bool {
	broker := r.broker.Connect(w, sim.Direct)
	send := func(queue string) bool {
		s.m.Dedup = idByChance(w).String()
		return broker.Publish(context.Background(), driver.Destination{Queue: queue}, []driver.Message{s.m})[0].Kind == driver.Accepted
	}
	if w.Rand()%4 == 0 {
		send(recordQueue)
	}
	return send(s.consumer)
}

// checkStrangers looks at what has become of them; then an operator tries what is unreadable once more, and passes over it. What comes
// again afterwards is known.
func (r *run) checkStrangers(w world.World) {
	parked := map[string][]uuid.UUID{}
	for _, s := range r.calmly.strangers {
		switch is := r.rowOf(&s); {
		case !s.unreadable && r.databases[s.consumer].Business("effect", effectOf(s.source, s.id, uuid.Nil)) == nil:
			_ = r.fail("P4 one effect: %s has not handled %s of %s: %s: %s", s.consumer, s.id, s.source, is, s.m.Body)
		case s.unreadable && is != "unreadable":
			_ = r.fail("inbox: unreadable is parked at %s under the hash of its bytes, and not %q: %q", s.consumer, is, s.m.Body)
		case s.unreadable && !slices.Contains(parked[s.consumer], s.id):
			parked[s.consumer] = append(parked[s.consumer], s.id)
		}
	}
	r.orderStrangers(w, parked, func(o *pabal.Operator) order { return o.RetryReceived })
	for _, s := range r.calmly.strangers {
		if is := r.rowOf(&s); s.unreadable && is != "unreadable" {
			_ = r.fail("inbox: unreadable, tried once more, is parked at %s, and not %q", s.consumer, is)
		}
	}
	r.orderStrangers(w, parked, func(o *pabal.Operator) order { return o.SkipReceived })
	for i := range r.calmly.strangers {
		r.deliver(w, &r.calmly.strangers[i])
	}
	r.settle(w)
}

// order is one that an operator gives about rows of a consumer.
type order func(ctx context.Context, consumer string, ids ...uuid.UUID) (int, error)

func (r *run) orderStrangers(w world.World, ids map[string][]uuid.UUID, what func(*pabal.Operator) order) {
	for _, consumer := range consumersOf {
		if n, err := what(r.operator[consumer])(context.Background(), consumer, ids[consumer]...); err != nil || n != len(ids[consumer]) {
			_ = r.fail("inbox: of %d unreadable messages %d are retried or skipped: %v", len(ids[consumer]), n, err)
		}
	}
	_ = w.Sleep(context.Background(), 20*time.Second)
	r.settle(w)
}

// rowOf is the reason for which a consumer keeps a stranger; empty: it does not.
func (r *run) rowOf(s *stranger) string {
	row := r.databases[s.consumer].RowOf(s.consumer, driver.CursorKey{Source: cmp.Or(s.row, s.source)}, s.id)
	if row == nil || row.State == driver.Done {
		return ""
	}
	return row.Reason
}
