package driver

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Inbox is a consuming database: the tables inbox, cursor and consumer. Everything in it belongs to a named consumer; all
// processes of a consumer share it.
type Inbox[X any] interface {
	// Begin opens a transaction for handlers at the database's default isolation; on databases with one writer it takes
	// the write lock at once. The transaction lives until End, also when ctx ends before.
	Begin(ctx context.Context) (X, error)

	// End ends a transaction of Begin. Commit answers nil only when the database has acknowledged the commit, also when
	// the handler has already committed it by itself; ErrNoTransaction when the handler rolled it back. Rollback and
	// Abandon answer nil for a transaction that is over. Abandon is for a handler that is still running with it: the
	// connection is closed beneath it, so that it can never commit.
	End(ctx context.Context, tx X, how Ending) error

	// Load does, in tx, the reading and locking that the core needs in order to place arrivals.
	//
	// First it inserts a row of state Done for every arrival whose (consumer, source, id, job) is absent; the unique key
	// decides, so that of two concurrent transactions the second waits for the first. Then it inserts the cursors of
	// Keys that are absent, not begun, and locks all of Keys, in (source, topic, key, job) order. It answers the
	// arrivals' rows, the cursors in the order of Keys, with the lowest waiting rows of each, and the clock.
	Load(ctx context.Context, tx X, l Load) (Loaded, error)

	// Save writes rows and cursors in tx: rows by (consumer, source, id, job), inserted if absent, whole; a row of
	// state Gone is deleted; cursors whole. A fixed number of statements per kind of change, or one per row where the
	// database is in the same process.
	Save(ctx context.Context, tx X, s Save) error

	// Due selects rows of a consumer that are held or parked: up to s.Limit whose NextAt has come, oldest first, or, by
	// s.IDs, whatever their NextAt. It skips those locked by others, calls s.Decide once with the clock and the rows,
	// and writes back, whole, and returns the rows that Decide returns: as Store.Claim, one short transaction of its
	// own. If nothing is selected it costs one statement and writes nothing.
	Due(ctx context.Context, s InboxSelection) ([]Row, error)

	// Read answers what q asks for.
	Read(ctx context.Context, q InboxQuery) (InboxReading, error)

	// Tend does the chores of c, as Store.Tend does.
	Tend(ctx context.Context, c InboxChore) (int, error)

	// Conflict reports whether err, from this inbox or from a handler that used its transaction, is a serialization
	// failure or a deadlock: running the same transaction again may succeed.
	Conflict(err error) bool
}

// Ending says how a transaction ends.
type Ending int

const (
	Rollback Ending = iota
	Commit
	Abandon
)

// RowState is the state of an inbox row.
type RowState int

const (
	// Done: handled, skipped, or not to be handled. It only remembers the id; Body is not kept.
	Done RowState = iota
	// Held: waits for its predecessor, or for its next try at NextAt.
	Held
	// Parked: waits for an operator.
	Parked
	// Gone, in a Save: the row is deleted.
	Gone
)

func (s RowState) String() string { return [...]string{"done", "held", "parked", "gone"}[s] }

// CursorKey names the place up to which a consumer has seen the events of a key. Job is the zero UUID but for events
// that are redelivered in order to be handled again.
type CursorKey struct {
	Source string
	Topic  string
	Key    string
	Job    uuid.UUID
}

// Cursor is a row of the table cursor.
type Cursor struct {
	CursorKey
	Begun bool  // false: inserted only to be locked, or its first events are still held
	Began int64 // position of the first event that this consumer took of the key
	Last  Ref   // the event that it saw last; zero when it has begun before its first event
	// Overflow is the first event that was not stored because too many were held already; zero: none.
	Overflow Ref
	// MovedAt is written by the store with every Save.
	MovedAt time.Time
}

// Row is a row of the table inbox: an event as one consumer received it.
type Row struct {
	CursorKey
	ID         uuid.UUID
	Type       string
	Position   int64 // 0: without order; it then has no cursor
	Prev       Ref
	RecordedAt time.Time
	SentAt     time.Time
	State      RowState
	Reason     string    // why it is held or parked, a stable word first
	NextAt     time.Time // when the inbox sweep looks at it again; zero: when its cursor moves, or never
	Failures   int       // tries of its handler that failed
	Started    int       // starts of its handler whose outcome is not known
	LastError  string    // at most 500 bytes, valid UTF-8
	Body       []byte    // the message's body while the row is Held or Parked
	ReceivedAt time.Time // written by the store when the row is inserted
}

// Load is a call of Inbox.Load.
type Load struct {
	Consumer string
	Arrivals []Row       // of state Done, no event twice; inserted where absent
	Keys     []CursorKey // distinct; those of the arrivals with a position
	Waiting  int         // how many waiting rows of each key to answer at most; 0 to 101
}

// InboxSelection says which rows a Due is about.
type InboxSelection struct {
	Consumer string
	Limit    int
	IDs      []uuid.UUID // rows of every job; then Limit does not apply
	Decide   func(now time.Time, rows []Row) []Row
}

// Loaded is the answer of Inbox.Load.
type Loaded struct {
	Now time.Time
	// Known holds for each arrival, in order, the row that was there already, or nil if Load inserted it.
	Known []*Row
	// Cursors and Waiting are in the order of Load.Keys. Waiting rows are those of the lowest positions: held ones, and
	// parked ones above the cursor's Last.Position (what is parked below stops nothing). WaitingCount says how many
	// held ones there are, counted to CountMax at most.
	Cursors      []Cursor
	Waiting      [][]Row
	WaitingCount []int
	// Memory holds one entry for each distinct (source, topic) of arrivals and keys.
	Memory []Memory
}

// Memory is a row of the table consumer: what a consumer knows of a source's topic.
type Memory struct {
	Source       string
	Topic        string
	JoinedAt     time.Time // lowest SentAt ever seen; zero: it never joined
	ForgotBefore time.Time // of the whole consumer: rows of events recorded before may be removed
}

// Save is a call of Inbox.Save.
type Save struct {
	Consumer string
	Rows     []Row
	Cursors  []Cursor
}

// InboxQuery says what Read shall answer.
type InboxQuery struct {
	Consumer string // "" in a query of Consumers: all
	// Consumers asks for every consumer with its counts, each counted to CountMax at most.
	Consumers bool
	// Rows asks for held and parked rows.
	Rows *RowFilter
	// Cursors asks for the cursors of these keys, or, with Overflowing, for up to 100 that overflow.
	Cursors     []CursorKey
	Overflowing bool
	// Memories asks for the consumer's rows of the table consumer.
	Memories bool
}

// RowFilter selects inbox rows; fields left zero do not narrow. Rows are ordered by (source, topic, key, job, position,
// id).
type RowFilter struct {
	IDs    []uuid.UUID
	State  RowState // Held or Parked; Done: both
	Done   bool     // with IDs, and State Done: rows that are done too
	Source string
	Topic  string
	Key    string
	Job    uuid.UUID // the zero UUID narrows to rows without job only if Key is given
	Limit  int       // 1 to 1,000
}

// InboxReading is the answer of Inbox.Read.
type InboxReading struct {
	Now       time.Time
	Consumers []ConsumerCounts // by name
	Rows      []Row
	Cursors   []Cursor
	Memories  []Memory
}

// ConsumerCounts is what status shows of a consumer.
type ConsumerCounts struct {
	Consumer   string
	Held       int       // waiting for a predecessor or a next try
	Parked     int       // waiting for an operator
	OldestHeld time.Time // lowest ReceivedAt of the held ones
	Overflow   int       // keys that overflow
}

// InboxChore is upkeep; a nil field is not done.
type InboxChore struct {
	Consumer string
	// Join notes that a message sent at SentAt was received: it inserts the row of (source, topic), or lowers JoinedAt.
	Join *Join
	// Forget first raises ForgotBefore of the consumer to Before, never lowers it, and commits; then removes up to Limit
	// Done rows of events recorded more than Margin before that, and as many begun cursors whose last event was recorded
	// before that and that have no waiting rows. Margin is longer than any transaction: one that still saw the old
	// ForgotBefore finds the rows it needs.
	Forget *InboxForget
}

// Join is a sighting of a source's topic; with an empty Source, the moment since which the queue is subscribed to it.
type Join struct {
	Source string
	Topic  string
	SentAt time.Time
}

// InboxForget bounds one round of forgetting.
type InboxForget struct {
	Before time.Time
	Margin time.Duration
	Limit  int
}
