package misbehave

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pabal-go/pabal/driver"
)

// Store wraps a store and its inbox. What applications do with their own transactions goes past it: see [Connector].
func Store[X any](s driver.Store[X], t *Trouble) driver.Store[X] {
	return &store[X]{inner: s, t: t, inbox: &inbox[X]{inner: s.Inbox(), t: t}}
}

type store[X any] struct {
	inner driver.Store[X]
	t     *Trouble
	inbox *inbox[X]
}

// Open implements driver.Store.
func (s *store[X]) Open(ctx context.Context, source string) error {
	return s.t.call("Open").do(ctx, func() error { return s.inner.Open(ctx, source) })
}

// Record implements driver.Store. An error that is made here leaves the transaction as it was.
func (s *store[X]) Record(ctx context.Context, tx X, r driver.Recording) error {
	c := s.t.call("Record")
	if c.is("Doubted", c.Doubted) {
		outcome := r.Outcome
		r.Outcome = func(driver.CommitState) { outcome(driver.Doubtful) }
	}
	return c.do(ctx, func() error { return s.inner.Record(ctx, tx, r) })
}

// Claim implements driver.Store.
func (s *store[X]) Claim(ctx context.Context, sel driver.Selection) ([]driver.Claimed, error) {
	return answer(ctx, s.t.call("Claim"), func() ([]driver.Claimed, error) { return s.inner.Claim(ctx, sel) })
}

// answer is do for calls that answer something.
func answer[T any](ctx context.Context, c *call, f func() (T, error)) (answer T, err error) {
	err = c.do(ctx, func() error {
		answer, err = f()
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}

// Settle implements driver.Store.
func (s *store[X]) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	c := s.t.call("Settle")
	if c.is("Late", c.Late) {
		verdicts = slices.Clone(verdicts)
		c.later(ctx, func(ctx context.Context) { _ = s.inner.Settle(ctx, verdicts) }) // nobody waits for it
		return c.err("will take effect late")
	}
	return c.do(ctx, func() error {
		if err := s.inner.Settle(ctx, verdicts); err != nil || !c.is("Doubled", c.Doubled) {
			return err
		}
		return s.inner.Settle(ctx, verdicts)
	})
}

// Confirm implements driver.Store.
func (s *store[X]) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	c := s.t.call("Confirm")
	return answer(ctx, c, func() ([]driver.Confirmation, error) {
		found, err := s.inner.Confirm(ctx, events)
		if err != nil || !c.is("Doubled", c.Doubled) {
			return found, err
		}
		return s.inner.Confirm(ctx, events)
	})
}

// Read implements driver.Store.
func (s *store[X]) Read(ctx context.Context, q driver.Query) (driver.Reading, error) {
	return answer(ctx, s.t.call("Read"), func() (driver.Reading, error) { return s.inner.Read(ctx, q) })
}

// Tend implements driver.Store.
func (s *store[X]) Tend(ctx context.Context, chore driver.Chore) (int, error) {
	return answer(ctx, s.t.call("Tend"), func() (int, error) { return s.inner.Tend(ctx, chore) })
}

// Inbox implements driver.Store.
func (s *store[X]) Inbox() driver.Inbox[X] { return s.inbox }

type inbox[X any] struct {
	inner driver.Inbox[X]
	t     *Trouble
	late  sync.Map // transactions whose COMMIT is still to come
}

// errConflict is a serialization failure that is made here.
type errConflict struct{ error }

// Begin implements driver.Inbox.
func (i *inbox[X]) Begin(ctx context.Context) (X, error) {
	c := i.t.call("Begin")
	var tx X
	err := c.stall(ctx)
	if err == nil && c.is("Refused", c.Refused) {
		err = c.err("is refused")
	}
	if err != nil {
		return tx, err
	}
	tx, err = i.inner.Begin(ctx)
	if err == nil && c.is("Lost", c.Lost) {
		_ = i.inner.End(ctx, tx, driver.Rollback) // as a server does whose client has gone
		var none X
		return none, c.err("lost its answer")
	}
	return tx, err
}

// End implements driver.Inbox.
func (i *inbox[X]) End(ctx context.Context, tx X, how driver.Ending) error {
	if _, late := i.late.Load(any(tx)); late {
		return nil
	}
	if how != driver.Commit {
		return i.inner.End(ctx, tx, how)
	}
	c := i.t.call("Commit")
	err := c.stall(ctx)
	switch {
	case err != nil:
		_ = i.inner.End(context.WithoutCancel(ctx), tx, driver.Rollback)
		return err
	case c.is("Refused", c.Refused):
		_ = i.inner.End(ctx, tx, driver.Rollback)
		return c.err("is refused")
	case c.is("Late", c.Late):
		i.late.Store(any(tx), true)
		c.later(ctx, func(ctx context.Context) {
			defer i.late.Delete(any(tx))
			_ = i.inner.End(ctx, tx, driver.Commit) // nobody waits for it
		})
		return c.err("will take effect late")
	}
	if err = i.inner.End(ctx, tx, driver.Commit); err == nil && c.is("Lost", c.Lost) {
		return c.err("lost its answer")
	}
	return err
}

// Load implements driver.Inbox.
func (i *inbox[X]) Load(ctx context.Context, tx X, l driver.Load) (driver.Loaded, error) {
	c := i.t.call("Load")
	if c.is("Conflict", c.Conflict) {
		return driver.Loaded{}, errConflict{c.err("meets another transaction")}
	}
	return answer(ctx, c, func() (driver.Loaded, error) { return i.inner.Load(ctx, tx, l) })
}

// Save implements driver.Inbox.
func (i *inbox[X]) Save(ctx context.Context, tx X, s driver.Save) error {
	return i.t.call("Save").do(ctx, func() error { return i.inner.Save(ctx, tx, s) })
}

// Due implements driver.Inbox.
func (i *inbox[X]) Due(ctx context.Context, s driver.InboxSelection) ([]driver.Row, error) {
	return answer(ctx, i.t.call("Due"), func() ([]driver.Row, error) { return i.inner.Due(ctx, s) })
}

// Read implements driver.Inbox.
func (i *inbox[X]) Read(ctx context.Context, q driver.InboxQuery) (driver.InboxReading, error) {
	return answer(ctx, i.t.call("Read"), func() (driver.InboxReading, error) { return i.inner.Read(ctx, q) })
}

// Tend implements driver.Inbox.
func (i *inbox[X]) Tend(ctx context.Context, chore driver.InboxChore) (int, error) {
	return answer(ctx, i.t.call("Tend"), func() (int, error) { return i.inner.Tend(ctx, chore) })
}

// Conflict implements driver.Inbox.
func (i *inbox[X]) Conflict(err error) bool {
	return errors.As(err, &errConflict{}) || i.inner.Conflict(err)
}
