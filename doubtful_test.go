package pabal

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Where Record failed because COMMIT went with it and was not answered, what may be committed is claimed at once, by id.
func TestCommitWithoutAnswerIsClaimedThoughRecordFailed(t *testing.T) {
	for state, want := range map[driver.CommitState]int{driver.Doubtful: 2, driver.Proven: 2, driver.Void: 0} {
		w := world.Real()
		p := newPublisher(&house{w: w, o: Options{Queue: 10, Lanes: 1}})
		p.begin()
		rows := []driver.Event{{ID: uuid.New(), Topic: "paid"}, {ID: uuid.New(), Topic: "paid"}}
		p.committed(&recorded{rows: rows}, w.Now().Add(time.Minute), state)
		if len(p.doubtful) != want || p.queued != 0 {
			t.Errorf("%v: %d events are claimed, and %d published without a claim", state, len(p.doubtful), p.queued)
		}
		for i := range p.doubtful {
			if p.doubtful[i].event.ID != rows[i].ID {
				t.Errorf("event %s is claimed", p.doubtful[i].event.ID)
			}
		}
	}
}
