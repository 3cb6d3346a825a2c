package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

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

// Over reports whether the transaction has ended.
func (t *Tx) Over() bool {
	over, _ := t.over()
	return over
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

// lockAll takes the locks of a statement. Two statements of one kind never wait for each other: they take theirs in the
// order of compare.
func (t *Tx) lockAll(keys []rowKey, compare func(a, b rowKey) int) (world.Signal, error) {
	for i, key := range keys {
		if i > 0 && compare(keys[i-1], key) > 0 && t.d.onDisorder != nil {
			t.d.onDisorder(fmt.Sprintf("%s %s before %s %s", keys[i-1].topic, keys[i-1].key, key.topic, key.key))
		}
		if sig, err := t.lock(key); err != nil {
			return sig, err
		}
	}
	return nil, nil
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
