package driver

import (
	"context"
	"fmt"
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
	Auditor
	// Plan says what Check would change, in words, in a stable order, the same each time. Empty: nothing.
	Plan(ctx context.Context, t Topology) ([]string, error)
	// Formats are what Print knows, such as "terraform".
	Formats() []string
	// Print writes a document in one of the Formats from which others make the topology, or grant what it needs.
	Print(w io.Writer, format string, t Topology) error
	// DeadLetters counts the messages that a broker has put aside, by queue, for queues that have any.
	DeadLetters(ctx context.Context, t Topology) ([]DeadLetter, error)
	// Revive brings the dead letters of a queue back to it and says how many it has begun with.
	Revive(ctx context.Context, queue string) (int, error)
	// RemoveQueue removes a queue that was made for a while.
	RemoveQueue(ctx context.Context, queue string) error
}

// Auditor is what a [Broker] also implements that can tell what is there, or missing, and endangers a promise.
type Auditor interface {
	// Audit compares the topology, and the broker's settings as far as they can be read, with what the promises need. It changes
	// nothing. The error says that something could not be looked at.
	Audit(ctx context.Context, t Topology) ([]Finding, error)
}

// StoreAuditor is what a [Store] also implements whose database has settings that endanger a promise and are no reason to
// refuse it: Open refuses those that break one.
type StoreAuditor interface {
	// Audit looks at the settings as the store's own connections have them. It changes nothing, and is called after Open. The
	// error says that something could not be looked at.
	Audit(ctx context.Context) ([]Finding, error)
}

// Finding is something that an audit found, with the way to mend it.
type Finding struct {
	Severity Severity `json:"severity"`
	Promise  string   `json:"promise,omitempty"` // the endangered ones, such as "P1" or "P1, P4"; empty: none
	What     string   `json:"what"`
	Mend     string   `json:"mend"` // a command, a statement or a setting; what explains it stands behind " # "
}

// Severity says how bad a finding is.
type Severity int

const (
	// AtRisk: the promise holds until a fault comes, such as a power cut, that it is meant to survive. The zero value.
	AtRisk Severity = iota
	// Broken: the promise does not hold as things are.
	Broken
	// Note: no promise is endangered; it costs time, hides a trouble, or cannot be seen from here.
	Note
)

var severities = [...]string{"at risk", "broken", "note"}

func (s Severity) String() string {
	if s < 0 || int(s) >= len(severities) {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return severities[s]
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Severity) UnmarshalText(text []byte) error {
	for i, name := range severities {
		if name == string(text) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no severity", text)
}

// DeadLetter is a queue beside which messages lie that were delivered too often.
type DeadLetter struct {
	Queue    string `json:"queue"`
	Messages int    `json:"messages"`
}
