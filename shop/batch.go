package shop

import (
	"errors"
	"iter"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
)

// latest yields of each key the last event of a batch: enough for a handler that keeps a copy of the present state, and no
// database takes the same row twice in one upsert (PostgreSQL says so: "cannot affect row a second time").
func latest[T any](events []pabal.Received[T], key func(T) string) iter.Seq[T] {
	last := make(map[string]int, len(events))
	for i, e := range events {
		last[key(e.Data)] = i
	}
	return func(yield func(T) bool) {
		for i, e := range events {
			if last[key(e.Data)] == i && !yield(e.Data) {
				return
			}
		}
	}
}

func isProblem(err error) bool {
	var p *Problem
	return errors.As(err, &p)
}

// noJob is the job of events that no operator redelivered.
var noJob = uuid.Nil
