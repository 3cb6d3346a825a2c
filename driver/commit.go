package driver

// CommitState is what became of a transaction that recorded events.
type CommitState int

const (
	// Void: the transaction ended without COMMIT as far as its connection could see (rollback, PREPARE TRANSACTION,
	// connection gone before COMMIT). The core forgets the events; if they were committed after all, the republisher
	// finds them (P1).
	Void CommitState = iota
	// Proven: from Record on the connection saw no error and no ROLLBACK, and then the answer to COMMIT. The events are
	// published at once.
	Proven
	// Doubtful: COMMIT was sent, but after an error or a ROLLBACK (of a savepoint, perhaps), or no answer came. The
	// events are claimed by id on another connection before they are published (P2).
	Doubtful
)

func (s CommitState) String() string {
	switch s {
	case Proven:
		return "proven"
	case Doubtful:
		return "doubtful"
	default:
		return "void"
	}
}

// CommitSignal is one thing that a driver saw on a connection.
type CommitSignal int

const (
	// SawBegin: a transaction was opened.
	SawBegin CommitSignal = iota
	// SawDoubt: something after which the connection cannot tell what a COMMIT would commit: an error, a ROLLBACK TO
	// SAVEPOINT, or a statement whose insides it cannot see (a procedure, several statements in one text).
	SawDoubt
	// SawCommit: the database answered COMMIT with success.
	SawCommit
	// SawCommitLost: COMMIT was sent, and failed or was not answered.
	SawCommitLost
	// SawEnd: the transaction is over without COMMIT: ROLLBACK, PREPARE TRANSACTION, or the connection is gone.
	SawEnd
)

// CommitWatch is the commit state machine of one connection, fed by a driver with what it sees there. It is pure: no
// clock, no I/O. The zero value is a connection outside any transaction. It is not safe for concurrent use, as a
// database connection is not; a driver whose connection can be closed from elsewhere locks around it.
type CommitWatch struct {
	open    bool
	entries []watchEntry
}

type watchEntry struct {
	outcome func(CommitState)
	doubt   bool
}

// Open reports whether a transaction is open.
func (w *CommitWatch) Open() bool { return w.open }

// Recording notes that events are being recorded in the open transaction; outcome is called exactly once, by a later
// [CommitWatch.See] that ends the transaction. It is noted before the insert is sent, so that an error of the insert
// itself makes it doubtful. It reports false, and notes nothing, when no transaction is open.
func (w *CommitWatch) Recording(outcome func(CommitState)) bool {
	if !w.open {
		return false
	}
	w.entries = append(w.entries, watchEntry{outcome: outcome})
	return true
}

// See takes in what happened on the connection and calls the outcomes that follow from it, in the order of Recording.
// They are called before See returns and must not block.
func (w *CommitWatch) See(s CommitSignal) {
	switch s {
	case SawBegin:
		w.end(func(bool) CommitState { return Void }) // a transaction that we lost sight of
		w.open = true
	case SawDoubt:
		for i := range w.entries {
			w.entries[i].doubt = true
		}
	case SawCommit:
		w.end(func(doubt bool) CommitState {
			if doubt {
				return Doubtful
			}
			return Proven
		})
	case SawCommitLost:
		w.end(func(bool) CommitState { return Doubtful })
	case SawEnd:
		w.end(func(bool) CommitState { return Void })
	}
}

func (w *CommitWatch) end(state func(doubt bool) CommitState) {
	entries := w.entries
	w.open, w.entries = false, nil
	for _, e := range entries {
		e.outcome(state(e.doubt))
	}
}
