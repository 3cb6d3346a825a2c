package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
)

// RunMisbehaving runs every case on stores that misbehave, from a seed, for callers that do again what failed: whatever may be
// refused is refused now and then; what may be repeated by its contract (Settle, Save, Read, Begin, chores) is also carried out
// without an answer; everything stalls, commits for longest. The cases expect what they always do.
// The environment may have another seed (misbehave.SeedVariable).
func RunMisbehaving[X any](t *testing.T, h Harness[X], seed uint64) {
	chosen := seed
	seed = misbehave.Seed(chosen)
	trouble := misbehave.New(seed, nil)
	plain := h.Open
	h.Open = func(t *testing.T) Database[X] {
		db := plain(t)
		connect := db.Connect
		db.Connect = func(t *testing.T) driver.Store[X] {
			s := misbehave.Store(connect(t), trouble)
			return &patientStore[X]{s, &patientInbox[X]{s.Inbox()}}
		}
		return db
	}
	rates := misbehave.Rates{Refused: 0.4, Stalled: 0.1, StallMost: 5 * time.Millisecond}
	repeated := rates
	repeated.Lost = 0.3
	settle := repeated
	settle.Doubled = 0.3
	plan := misbehave.Plan{"": rates, "Open": repeated, "Settle": settle, "Read": repeated, "Tend": repeated, "Begin": repeated,
		"Save": repeated, "Commit": {Stalled: 0.3, StallMost: 20 * time.Millisecond}}
	trouble.Set(plan)
	t.Logf("seed %d", seed)
	Run(t, h)
	if done := trouble.Done(); !t.Failed() && seed == chosen { // by another one, what is rarely called may be spared
		for _, fault := range []string{
			"Open Refused", "Record Refused", "Claim Refused", "Settle Refused", "Settle Lost", "Settle Doubled", "Confirm Refused",
			"Read Refused", "Read Lost", "Tend Refused", "Tend Lost", "Begin Refused", "Begin Lost", "Load Refused", "Save Refused",
			"Save Lost", "Due Refused", "Commit Stalled",
		} {
			if done[fault] == 0 {
				t.Errorf("%s never happened: %v", fault, done)
			}
		}
	}
}

// patience does a call again until it does not fail on purpose.
func patience[T any](f func() (T, error)) (T, error) {
	for {
		if answer, err := f(); !errors.Is(err, misbehave.Err) {
			return answer, err
		}
	}
}

func patient(f func() error) error {
	_, err := patience(func() (struct{}, error) { return struct{}{}, f() })
	return err
}

type patientStore[X any] struct {
	driver.Store[X]
	inbox driver.Inbox[X]
}

func (s *patientStore[X]) Inbox() driver.Inbox[X] { return s.inbox }

func (s *patientStore[X]) Open(ctx context.Context, source string) error {
	return patient(func() error { return s.Store.Open(ctx, source) })
}

func (s *patientStore[X]) Record(ctx context.Context, tx X, r driver.Recording) error {
	return patient(func() error { return s.Store.Record(ctx, tx, r) })
}

func (s *patientStore[X]) Claim(ctx context.Context, sel driver.Selection) ([]driver.Claimed, error) {
	return patience(func() ([]driver.Claimed, error) { return s.Store.Claim(ctx, sel) })
}

func (s *patientStore[X]) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	return patient(func() error { return s.Store.Settle(ctx, verdicts) })
}

func (s *patientStore[X]) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	return patience(func() ([]driver.Confirmation, error) { return s.Store.Confirm(ctx, events) })
}

func (s *patientStore[X]) Read(ctx context.Context, q driver.Query) (driver.Reading, error) {
	return patience(func() (driver.Reading, error) { return s.Store.Read(ctx, q) })
}

func (s *patientStore[X]) Tend(ctx context.Context, c driver.Chore) (int, error) {
	return patience(func() (int, error) { return s.Store.Tend(ctx, c) })
}

type patientInbox[X any] struct{ driver.Inbox[X] }

func (i *patientInbox[X]) Begin(ctx context.Context) (X, error) {
	return patience(func() (X, error) { return i.Inbox.Begin(ctx) })
}

func (i *patientInbox[X]) Load(ctx context.Context, tx X, l driver.Load) (driver.Loaded, error) {
	return patience(func() (driver.Loaded, error) { return i.Inbox.Load(ctx, tx, l) })
}

func (i *patientInbox[X]) Save(ctx context.Context, tx X, s driver.Save) error {
	return patient(func() error { return i.Inbox.Save(ctx, tx, s) })
}

func (i *patientInbox[X]) Due(ctx context.Context, s driver.InboxSelection) ([]driver.Row, error) {
	return patience(func() ([]driver.Row, error) { return i.Inbox.Due(ctx, s) })
}

func (i *patientInbox[X]) Read(ctx context.Context, q driver.InboxQuery) (driver.InboxReading, error) {
	return patience(func() (driver.InboxReading, error) { return i.Inbox.Read(ctx, q) })
}

func (i *patientInbox[X]) Tend(ctx context.Context, c driver.InboxChore) (int, error) {
	return patience(func() (int, error) { return i.Inbox.Tend(ctx, c) })
}
