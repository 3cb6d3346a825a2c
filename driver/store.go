package driver

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Store is a producing database: the tables event, pending, topic, counter, redelivery and meta. X is the handle of the
// caller's transaction (*sql.Tx, pgx.Tx). A store takes a small, documented number of connections of its own and never
// uses the caller's connection but in Record.
type Store[X any] interface {
	// Open checks that the tables are there and of the version that this driver speaks, or of the next one, with which it
	// lives while processes are replaced (ErrSchema names what mends it), and that the stored source equals source (ErrSource names both); a store without one takes it. An
	// empty source, for operators, accepts whatever is stored. It is called before any other method. It also checks that the pool is watched (ErrUnwatched).
	Open(ctx context.Context, source string) error

	// Record inserts the events of r into the transaction tx, each with a pending row of Claims 0 that falls due at
	// clock + r.Lease, and fills in their RecordedAt, Position and Prev.
	//
	// It takes a fixed number of statements however many events there are. An error leaves the transaction as a failed
	// statement does in that database. On a handle that is not an open transaction it answers ErrNoTransaction, on an
	// unwatched connection ErrUnwatched; in both cases nothing is sent and r.Outcome is never called.
	//
	// Events with a key take the next position of (topic, key): within a run positions follow without gaps, the first
	// position of a run is max(clock in milliseconds, topic's position_floor + 1), Prev is the key's event before, also
	// within one call, zero in a new counter. After a restore (Chore.Restored) a counter's next event starts a new run,
	// above the old one, with the surviving last event as Prev. Counter rows are locked in (topic, key) order within a
	// call. Until the transaction ends, other transactions that record the same key wait, so that position order is
	// commit order; a rollback, of a savepoint too, leaves no gap. Transactions on different keys, also new ones, do
	// not deadlock each other at the database's default isolation.
	Record(ctx context.Context, tx X, r Recording) error

	// Claim selects pending rows, locks them, skips those that others hold locked, and calls s.Decide once with the
	// clock and the rows, oldest DueAt first (by ids: in no particular order). It writes back the rows that Decide
	// returns, whole, and returns them with their events, in the order of Decide. Rows that Decide leaves out stay as they
	// were. If nothing is selected Decide is not called and the answer is empty.
	//
	// All of it is one short READ COMMITTED transaction (or the database's equal) on a connection of the store's own,
	// committed when Claim returns: it sees only committed rows, and two concurrent claims never return the same row
	// with the same Claims. Decide is pure and may be called again if the transaction has to be repeated.
	Claim(ctx context.Context, s Selection) ([]Claimed, error)

	// Settle writes verdicts, each only if the pending row still has Claims equal to the verdict's (the fence); rows
	// that are gone, fenced off, or locked by someone else are passed over without an error. Crashes becomes 0, DueAt
	// clock + Delay, or null when Park; AcceptedAt becomes the clock when Accepted; LastError becomes Error unless that is
	// empty. One batch is one transaction and a fixed number of statements.
	Settle(ctx context.Context, verdicts []Settlement) error

	// Confirm deletes the pending rows of the events (parked or not), sets PublishedAt to the clock where it is null,
	// and answers for each, in the order given, what it found. A repeated Confirm changes nothing. One batch is one
	// transaction, durable when Confirm returns, and a fixed number of statements. The same id may come twice in a
	// batch; then the first is answered Confirmed, the second Known.
	Confirm(ctx context.Context, events []Ref) ([]Confirmation, error)

	// Read answers what q asks for, from committed data.
	Read(ctx context.Context, q Query) (Reading, error)

	// Tend does the chores of c and says how many rows it removed or changed. Each chore is a transaction of its own; a
	// chore that fails leaves those before it done. Chores are idempotent.
	Tend(ctx context.Context, c Chore) (int, error)

	// Inbox is the consuming half of the same database.
	Inbox() Inbox[X]
}

// Recording is one call of Record.
type Recording struct {
	Events []Event       // at least one; the store fills in RecordedAt, Position, Prev
	Lease  time.Duration // 0: due at once
	// Outcome is called exactly once, when the transaction's end has been seen; if the connection is dropped by its
	// pool without one, then too. It does not block. See CommitWatch.
	Outcome func(CommitState)
}

// Selection says which pending rows a Claim is about: those of IDs (parked ones too), or else up to Limit of Topic that
// are due.
type Selection struct {
	IDs   []Ref // by id; RecordedAt may be zero; the fields below but Decide are then ignored
	Topic string
	Limit int // ≥ 1
	// Accepted selects rows that were accepted before AcceptedBefore; false selects rows that never were.
	Accepted       bool
	AcceptedBefore time.Time // zero: whenever
	// After is a hint: no due row is older, so that an index scan may begin here. Zero: no hint.
	After time.Time
	// Probe, unless 0: select only if the topic's ProbedAt is null or at least this old, and set it to the clock in the
	// same transaction. Of concurrent probes of a topic one succeeds.
	Probe  time.Duration
	Decide func(now time.Time, rows []Pending) []Decision
}

// Decision is a pending row as it shall be from now on.
type Decision struct {
	Pending
	Skip bool // also mark the event as skipped
}

// Claimed is a pending row as written, with its event.
type Claimed struct {
	Pending
	Event Event
}

// Settlement is the verdict on one try of one event.
type Settlement struct {
	ID         uuid.UUID
	RecordedAt time.Time
	Claims     int // the fence
	Accepted   bool
	Park       bool
	Delay      time.Duration
	Error      string // at most 500 bytes, valid UTF-8
}

// Confirmation says what Confirm found.
type Confirmation int

const (
	// Absent: there is no such event in this store. The zero value.
	Absent Confirmation = iota
	// Confirmed: the event was pending and is now published.
	Confirmed
	// Known: the event is there and was published before.
	Known
)

// Query says what Read shall answer. Fields left zero are not answered, so the cheap things stay cheap.
type Query struct {
	// Topics asks for every topic that is registered or has pending rows, each with its OldestDue (not older than After,
	// a hint as in Selection). It is the one statement of an idle sweep: it costs a few index lookups per topic however
	// many rows there are.
	Topics bool
	After  time.Time
	// Counts adds Waiting and Parked to each topic, each counted to CountMax at most.
	Counts bool
	// Events asks for events.
	Events *EventFilter
	// Count asks how many events a filter selects, all of them: its After, Descending and Limit do not count. It may read
	// every event of the store, and is for an operator who is about to send them once more.
	Count *EventFilter
	// Jobs asks for redelivery jobs, newest first: unfinished ones and the last 20 others.
	Jobs bool
}

// CountMax bounds every count that Read makes, so that status costs the same with a million rows.
const CountMax = 10_000

// Reading is the answer of Read.
type Reading struct {
	Now        time.Time // the database's clock; always answered
	Source     string    // always answered
	Generation int       // always answered
	ReadOnly   bool      // always answered where the database tells: nothing can be written here now (a replica; a server that is set so)
	Topics     []Topic   // by name
	Events     []Found
	Count      int
	Jobs       []Job
}

// Topic is a row of the table topic, with what its pending rows add.
type Topic struct {
	Name          string
	Ordered       bool      // events with a key have been recorded to it
	ProvenAt      time.Time // something sent at or after this moment has come back
	ProbedAt      time.Time // last lone probe of accepted events
	PositionFloor int64
	OldestDue     time.Time // lowest DueAt of its pending rows, due or not; zero: none
	OldestWaiting time.Time // with Counts: lowest RecordedAt among its pending rows that are not parked
	Waiting       int       // with Counts: pending and not parked
	Parked        int       // with Counts
}

// EventState narrows an EventFilter.
type EventState int

const (
	AnyState      EventState = iota
	Unconfirmed              // has a pending row, parked or not
	ParkedOnly               // parked
	LateOnly                 // has a pending row that is not parked and was recorded more than EventFilter.Late ago
	ConfirmedOnly            // has no pending row
)

// EventFilter selects events; fields left zero do not narrow.
type EventFilter struct {
	IDs   []uuid.UUID // at most 1,000
	Topic string
	Type  string
	Key   string
	From  time.Time // RecordedAt at or after
	To    time.Time // RecordedAt before
	State EventState
	Late  time.Duration
	// After resumes after this event in the order (RecordedAt, ID); with Descending, before it.
	After      Ref
	Descending bool
	Limit      int // 1 to 1,000
}

// Found is an event with its pending row, nil once confirmed. Events are ordered by (RecordedAt, ID).
type Found struct {
	Event   Event
	Pending *Pending
}

// Chore is upkeep; a nil or zero field is not done.
type Chore struct {
	// Register makes the topic known; it turns Ordered on, never off.
	Register *Topic
	// Prove raises a topic's ProvenAt to at most the clock, never lowers it.
	Prove *Proof
	// Forget removes up to Limit confirmed events recorded before Before; it never touches one that has a pending row
	// (P7). Counters whose last event was recorded before Before, and is confirmed, go too, after raising their topic's
	// position_floor to their position, so that no position ever repeats. Finished redelivery jobs older than Before
	// go as well.
	Forget *Forget
	// Restored raises the generation; see Record.
	Restored bool
	// Job inserts or updates a redelivery job by its id.
	Job *Job
}

// Proof is what the confirmer saw come back for a topic.
type Proof struct {
	Topic  string
	SentAt time.Time
}

// Forget bounds one round of forgetting.
type Forget struct {
	Before time.Time
	Limit  int
}

// Job is a redelivery: its throttle, its audit record and its resume point. Finding its events is Read's matter.
type Job struct {
	ID         uuid.UUID
	CreatedAt  time.Time // written by the store when it is inserted
	By         string    // who asked
	Spec       []byte    // what is redelivered, where to and how fast: JSON that the core writes and reads
	Resume     Ref       // the last event that was sent
	Sent       int
	LastError  string
	FinishedAt time.Time // set to the clock by the store when Finished turns true
	Finished   bool
	// LeaseUntil keeps others from running it; the store sets it to clock + Lease with every update. A job whose lease is
	// not over may only be updated by its Owner: Tend then changes 0 rows.
	LeaseUntil time.Time
	Lease      time.Duration
	Owner      uuid.UUID
}
