package pabalpgx_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// A program in another language may record to a topic that no client has registered: Read finds it wherever it lies between
// those that are.
func TestReadFindsTopicsThatNobodyRegistered(t *testing.T) {
	pool, _ := open(t)
	store := newStore(t, pool)
	var want []string
	add := func(registered bool, names ...string) {
		for _, name := range names {
			if registered {
				must(store.Tend(t.Context(), driver.Chore{Register: &driver.Topic{Name: name}}))(t)
			}
			for range 2 {
				id := uuid.New()
				must(pool.Exec(t.Context(), `insert into pabal_pending (id, recorded_at, topic, due_at) values ($1, clock_timestamp(), $2, clock_timestamp())`,
					id, name))(t)
			}
		}
	}
	look := func() {
		t.Helper()
		var got []string
		for _, topic := range must(store.Read(t.Context(), driver.Query{Topics: true}))(t).Topics {
			if got = append(got, topic.Name); topic.OldestDue.IsZero() {
				t.Errorf("nothing of %s is due", topic.Name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	look()
	add(false, "b", "c")
	want = []string{"b", "c"}
	look()
	add(true, "a", "m", "p")
	add(false, "-", "M", "n", "o", "zz", "zzz")
	want = []string{"-", "M", "a", "b", "c", "m", "n", "o", "p", "zz", "zzz"}
	look()
}
