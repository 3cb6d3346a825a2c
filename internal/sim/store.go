package sim

import (
	"context"
	"errors"
	"fmt"
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

type lock struct {
	owner   *Tx
	waiters []world.Signal
}

// writes is what a transaction wrote and has not committed.
type writes struct {
	overlay map[rowKey]any // nil before the first
	journal []change       // of overlay, for savepoints
	order   []rowKey       // of overlay, in order of first writing
}

// Tx is an open transaction on one connection.
type Tx struct {
	d       *Database
	s       *Store
	watched bool
	watchMu sync.Mutex // the watch is told by a handler, and by who gives that handler up
	watch   driver.CommitWatch
	writes
	locks   []rowKey
	waits   rowKey // what it waits for
	aborted bool   // lost a deadlock: everything was rolled back
	broken  bool   // its connection is gone
	done    bool
	dead    bool // its process is
	forget  func()
	ended   driver.CommitSignal
}

func (t *Tx) see(s driver.CommitSignal) {
	t.watchMu.Lock()
	defer t.watchMu.Unlock()
	t.watch.See(s)
}

// over reports whether the transaction has ended, and how; a handle that is none is over too.
func (t *Tx) over() (bool, driver.CommitSignal) {
	if t == nil {
		return true, driver.SawEnd
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	return t.done, t.ended
}

type removed struct{}

func (t *Tx) get(key rowKey) any {
	if v, ok := t.overlay[key]; ok {
		if _, gone := v.(removed); gone {
			return nil
		}
		return v
	}
	return t.d.rows[key]
}

func (t *Tx) put(key rowKey, value any) {
	if value == nil {
		value = removed{}
	}
	if t.overlay == nil {
		t.writes = t.d.room()
	}
	old, ok := t.overlay[key]
	if !ok {
		t.order = append(t.order, key)
	}
	t.journal = append(t.journal, change{key, old})
	t.overlay[key] = value
}

// lock takes a row's lock for the transaction; errBusy and a signal when somebody else has it, errConflict when waiting
// would be for ever.
func (t *Tx) lock(key rowKey) (world.Signal, error) {
	d := t.d
	l := d.locks[key]
	if l == nil {
		l = &lock{}
		d.locks[key] = l
	}
	if l.owner == t {
		return nil, nil
	}
	if l.owner == nil {
		l.owner = t
		t.locks = append(t.locks, key)
		return nil, nil
	}
	for other, n := l.owner, 0; other != nil && n < 1000; n++ {
		next := d.locks[other.waits]
		if next == nil {
			break
		}
		if other = next.owner; other == t {
			return nil, errConflict
		}
	}
	t.waits = key
	sig := d.w.NewSignal()
	l.waiters = append(l.waiters, sig)
	return sig, errBusy
}

func (t *Tx) release() {
	for _, key := range t.locks {
		l := t.d.locks[key]
		if l == nil || l.owner != t {
			continue
		}
		delete(t.d.locks, key)
		for _, sig := range l.waiters {
			sig.Set()
		}
	}
	t.locks, t.waits = nil, rowKey{}
}

// room is where a transaction's writes go: its map is what costs most of a small transaction's time.
func (d *Database) room() writes {
	if n := len(d.spare); n > 0 {
		w := d.spare[n-1]
		d.spare = d.spare[:n-1]
		return w
	}
	return writes{overlay: map[rowKey]any{}}
}

// rollback throws everything away at the server.
func (t *Tx) rollback() {
	if w := t.writes; w.overlay != nil && len(w.order) <= 100 && len(t.d.spare) < 10 {
		clear(w.overlay)
		clear(w.journal)
		t.d.spare = append(t.d.spare, writes{w.overlay, w.journal[:0], w.order[:0]})
	}
	t.writes = writes{}
	t.release()
}

// apply commits at the server.
func (t *Tx) apply() {
	for _, key := range t.order {
		value, ok := t.overlay[key]
		if !ok {
			continue
		}
		if _, gone := value.(removed); gone {
			value = nil
		}
		t.d.set(key, value)
	}
	t.d.endCommit()
	t.rollback()
}

// statement runs effect at the server, under the database's mutex, waiting for locks as often as it has to.
func (t *Tx) statement(ctx context.Context, what string, effect func() (world.Signal, error)) error {
	if over, _ := t.over(); over {
		return driver.ErrNoTransaction
	}
	for {
		var sig world.Signal
		err := t.s.link.Call(ctx, Call{What: what}, func() (err error) {
			t.d.mu.Lock()
			defer t.d.mu.Unlock()
			switch {
			case t.broken || t.done:
				return ErrLost
			case t.aborted:
				return errConflict
			case t.d.in(t.d.o.Conflict):
				err = errConflict
			default:
				t.waits = rowKey{}
				sig, err = effect()
			}
			if errors.Is(err, errConflict) {
				t.aborted = true
				t.rollback()
			}
			return err
		})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errBusy):
			if sig.Wait(ctx, time.Minute) {
				continue
			}
			if err = ctx.Err(); err == nil {
				err = fmt.Errorf("%w: waited a minute for a lock", errConflict)
			}
			t.see(driver.SawDoubt)
			return err
		case errors.Is(err, ErrLost), ctx.Err() != nil:
			t.drop()
			return err
		default:
			t.see(driver.SawDoubt)
			return err
		}
	}
}

// drop ends a transaction whose connection is gone, or that is given up.
func (t *Tx) drop() {
	t.d.mu.Lock()
	if !t.done {
		t.done, t.ended = true, driver.SawEnd
		t.rollback()
		if t.forget != nil {
			t.forget()
		}
	}
	t.d.mu.Unlock()
	t.see(driver.SawEnd)
}

// Commit commits. An error leaves open whether it did, unless it says that the transaction was rolled back.
func (t *Tx) Commit(ctx context.Context) error {
	if over, _ := t.over(); over {
		return driver.ErrNoTransaction
	}
	executed := false
	err := t.s.link.Call(ctx, Call{What: "commit", Late: true}, func() error {
		t.d.mu.Lock()
		defer t.d.mu.Unlock()
		if executed {
			return nil
		}
		if t.broken || t.dead {
			return ErrLost
		}
		executed = true
		if t.aborted {
			if t.d.o.SwallowDeadlock {
				return nil
			}
			return errConflict
		}
		t.apply()
		return nil
	})
	end := driver.SawCommit
	if err != nil {
		end = driver.SawCommitLost
	}
	t.d.mu.Lock()
	t.done, t.ended = true, end
	if t.forget != nil {
		t.forget()
	}
	t.d.mu.Unlock()
	if err != nil {
		t.abandonLater(&executed)
	}
	t.see(end)
	return err
}

// abandonLater rolls back, once a COMMIT that is still under way cannot arrive any more, what was not committed.
func (t *Tx) abandonLater(executed *bool) {
	t.d.w.Go("connection-timeout", func(w world.World) {
		_ = w.Sleep(context.Background(), 21*time.Second)
		t.d.mu.Lock()
		defer t.d.mu.Unlock()
		if !*executed {
			t.broken = true
			t.rollback()
		}
	})
}

// Rollback rolls back; it never fails, for a connection that is gone rolls back too.
func (t *Tx) Rollback(ctx context.Context) {
	if over, _ := t.over(); over {
		return
	}
	_ = t.s.link.Call(ctx, Call{What: "rollback"}, func() error { return nil })
	t.drop()
}

// Savepoint marks where RollbackTo goes back to.
func (t *Tx) Savepoint() int { return len(t.journal) }

// RollbackTo undoes what the transaction wrote since the savepoint. Locks stay.
func (t *Tx) RollbackTo(savepoint int) {
	t.d.mu.Lock()
	for i := len(t.journal) - 1; i >= savepoint; i-- {
		c := t.journal[i]
		if c.old == nil {
			delete(t.overlay, c.key)
		} else {
			t.overlay[c.key] = c.old
		}
	}
	t.journal = t.journal[:min(savepoint, len(t.journal))]
	t.d.mu.Unlock()
	t.see(driver.SawDoubt)
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
