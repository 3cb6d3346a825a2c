// Package driver holds the contracts between Pabal's core and a database or a broker, as database/sql/driver does for
// database/sql. Programs that publish or consume events never import it; whoever teaches Pabal a new database or broker
// implements [Store] and [Inbox], or [Broker], and runs the conformance suites storetest and brokertest, in which every
// sentence of these contracts is a case.
//
// A driver translates and decides nothing: what may be published, parked, held or forgotten is computed by pure
// functions in package pabal, which a store calls back (see [Store.Claim]) or whose results it writes. If two drivers
// hold the same "if", it belongs into the core.
//
// # Rules for every method
//
//   - Concurrency: every method may be called by any number of goroutines at once, on any number of processes.
//   - Context: a method returns soon after its context ends, with the context's error in the chain, and what it was
//     doing either happened as a whole or not at all; the caller then does not know which.
//     [Broker.Receive] is the one exception.
//   - Slices and their contents belong to the caller again when the method returns; a driver keeps nothing of them. What
//     a method returns belongs to the caller.
//   - Times are the database's clock at the statement (never a transaction's start), in UTC, with a resolution of one
//     microsecond. The zero time.Time stands for SQL's null.
//   - Nothing is retried inside a driver. An error says that nothing is known about the effect, unless a sentence here
//     says more.
//   - Errors wrap the sentinels of this package where one fits. Everything else counts as "the database, or the broker,
//     is away": the core waits and asks again.
package driver

import (
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Sentinel errors that a driver wraps with %w. Package pabal exports them under the same names.
var (
	// ErrNoTransaction: the handle is nil, is not a transaction, or its transaction is finished. Nothing was sent.
	ErrNoTransaction = errors.New("not an open transaction")
	// ErrUnwatched: the transaction runs on a connection whose commits Pabal cannot see, for it does not come from a
	// pool made with the driver's Watch. Nothing was sent.
	ErrUnwatched = errors.New("the transaction's connection is not watched")
	// ErrSchema: Pabal's tables are missing or of another version. The message names the command that mends it.
	ErrSchema = errors.New("database schema")
	// ErrSource: the store keeps the events of a source of another name.
	ErrSource = errors.New("source name differs from the stored one")
	// ErrDestination: a topic or queue is missing, access to it is denied, or credentials expired: no message's fault,
	// and nothing is sent there until it is mended.
	ErrDestination = errors.New("destination refuses")
)

// MissingError is what [Broker.Check] answers when topology is missing and may not be created.
type MissingError struct {
	Missing []string // each as an operator would name it, such as "topic order-pay-done"
}

func (e *MissingError) Error() string {
	return "missing at the broker: " + strings.Join(e.Missing, ", ") +
		" (create them, or let Pabal do it: Options.FixedTopology false)"
}

// Ref names an event and its place among the events of its key. The zero Ref stands for "none is known".
type Ref struct {
	ID         uuid.UUID
	Position   int64
	RecordedAt time.Time
}

// IsZero reports whether r names no event.
func (r Ref) IsZero() bool { return r.ID == uuid.Nil }

// Event is a row of the table event. It never changes after Record but for Skipped and PublishedAt.
type Event struct {
	ID          uuid.UUID
	Topic       string
	Type        string
	Key         string // "" for an event without key, hence without order
	ContentType string // of the payload: application/json, application/octet-stream
	Version     string // of the payload's schema ("dataversion"); may be empty
	Payload     []byte // stored byte for byte
	Headers     []byte // a JSON object of strings, or nil; stored byte for byte
	Traceparent string // W3C Trace Context of the recording code, 55 bytes; may be empty
	Bare        bool   // its message is the payload alone, with attributes beside it; such an event has no key

	RecordedAt  time.Time // written by the store
	Position    int64     // written by the store; 0 for an event without key
	Prev        Ref       // written by the store; zero where no earlier event of the key is known
	Skipped     bool      // an operator decided that it is delivered as a skip
	PublishedAt time.Time // zero until it came back from the broker
}

// Ref returns the event's own reference.
func (e *Event) Ref() Ref { return Ref{ID: e.ID, Position: e.Position, RecordedAt: e.RecordedAt} }

// Pending is a row of the work list: an event that is recorded and not confirmed.
type Pending struct {
	ID         uuid.UUID
	RecordedAt time.Time
	Topic      string
	DueAt      time.Time // from when the republisher may take it; zero: parked
	Claims     int       // the fence: raised by each claim, never lowered
	Crashes    int       // claims in a row that ended without any verdict
	Failures   int       // times it was accepted, and did not come back although its topic is proven
	AcceptedAt time.Time // last acceptance by the broker
	SentAt     time.Time // last claim; zero while only its writer has sent it
	LastError  string    // at most 500 bytes, valid UTF-8
}

// Parked reports whether the event waits for an operator.
func (p *Pending) Parked() bool { return p.DueAt.IsZero() }
