package pabal

import (
	"context"
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
