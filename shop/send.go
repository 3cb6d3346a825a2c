package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Sending: claim what is due, deliver it outside any transaction, record the outcome. A process that is killed in between
// sends once more, with the same idempotency key.

const (
	sendBatch   = 256
	sendWorkers = 8
	sendPause   = 50 * time.Millisecond // lets the transaction that woke the sender commit, and a batch come together
	sendPoll    = 2 * time.Second       // for what nobody woke us for: next tries, other processes' rows, a crash
	sendTimeout = 10 * time.Second      // for one message
	sendRound   = 30 * time.Second      // for a batch: what was not begun by then goes back
	recordTime  = 20 * time.Second      // for recording the outcomes of a batch
	sendLease   = time.Minute           // longer than sendRound and recordTime together
	sendTries   = 20                    // about a day and a half
	sendBackoff = 3 * time.Hour         // longest pause between two tries
)

// rouse tells the sender that messages are about to be committed. It never blocks.
func (s *Notifications) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run sends messages until ctx ends. An idle sender asks the database one thing every two seconds.
func (s *Notifications) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		pause := sendPoll
		n, next, err := s.sendDue(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("messages cannot be sent, trying again", "err", err)
		case n == sendBatch:
			continue
		case next > 0:
			pause = min(pause, max(sendPause, time.Until(fromMillis(next))))
		}
		s.rest(ctx, pause)
	}
	return nil
}

// rest waits for pause, or until it is woken and a moment is over.
func (s *Notifications) rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.wake:
		timer.Reset(sendPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// sendDue sends up to a batch of what is due. next is when more will be, in milliseconds since 1970; 0: nothing waits.
func (s *Notifications) sendDue(ctx context.Context) (n int, next int64, err error) {
	if err := s.row(ctx, nil, "message_next").Scan(&next); err != nil {
		return 0, 0, fmt.Errorf("look for due messages: %w", err)
	}
	if next == 0 || next > now().UnixMilli() {
		return 0, next, nil
	}
	messages, err := s.claim(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("claim due messages: %w", err)
	}
	failed := s.deliver(ctx, messages)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime) // what was sent is sent, also at the end
	defer cancel()
	if err := s.outcome(ctx, messages, failed); err != nil {
		return 0, 0, fmt.Errorf("record what was sent: %w", err)
	}
	return len(messages), now().UnixMilli(), nil
}

// claim takes due messages: until their lease is over no other sender does.
func (s *Notifications) claim(ctx context.Context) (messages []Message, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		at := now()
		rows, err := s.query(ctx, tx, "message_due", 1, []any{at.UnixMilli(), sendBatch})
		if messages, err = collect(rows, err, scanMessage); err != nil {
			return err
		}
		var ids []any
		for i := range messages {
			messages[i].Attempts++
			ids = append(ids, messages[i].EventID)
		}
		return s.execRows(ctx, tx, "message_claim", ids, 1, at.Add(sendLease).UnixMilli())
	})
	return messages, err
}

var errNotBegun = errors.New("delivery was not begun")

// deliver hands messages to the delivery, several at a time, and answers the errors by message.
func (s *Notifications) deliver(ctx context.Context, messages []Message) []error {
	ctx, cancel := context.WithTimeout(ctx, sendRound)
	defer cancel()
	failed := make([]error, len(messages))
	work := make(chan int)
	var workers sync.WaitGroup
	for range min(sendWorkers, len(messages)) {
		workers.Go(func() {
			for i := range work {
				if ctx.Err() != nil {
					failed[i] = errNotBegun
					continue
				}
				call, cancel := context.WithTimeout(ctx, sendTimeout)
				failed[i] = s.delivery(call, messages[i])
				cancel()
			}
		})
	}
	for i := range messages {
		work <- i
	}
	close(work)
	workers.Wait()
	return failed
}

// outcome records what was sent, and when the rest is tried again.
func (s *Notifications) outcome(ctx context.Context, messages []Message, failed []error) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		var sent []any
		at := now()
		for i := range messages {
			m, err := &messages[i], failed[i]
			if err == nil {
				sent = append(sent, m.EventID)
				continue
			}
			state := "waiting"
			if m.Attempts >= sendTries || errors.Is(err, ErrUndeliverable) {
				state = "failed"
				s.log.Error("message given up", "event_id", m.EventID, "attempt", m.Attempts, "err", err)
			}
			next := at.Add(min(time.Second<<m.Attempts, sendBackoff))
			if errors.Is(err, errNotBegun) {
				next = at
			}
			reason := strings.ToValidUTF8(err.Error(), "?")
			if _, err := s.exec(ctx, tx, "message_again", state, next.UnixMilli(), reason[:min(len(reason), 500)], m.EventID,
				m.Attempts); err != nil {
				return err
			}
		}
		return s.execRows(ctx, tx, "message_sent", sent, 1, at.UnixMilli())
	})
}
