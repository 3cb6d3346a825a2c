package driver

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Broker is a message broker that copies what is published to a topic into every queue subscribed to it. It delivers at
// least once, in any order, and may lose: the core lives with all of it.
type Broker interface {
	// Limits says what the broker can take and do. It is constant.
	Limits() Limits

	// Check compares the topology with what is there. With create it makes what is missing and returns nil; it never
	// deletes or recreates, and is safe to call from many processes at once and again at any time. Without create it
	// answers a *MissingError that names everything missing. What is published to a topic after Check has returned nil
	// reaches every queue whose subscription to it was part of t.
	Check(ctx context.Context, t Topology, create bool) error

	// Publish sends messages, at most Limits.Batch and Limits.BatchBytes in sum, to one destination, in order, and answers
	// one verdict per message, in the order given. A verdict is Accepted only if the broker has acknowledged that very
	// message as stored, as durably as the broker is configured. The zero verdict is Again: a lost answer, a message
	// that the answer does not mention, an ended context. Never is for a message that can never succeed unchanged. A
	// destination's fault is Again with ErrDestination in Err. Each message is tried once. Messages of one Group are
	// stored in order where the broker knows groups: what follows a failed one of its group in the same call is Again.
	// Publish returns before ctx's deadline passes by more than a moment.
	Publish(ctx context.Context, to Destination, messages []Message) []Verdict

	// Receive waits for messages of a queue and returns at least one and at most max, or none after Limits.Wait, or an
	// error. The context's end means "start no further wait": the call may return late, by up to Limits.Wait, and with
	// messages, which then are the caller's to handle or give back; it is no error. Several Receives on a queue, here
	// and on other processes, share its messages. A message is not delivered again while it is held: for Limits.Hold
	// after it was received or extended, until it is acknowledged or given back. A message that is not acknowledged in
	// time is delivered again, with a higher Attempt.
	Receive(ctx context.Context, queue string, max int) ([]Delivery, error)

	// Ack removes deliveries of a queue from it for ever, and returns when the broker has the acknowledgement on its
	// way; one that gets lost only means a further delivery. An error concerns at least one of them.
	Ack(ctx context.Context, queue string, deliveries []Delivery) error

	// Extend keeps deliveries ours for another d; 0 gives them back for delivery to anyone at once (after a moment). It
	// answers the indexes of those that are no longer ours. On a broker where Limits.Hold is 0, a message stays ours as
	// long as the connection does, and d > 0 is a no-op.
	Extend(ctx context.Context, queue string, deliveries []Delivery, d time.Duration) (lost []int, err error)

	// Close releases what the broker holds. Deliveries neither acknowledged nor given back come again, to anyone, within
	// Limits.Hold, none is lost. No other method is called during or after it; a second Close does nothing.
	Close() error
}

// Limits is what a broker can take and do. Zero stands for "no limit" in sizes and counts.
type Limits struct {
	Message    int           // bytes of a message, body and attributes together
	Batch      int           // messages in a Publish
	BatchBytes int           // bytes in a Publish
	Receive    int           // messages in a Receive
	InFlight   int           // messages of a queue that may be held and not acknowledged at a time
	Name       int           // bytes of a topic's or queue's name, of letters, digits, '-' and '_'
	Hold       time.Duration // how long a received message stays ours without Extend; 0: while we are connected
	Wait       time.Duration // longest time that Receive waits
	Redelivery time.Duration // longest time after which a message may still come, again or at last; 0: unbounded
}

// Topology is what shall exist at the broker.
type Topology struct {
	Topics []TopicSpec `json:"topics"`
	Queues []QueueSpec `json:"queues"`
}

// TopicSpec describes a topic.
type TopicSpec struct {
	Name    string `json:"name"`
	Ordered bool   `json:"ordered,omitempty"` // its events have keys; a FIFO topic where the broker is configured for it
}

// QueueSpec describes a queue and its subscriptions.
type QueueSpec struct {
	Name   string   `json:"name"`
	Topics []string `json:"topics,omitempty"` // each also listed in Topology.Topics
}

// Destination is where messages are sent: a topic, or straight to one queue.
type Destination struct {
	Topic string
	Queue string // instead of Topic
}

func (d Destination) String() string {
	if d.Queue != "" {
		return "queue " + d.Queue
	}
	return "topic " + d.Topic
}

// Message is one event on its way out. The body is text that every broker may carry (the core sees to it), or, for types
// with a bare payload, that payload.
type Message struct {
	ID         uuid.UUID
	Dedup      string // at most 128 characters; a broker that deduplicates does it by this, and only by this
	Group      string // the event's key, any text; "": none
	Body       []byte
	Attributes []Attribute // at most 4; Limits.Message includes them
}

// Attribute is routing information beside the body: short, printable ASCII.
type Attribute struct {
	Name  string
	Value string
}

// VerdictKind is a broker's answer about one message.
type VerdictKind int

const (
	// Again: not stored, or not known to be stored; a later try may succeed.
	Again VerdictKind = iota
	// Accepted: stored.
	Accepted
	// Never: no try will ever succeed.
	Never
)

func (k VerdictKind) String() string { return [...]string{"again", "accepted", "never"}[k] }

// Verdict is what became of one message.
type Verdict struct {
	Kind  VerdictKind
	Delay time.Duration // of Again: not before; 0: the core decides
	Err   error         // why, unless Accepted
}

// Delivery is one received copy of a message.
type Delivery struct {
	Body       []byte
	Attributes []Attribute
	Attempt    int // 1 for the first delivery as far as the broker tells; never 0
	Receipt    any // the driver's own
}
