package pabal

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// notes is an inbox that remembers when its consumer joined.
type notes struct {
	driver.Inbox[int]
	now    time.Time
	joined *time.Time
}

func (n notes) Read(context.Context, driver.InboxQuery) (driver.InboxReading, error) {
	return driver.InboxReading{Now: n.now}, nil
}

func (n notes) Tend(_ context.Context, c driver.InboxChore) (int, error) {
	*n.joined = c.Join.SentAt
	return 1, nil
}

// TestJoiningBeginsWithTheSubscriptionAndNotWhenItIsNoted: the database may have been away meanwhile, and what was recorded then must come.
func TestJoiningBeginsWithTheSubscriptionAndNotWhenItIsNoted(t *testing.T) {
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	c.house.o.Lease, c.joined = time.Minute, map[string]time.Time{}
	c.topics = []driver.TopicSpec{{Name: planKey.Topic}}
	now, joined := time.Now(), time.Time{}
	c.inbox = notes{now: now, joined: &joined}
	if err := c.noteSubscribed(t.Context(), c.house.w.Now().Add(-20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if ago := now.Sub(joined); ago < 20*time.Second || ago > 25*time.Second {
		t.Errorf("joined %v before it was noted, 20 s after the subscription", ago)
	}
}

// away is an inbox that answers nothing until the process that asks ends.
type away struct {
	driver.Inbox[int]
	asked chan struct{}
}

func (a away) Read(ctx context.Context, _ driver.InboxQuery) (driver.InboxReading, error) {
	close(a.asked)
	<-ctx.Done()
	return driver.InboxReading{}, ctx.Err()
}

// TestEndIsToldAsNoTrouble: what a process gives up because it was asked to end is none of its database's.
func TestEndIsToldAsNoTrouble(t *testing.T) {
	var said bytes.Buffer
	c, _ := planned(driver.Loaded{Cursors: make([]driver.Cursor, 1), Waiting: make([][]driver.Row, 1), WaitingCount: make([]int, 1)})
	c.house.o.Lease, c.house.log = time.Minute, slog.New(slog.NewTextHandler(&said, nil))
	inbox := away{asked: make(chan struct{})}
	c.inbox = inbox
	ctx, end := context.WithCancel(t.Context())
	go func() { <-inbox.asked; end() }()
	if c.subscribed(ctx, c.house.w.Now()) || said.Len() > 0 {
		t.Errorf("it said %s", &said)
	}
}
