package sim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// DatabaseOptions say what kind of database it is; the zero value is READ COMMITTED with row locks.
type DatabaseOptions struct {
	SingleWriter    bool // as SQLite: one transaction at a time
	SwallowDeadlock bool // as MariaDB: COMMIT of a transaction that lost a deadlock answers success
	Conflict        int  // in a thousand statements one loses a deadlock out of the blue
	Undo            int  // commits that Failover can take back
}

var (
	errConflict = errors.New("deadlock: transaction was rolled back")
	errBusy     = errors.New("locked") // internal: wait and try again
	// ErrUnique is what Insert answers for a key that exists.
	ErrUnique = errors.New("unique key violated")
)

// Database is a small database server: rows that are replaced as a whole, row locks with waiting and deadlock
// detection, savepoints. It survives the processes that use it.
type Database struct {
	w world.World
	o DatabaseOptions

	mu     sync.Mutex
	rows   map[rowKey]any // committed; values are never changed, only replaced
	locks  map[rowKey]*lock
	undo   [][]change
	batch  []change // of the commit under way
	calm   bool
	source string
	spare  []writes // of transactions that are over, for others to use

	onPending func(was, is *driver.Pending)
	onRow     func(consumer string, was, is *driver.Row)

	onDisorder func(what string)

	events  []*eventRow // by (RecordedAt, ID)
	pending map[string]*topicPending
	topics  []string                 // with a topic row or pending rows, by name
	waiting map[rowKey][]*driver.Row // held and parked inbox rows by cursor key, by position
	kept    map[string][]*driver.Row // held and parked inbox rows by consumer, in no particular, but repeatable, order
	inbox   map[inboxID]int          // inbox rows of any job
	members []string                 // consumers by name
	jobs    []uuid.UUID              // by creation
}

type tableID byte

const (
	tableEvent tableID = iota + 1
	tablePending
	tableTopic
	tableCounter
	tableCursor
	tableInbox
	tableConsumer
	tableJob
	tableMeta
	tableBusiness
	tableWriter // only a lock
)

type inboxID struct {
	consumer string
	id       uuid.UUID
}

// rowKey names a row of any table.
type rowKey struct {
	table  tableID
	name   string // consumer, or business table
	source string
	topic  string
	key    string
	id     uuid.UUID
	job    uuid.UUID
}

type eventRow struct{ driver.Event }

type topicPending struct {
	rows  []*driver.Pending
	index map[uuid.UUID]int
}

type counterRow struct {
	generation int
	last       driver.Ref
}

type change struct {
	key rowKey
	old any
}

// NewDatabase starts a database in w, whose clock on the wall is the database's clock.
func NewDatabase(w world.World, o DatabaseOptions) *Database {
	return &Database{
		w: w, o: o, rows: map[rowKey]any{}, locks: map[rowKey]*lock{}, pending: map[string]*topicPending{},
		inbox: map[inboxID]int{}, waiting: map[rowKey][]*driver.Row{}, kept: map[string][]*driver.Row{},
	}
}

// Calm ends the database's own faults for good.
func (d *Database) Calm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calm = true
}

func (d *Database) now() time.Time { return d.w.Wall().UTC().Truncate(time.Microsecond) }

// set replaces a committed row (nil: removes it) and keeps the indexes. The caller holds mu.
func (d *Database) set(key rowKey, value any) {
	old := d.rows[key]
	if d.o.Undo > 0 {
		d.batch = append(d.batch, change{key, old})
	}
	if value == nil {
		delete(d.rows, key)
	} else {
		d.rows[key] = value
	}
	d.reindex(key, old, value)
	if key.table == tablePending && d.onPending != nil {
		was, _ := old.(*driver.Pending)
		is, _ := value.(*driver.Pending)
		d.onPending(was, is)
	}
	if key.table == tableInbox && d.onRow != nil {
		was, _ := old.(*driver.Row)
		is, _ := value.(*driver.Row)
		d.onRow(key.name, was, is)
	}
}

// endCommit closes the undo record of what was set since the last one.
func (d *Database) endCommit() {
	if d.o.Undo == 0 || len(d.batch) == 0 {
		return
	}
	d.undo = append(d.undo, d.batch)
	d.batch = nil
	if len(d.undo) > d.o.Undo {
		d.undo = d.undo[1:]
	}
}

// Failover loses the last commits and breaks every open transaction.
func (d *Database) Failover(lose int) (lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; lost < lose && len(d.undo) > 0; lost++ {
		last := d.undo[len(d.undo)-1]
		d.undo = d.undo[:len(d.undo)-1]
		for i := len(last) - 1; i >= 0; i-- {
			d.set(last[i].key, last[i].old)
		}
		d.batch = nil
	}
	for _, l := range d.locks { // every owner loses all its locks: the order does not matter
		if l.owner != nil {
			l.owner.broken = true
		}
	}
	for key, l := range d.locks {
		for _, sig := range l.waiters {
			sig.Set()
		}
		delete(d.locks, key)
	}
	return lost
}

func business(table, key string) rowKey { return rowKey{table: tableBusiness, name: table, key: key} }

// Put writes a row of the application's own.
func (t *Tx) Put(ctx context.Context, table, key string, value any) error {
	return t.statement(ctx, "put", func() (world.Signal, error) {
		if sig, err := t.lock(business(table, key)); err != nil {
			return sig, err
		}
		t.put(business(table, key), value)
		return nil, nil
	})
}

// Insert writes a row of the application's own that must not exist.
func (t *Tx) Insert(ctx context.Context, table, key string, value any) error {
	return t.statement(ctx, "insert", func() (world.Signal, error) {
		if sig, err := t.lock(business(table, key)); err != nil {
			return sig, err
		}
		if t.get(business(table, key)) != nil {
			return nil, ErrUnique
		}
		t.put(business(table, key), value)
		return nil, nil
	})
}

// Get reads a row of the application's own, and locks it.
func (t *Tx) Get(ctx context.Context, table, key string) (value any, err error) {
	err = t.statement(ctx, "get", func() (world.Signal, error) {
		if sig, err := t.lock(business(table, key)); err != nil {
			return sig, err
		}
		value = t.get(business(table, key))
		return nil, nil
	})
	return value, err
}

// Business returns a committed row of the application's own.
func (d *Database) Business(table, key string) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[business(table, key)]
}

// in reports, by chance, n times in a thousand.
func (d *Database) in(n int) bool { return n > 0 && !d.calm && d.w.Rand()%1000 < uint64(n) }
