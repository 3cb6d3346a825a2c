package pabalpgx_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The function for other languages gives positions and predecessors as Record does, in whatever order the two take turns,
// also across a restore.
func TestFunctionRecordsAsRecordDoes(t *testing.T) {
	pool, _ := open(t)
	store := newStore(t, pool)
	byFunction := func(key string) (id uuid.UUID) {
		var text string
		err := pool.QueryRow(t.Context(), `select pabal_record('paid', 'order-paid', $1, '{"a": 1}', '{"h":"1"}')::text`, key).Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		return uuid.MustParse(text)
	}
	last := map[string]driver.Event{}
	restored := map[string]bool{}
	for round := range 200 {
		key := []string{"a", "b", "c"}[rand.IntN(3)]
		var id uuid.UUID
		if rand.IntN(2) == 0 {
			id = byFunction(key)
			if v := id.Version(); v != 7 || time.Since(time.Unix(id.Time().UnixTime())).Abs() > time.Minute {
				t.Fatalf("id %s is of version %d", id, v)
			}
		} else {
			id = record(t, pool, store, key)[0].ID
		}
		r := must(store.Read(t.Context(), driver.Query{Events: &driver.EventFilter{IDs: []uuid.UUID{id}, Limit: 1}}))(t)
		if len(r.Events) != 1 || r.Events[0].Pending == nil || !r.Events[0].Pending.DueAt.Equal(r.Events[0].Event.RecordedAt) {
			t.Fatalf("event %s: %+v", id, r.Events)
		}
		e := r.Events[0].Event
		before, known := last[key]
		switch {
		case !known:
			if !e.Prev.IsZero() || e.Position < e.RecordedAt.UnixMilli() {
				t.Fatalf("the first of its key: %+v", e)
			}
		case e.Prev != before.Ref():
			t.Fatalf("prev %+v, want %+v", e.Prev, before.Ref())
		case restored[key]:
			if e.Position <= before.Position+1 {
				t.Fatalf("no new run: %d follows %d", e.Position, before.Position)
			}
		case e.Position != before.Position+1:
			t.Fatalf("%d follows %d", e.Position, before.Position)
		}
		last[key] = e
		delete(restored, key)
		if round == 100 {
			must(store.Tend(t.Context(), driver.Chore{Restored: true}))(t)
			for key := range last {
				restored[key] = true
			}
		}
	}
}

func TestFunctionRefusesWhatRecordRefuses(t *testing.T) {
	pool, _ := open(t)
	for _, call := range []string{
		`('a b', 'x', null, '{}')`, `(null, 'x', null, '{}')`, `('x', 'ü', null, '{}')`, `('x', 'x', repeat('k', 256), '{}')`,
		`('x', 'x', null, null)`, `('x', 'x', null, '{}', '[]')`, `('x', 'x', null, '{')`,
	} {
		if _, err := pool.Exec(t.Context(), `select pabal_record`+call); err == nil {
			t.Errorf("pabal_record%s was recorded", call)
		}
	}
}

func TestClassicView(t *testing.T) {
	pool, _ := open(t)
	store := newStore(t, pool)
	e := record(t, pool, store, "A1")[0]
	look := func() (order, topic, message, published string, at *time.Time) {
		err := pool.QueryRow(t.Context(), `select "orderNo", topic, message, published, published_date from pabal_event_record where event_id = $1`,
			e.ID).Scan(&order, &topic, &message, &published, &at)
		if err != nil {
			t.Fatal(err)
		}
		return order, topic, message, published, at
	}
	if order, topic, message, published, at := look(); order != "A1" || topic != "paid" || message != "e30=" || published != "N" || at != nil {
		t.Error(look())
	}
	must(store.Confirm(t.Context(), []driver.Ref{e.Ref()}))(t)
	if _, _, _, published, at := look(); published != "Y" || at == nil {
		t.Error(look())
	}
}
