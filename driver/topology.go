package driver

import (
	"context"
	"io"
)

// Canaries are messages that prove a subscription: whoever reads a queue answers one by a message to the queue that it names.
const (
	CanaryType  = "pabal.canary"
	ReplyPrefix = "pabal-verify-" // begins the names of such queues, so that no message can have consumers send to any other
)

// Surveyor is what a [Broker] also implements whose topology people look after: an account at Amazon, a cluster. It is what
// `pabal topology` calls. Brokers without one are made ready by Check alone.
type Surveyor interface {
	// Plan says what Check would change, in words, in a stable order, the same each time. Empty: nothing.
	Plan(ctx context.Context, t Topology) ([]string, error)
	// Formats are what Print knows, such as "terraform".
	Formats() []string
	// Print writes a document in one of the Formats from which others make the topology, or grant what it needs.
	Print(w io.Writer, format string, t Topology) error
	// Audit looks for what is there and endangers a promise.
	Audit(ctx context.Context, t Topology) ([]Finding, error)
	// DeadLetters counts the messages that a broker has put aside, by queue, for queues that have any.
	DeadLetters(ctx context.Context, t Topology) ([]DeadLetter, error)
	// Revive brings the dead letters of a queue back to it and says how many it has begun with.
	Revive(ctx context.Context, queue string) (int, error)
	// RemoveQueue removes a queue that was made for a while.
	RemoveQueue(ctx context.Context, queue string) error
}

// Finding is something that an audit found, with the way to mend it.
type Finding struct {
	What string `json:"what"`
	Mend string `json:"mend"`
}

// DeadLetter is a queue beside which messages lie that were delivered too often.
type DeadLetter struct {
	Queue    string `json:"queue"`
	Messages int    `json:"messages"`
}
