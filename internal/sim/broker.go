package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// BrokerOptions say how a broker behaves; the zero value is a good one that does not deduplicate.
type BrokerOptions struct {
	Limits driver.Limits // zero: Hold 30 s, Wait 5 s, 1 MiB, no bounds on batches
	Dedup  time.Duration // a message of the same Dedup within this time is accepted and dropped
	Groups bool          // what follows a failed message of its group in the same call is not stored

	// In a thousand messages, until Calm:
	Forget    int // accepted, and forgotten: no queue gets a copy
	Duplicate int // a copy reaches its queue twice
	Shuffle   int // a delivery is taken from anywhere in the queue
	Again     int // answered so, not stored
	// Answer, if not nil, is asked about each published message, without any lock: forget says that it is accepted and
	// reaches no queue, another verdict than Accepted is the broker's own.
	Answer func(to driver.Destination, m driver.Message) (v driver.Verdict, forget bool)
}

// BrokerServer is a broker; it survives the processes that use it.
type BrokerServer struct {
	w world.World
	o BrokerOptions

	mu     sync.Mutex
	topics map[string][]*queue
	queues map[string]*queue
	order  []*queue // in order of creation
	seen   map[string]world.Mono
	seenAt []seenDedup
	calm   bool
	count  int // messages accepted on topics

	onPublish func(*driver.Message)
}

type seenDedup struct {
	dedup string
	until world.Mono
}

type queue struct {
	name  string
	ready []*stored
	held  []hold // in order of their ends, but for what was extended: that is here again
	wake  world.Signal
	fed   map[string]bool // topics
	taken int             // deliveries, repeated ones included
}

type stored struct {
	body       []byte
	attributes []driver.Attribute
	attempt    int
	until      world.Mono // held until; 0: ready
	done       bool
}

type hold struct {
	m     *stored
	until world.Mono
}

type receipt struct {
	m       *stored
	attempt int
}

// NewBrokerServer starts a broker in w.
func NewBrokerServer(w world.World, o BrokerOptions) *BrokerServer {
	if o.Limits == (driver.Limits{}) {
		o.Limits = driver.Limits{Message: 1 << 20, Name: 80, Hold: 30 * time.Second, Wait: 5 * time.Second,
			Redelivery: 4 * 24 * time.Hour}
	}
	return &BrokerServer{w: w, o: o, topics: map[string][]*queue{}, queues: map[string]*queue{}, seen: map[string]world.Mono{}}
}

// Calm ends the broker's own faults for good.
func (b *BrokerServer) Calm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm = true
}

// Accepted is how many messages were accepted on topics so far.
func (b *BrokerServer) Accepted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// Subscribers is how many queues get a copy of what is published to a topic.
func (b *BrokerServer) Subscribers(topic string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.topics[topic])
}

// Unsubscribe removes a queue's subscription, behind everybody's back; Check puts it back.
func (b *BrokerServer) Unsubscribe(queueName, topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[queueName]
	if q == nil || !q.fed[topic] {
		return
	}
	delete(q.fed, topic)
	b.topics[topic] = slices.DeleteFunc(b.topics[topic], func(other *queue) bool { return other == q })
}

// Remove removes a topic with its subscriptions, behind everybody's back.
func (b *BrokerServer) Remove(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.topics[topic] {
		delete(q.fed, topic)
	}
	delete(b.topics, topic)
}

// Connect is one process's connection.
func (b *BrokerServer) Connect(w world.World, l Link) driver.Broker {
	return &brokerConn{b: b, w: w, link: l}
}

type brokerConn struct {
	b    *BrokerServer
	w    world.World
	link Link
}

func (c *brokerConn) Limits() driver.Limits { return c.b.o.Limits }
func (c *brokerConn) Close() error          { return nil }

func (c *brokerConn) Check(ctx context.Context, t driver.Topology, create bool) error {
	return c.link.Call(ctx, Call{What: "check"}, func() error {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		return c.b.check(t, create)
	})
}

func (b *BrokerServer) check(t driver.Topology, create bool) error {
	var missing []string
	for _, topic := range t.Topics {
		if _, ok := b.topics[topic.Name]; !ok {
			missing = append(missing, "topic "+topic.Name)
			if create {
				b.topics[topic.Name] = []*queue{}
			}
		}
	}
	for _, spec := range t.Queues {
		q := b.queues[spec.Name]
		if q == nil {
			missing = append(missing, "queue "+spec.Name)
			if q = (&queue{name: spec.Name, wake: b.w.NewSignal(), fed: map[string]bool{}}); create {
				b.queues[spec.Name] = q
				b.order = append(b.order, q)
			}
		}
		for _, topic := range spec.Topics {
			if !q.fed[topic] {
				missing = append(missing, fmt.Sprintf("subscription of queue %s to topic %s", spec.Name, topic))
				if create {
					q.fed[topic] = true
					b.topics[topic] = append(b.topics[topic], q)
				}
			}
		}
	}
	if len(missing) > 0 && !create {
		return &driver.MissingError{Missing: missing}
	}
	return nil
}

func (c *brokerConn) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	verdicts := make([]driver.Verdict, len(messages))
	accepted := 0
	note := func() string { return fmt.Sprintf("%d to %s, %d accepted", len(messages), to, accepted) }
	err := c.link.Call(ctx, Call{What: "publish", Note: note, Twice: true, Late: true}, func() error {
		answers := c.b.ask(to, messages)
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		accepted = c.b.publish(to, messages, answers, verdicts)
		return nil
	})
	if err != nil {
		return slices.Repeat([]driver.Verdict{{Err: err}}, len(messages))
	}
	return verdicts
}

// answer is what BrokerOptions.Answer said.
type answer struct {
	driver.Verdict
	forget bool
}

// ask is done without mu: whoever answers may end the process that asks.
func (b *BrokerServer) ask(to driver.Destination, messages []driver.Message) []answer {
	if b.o.Answer == nil {
		return nil
	}
	answers := make([]answer, len(messages))
	for i := range messages {
		answers[i].Verdict, answers[i].forget = b.o.Answer(to, messages[i])
	}
	return answers
}

func (b *BrokerServer) publish(
	to driver.Destination, messages []driver.Message, answers []answer, verdicts []driver.Verdict,
) (accepted int) {
	var queues []*queue
	var exists bool
	if to.Queue != "" {
		var q *queue
		if q, exists = b.queues[to.Queue]; exists {
			queues = []*queue{q}
		}
	} else {
		queues, exists = b.topics[to.Topic]
	}
	var failed []string // groups
	for i := range messages {
		m := &messages[i]
		said := answer{Verdict: driver.Verdict{Kind: driver.Accepted}}
		if answers != nil {
			said = answers[i]
		}
		switch {
		case !exists:
			verdicts[i] = driver.Verdict{Err: fmt.Errorf("%w: no %s", driver.ErrDestination, to)}
		case b.o.Limits.Message > 0 && len(m.Body) > b.o.Limits.Message:
			verdicts[i] = driver.Verdict{Kind: driver.Never, Err: fmt.Errorf("%d bytes, at most %d", len(m.Body), b.o.Limits.Message)}
		case said.Kind != driver.Accepted:
			verdicts[i] = said.Verdict
		case b.o.Groups && m.Group != "" && slices.Contains(failed, m.Group), b.in(b.o.Again):
			verdicts[i] = driver.Verdict{Err: fmt.Errorf("busy")}
		default:
			verdicts[i] = driver.Verdict{Kind: driver.Accepted}
			accepted++
			b.store(to, queues, m, said.forget)
			continue
		}
		failed = append(failed, m.Group)
	}
	for _, q := range queues {
		q.wake.Set()
	}
	return accepted
}

func (b *BrokerServer) store(to driver.Destination, queues []*queue, m *driver.Message, forget bool) {
	if to.Topic != "" {
		b.count++
		if b.onPublish != nil {
			b.onPublish(m)
		}
	}
	if b.o.Dedup > 0 && b.repeated(to.String()+" "+m.Dedup) {
		return
	}
	if b.in(b.o.Forget) || forget {
		return
	}
	body := append([]byte(nil), m.Body...)
	attributes := append([]driver.Attribute(nil), m.Attributes...)
	for _, q := range queues {
		copies := 1
		if b.in(b.o.Duplicate) {
			copies = 2
		}
		for range copies {
			q.ready = append(q.ready, &stored{body: body, attributes: attributes})
		}
	}
}

func (b *BrokerServer) repeated(dedup string) bool {
	now := b.w.Now()
	for len(b.seenAt) > 0 && b.seenAt[0].until <= now {
		delete(b.seen, b.seenAt[0].dedup)
		b.seenAt = b.seenAt[1:]
	}
	if _, ok := b.seen[dedup]; ok {
		return true
	}
	b.seen[dedup] = now.Add(b.o.Dedup)
	b.seenAt = append(b.seenAt, seenDedup{dedup, now.Add(b.o.Dedup)})
	return false
}

// in reports, by chance, n times in a thousand.
func (b *BrokerServer) in(n int) bool { return n > 0 && !b.calm && b.w.Rand()%1000 < uint64(n) }
