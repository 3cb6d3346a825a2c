package pabal_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabaltest"
)

// The protocol's rules, one by one, in a world where time passes on demand. The files protocol_*_test.go hold one step each;
// docs/promises.md says which rule turns which test red. internal/sim/scenario checks the same promises all at once, at random.

// orderViewed has no key, hence no order.
var orderViewed = pabal.Define[Paid]("order-viewed")

const recordQueue = "event-record-order"

// protocol is a post with an order service, and what its tests look at.
type protocol struct {
	*pabaltest.Post
	t       *testing.T
	order   *pabaltest.Client
	options pabal.Options // of the order service's clients
	sent    []sent
	answer  func(pabaltest.Message) pabaltest.Answer // nil: everything is accepted
	handled []string                                 // by the consumer, in order: key and amount, or what it was
	counts  *counts
}

// sent is a message that some client tried to publish.
type sent struct {
	pabaltest.Message
	after  time.Duration // since the test's beginning
	answer pabaltest.Answer
}

func newProtocol(t *testing.T) *protocol { return newProtocolWith(t, pabal.Options{}) }

func newProtocolWith(t *testing.T, o pabal.Options) *protocol {
	t.Helper()
	p := &protocol{Post: pabaltest.New(t), t: t, counts: &counts{n: map[string]int{}}}
	start := p.Now()
	p.Answer(func(m pabaltest.Message) pabaltest.Answer {
		s := sent{Message: m, after: p.Now().Sub(start)}
		if p.answer != nil {
			s.answer = p.answer(m)
		}
		p.sent = append(p.sent, s)
		return s.answer
	})
	o.Observer = p.counts
	p.options = o
	p.order = p.another()
	return p
}

// another is a further process of the order service.
func (p *protocol) another() *pabaltest.Client {
	p.t.Helper()
	return p.ClientWith("order", &p.options)
}

// settlement is a process of a service that handles orderPaid and orderViewed: it does what handle does, if not nil, and has
// an effect.
func (p *protocol) settlement(o pabal.ConsumerOptions, handle handle) *pabaltest.Client {
	p.t.Helper()
	return p.bareSettlement(o, func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error {
		if handle != nil {
			if err := handle(ctx, tx, e); err != nil {
				return err
			}
		}
		p.handled = append(p.handled, fmt.Sprintf("%s:%d", e.Data.OrderNo, e.Data.Amount))
		return tx.Put(ctx, "effect", e.ID.String(), e.Data.Amount)
	})
}

// bareSettlement does nothing but what handle does.
func (p *protocol) bareSettlement(o pabal.ConsumerOptions, handle handle) *pabaltest.Client {
	p.t.Helper()
	client := p.ClientWith("settlement", &p.options)
	consumer := client.Consumer("settlement", &o)
	pabal.Handle(consumer, OrderPaid, handle)
	pabal.Handle(consumer, orderViewed, handle)
	return client
}

type handle func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[Paid]) error

// record records events in one transaction.
func (p *protocol) record(events ...pabal.Event) {
	p.t.Helper()
	if err := p.InTx(p.order, func(tx pabaltest.Tx) error { return p.order.Record(p.t.Context(), tx, events...) }); err != nil {
		p.t.Fatal(err)
	}
}

// pay is an event of a key.
func pay(orderNo string, amount int) pabal.Event { return OrderPaid.New(Paid{orderNo, amount}) }

// view is an event without key.
func view(n int) pabal.Event { return orderViewed.New(Paid{"", n}) }

// intercept records events, each in a transaction, and returns their messages, of which only the record queue got a copy:
// the test delivers the others as it likes.
func (p *protocol) intercept(events ...pabal.Event) (bodies [][]byte) {
	p.t.Helper()
	before := p.answer
	p.answer = func(m pabaltest.Message) pabaltest.Answer {
		bodies = append(bodies, m.Body)
		return pabaltest.Forget
	}
	for _, e := range events {
		n := len(bodies)
		p.record(e)
		for p.Pass(time.Millisecond); len(bodies) == n; p.Pass(time.Second) {
			p.t.Log("waiting for a message")
		}
	}
	p.answer = before
	for _, body := range bodies {
		p.Send(recordQueue, body)
	}
	p.Pass(time.Second)
	return bodies
}

// events are the order service's, confirmed or not, in the order of recording.
func (p *protocol) events() []driver.Found {
	p.t.Helper()
	found, err := p.order.Events(p.t.Context(), driver.EventFilter{Limit: 1000})
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

func (p *protocol) status(c *pabaltest.Client) *pabal.Status {
	p.t.Helper()
	s, err := c.Status(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// troubles is what status says, in one text.
func (p *protocol) troubles(c *pabaltest.Client) string {
	var b strings.Builder
	for _, trouble := range p.status(c).Troubles {
		fmt.Fprintf(&b, "%s\n  %s\n", trouble.What, trouble.Command)
	}
	return b.String()
}

// expectHandled checks what the consumer has handled so far, in order.
func (p *protocol) expectHandled(want ...string) {
	p.t.Helper()
	if fmt.Sprint(p.handled) != fmt.Sprint(want) {
		p.t.Errorf("handled %v, want %v", p.handled, want)
	}
}

// expectCount checks how many events an observer has been told of.
func (p *protocol) expectCount(what string, want int) {
	p.t.Helper()
	if got := p.counts.of(what); got != want {
		p.t.Errorf("%s: counted %d, want %d", what, got, want)
	}
}

// times of the messages that were tried, of one key or of all (""), rounded to seconds.
func (p *protocol) times(key string) (times []time.Duration) {
	for _, s := range p.sent {
		if key == "" || s.Key == key {
			times = append(times, s.after.Round(time.Second))
		}
	}
	return times
}

// counts is an Observer that adds up what it is told: "confirm ghost".
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (*counts) Start(ctx context.Context, _ pabal.Step) (context.Context, func(error)) {
	return ctx, func(error) {}
}

func (c *counts) Count(n pabal.Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[n.Step+" "+n.Result] += n.N
	c.n[n.Step+" "+n.Result+", batches"]++
}

func (c *counts) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

// message is what the tests read of a body.
type message struct {
	ID       uuid.UUID `json:"id"`
	Time     time.Time `json:"time"`
	SentAt   time.Time `json:"sentat"`
	Position string    `json:"position"`
	Job      string    `json:"job"`
	Skipped  bool      `json:"skipped"`
}

func read(t *testing.T, body []byte) (m message) {
	t.Helper()
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// edited is a message with other fields; nil removes one.
func edited(t *testing.T, body []byte, fields map[string]any) []byte {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
