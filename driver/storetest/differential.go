package storetest

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Differential does the same random operations on a database of h and on the simulated one that the promises are checked on, and
// compares what both answer but for the time of day. A difference is a mistake in one of them; the seed repeats it.
func Differential[X any](t *testing.T, h Harness[X], seed uint64, steps int) {
	t.Helper()
	w := world.Real()
	d := sim.NewDatabase(w, sim.DatabaseOptions{SingleWriter: h.SingleWriter})
	s := d.Connect(w, sim.Direct)
	model := newSide("simulated", Database[*sim.Tx]{
		Begin:    s.Begin,
		Commit:   func(x *sim.Tx) error { return x.Commit(context.Background()) },
		Rollback: func(x *sim.Tx) error { x.Rollback(context.Background()); return nil },
	}, s)
	db := h.Open(t)
	real := newSide("real", db, db.Connect(t))
	for _, open := range []func(context.Context, string) error{model.s.Open, real.s.Open} {
		if err := open(t.Context(), "order"); err != nil {
			t.Fatal(err)
		}
	}
	p := &plot{random: rand.New(rand.NewPCG(seed, 0))}
	for step := range steps {
		o := p.next()
		is, want := real.do(t.Context(), o), model.do(t.Context(), o)
		if is != want {
			t.Fatalf("seed %d, step %d, %s\nanswers   %s\nsimulated %s", seed, step, o.what, is, want)
		}
	}
}

// operation is one random step. It is told the same to both sides, which decide by id, never by time.
type operation struct {
	what     string
	topic    string
	key      string
	events   []driver.Event
	ids      []uuid.UUID
	numbers  []int
	n        int
	flag     bool
	lease    time.Duration
	arrivals []driver.Row
}

// plot makes operations; it remembers the ids that there are, or were.
type plot struct {
	random *rand.Rand
	made   int
	ids    []uuid.UUID
	rows   []driver.Row
}

// id makes ids that grow, as those of version 7 do: what is ordered by (time, id) is ordered by id.
func (p *plot) id() uuid.UUID {
	p.made++
	id := uuid.MustParse("01900000-0000-7000-8000-000000000000")
	id[14], id[15] = byte(p.made>>8), byte(p.made)
	return id
}

func (p *plot) pick(from ...string) string { return from[p.random.IntN(len(from))] }

// some picks ids that exist, existed, or never did.
func (p *plot) some() (ids []uuid.UUID) {
	for range 1 + p.random.IntN(5) {
		if len(p.ids) > 0 && p.random.IntN(8) > 0 {
			ids = append(ids, p.ids[p.random.IntN(len(p.ids))])
		} else {
			ids = append(ids, p.id())
		}
	}
	return ids
}

func (p *plot) next() operation {
	o := operation{
		what: p.pick("record", "record", "record", "claim", "claim", "claim accepted", "claim by id", "settle", "settle", "confirm", "confirm",
			"register", "prove", "restored", "forget", "topics", "events", "load", "load", "load", "due", "rows", "inbox forget", "join"),
		topic: p.pick("a", "b", "paid"), key: p.pick("", "k", "k ", "K", "é"), n: p.random.IntN(1000), flag: p.random.IntN(3) == 0,
		lease: time.Duration(p.random.IntN(2)) * time.Hour,
	}
	switch o.what {
	case "record":
		for range 1 + p.random.IntN(4) {
			e := event(p.pick("", "k", "k ", "K", "é"))
			e.ID, e.Topic = p.id(), p.pick("a", "b", "paid")
			o.events = append(o.events, e)
			p.ids = append(p.ids, e.ID)
		}
	case "load":
		for range 1 + p.random.IntN(3) {
			r := arrival(int64(1+p.random.IntN(6)), p.pick("k", "k ", "K"))
			r.RecordedAt, r.SentAt = time.UnixMicro(int64(1+p.random.IntN(5))).UTC(), time.UnixMicro(7).UTC()
			r.ID, r.Prev = p.id(), driver.Ref{}
			if len(p.rows) > 0 && p.random.IntN(3) == 0 {
				r = p.rows[p.random.IntN(len(p.rows))]
			}
			if !slices.ContainsFunc(o.arrivals, func(other driver.Row) bool { return other.ID == r.ID }) {
				o.arrivals = append(o.arrivals, r)
			}
		}
		p.rows = append(p.rows, o.arrivals...)
	default:
		o.ids = p.some()
		for range o.ids {
			o.numbers = append(o.numbers, p.random.IntN(1000))
		}
	}
	return o
}
