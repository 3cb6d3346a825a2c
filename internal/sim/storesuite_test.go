package sim_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

func TestStoreConformance(t *testing.T) {
	for _, single := range []bool{false, true} {
		name := "row locks"
		if single {
			name = "single writer"
		}
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Harness[*sim.Tx]{SingleWriter: single, Open: func(t *testing.T) storetest.Database[*sim.Tx] {
				return openSuite(world.Real(), sim.DatabaseOptions{SingleWriter: single})
			}})
		})
	}
}

func TestStoreConformanceMisbehaving(t *testing.T) {
	storetest.RunMisbehaving(t, storetest.Harness[*sim.Tx]{Open: func(t *testing.T) storetest.Database[*sim.Tx] {
		return openSuite(world.Real(), sim.DatabaseOptions{})
	}}, 1)
}

func openSuite(w world.World, o sim.DatabaseOptions) storetest.Database[*sim.Tx] {
	d := sim.NewDatabase(w, o)
	s := d.Connect(w, sim.Direct)
	var effects atomic.Int64
	savepoints := map[*sim.Tx]int{}
	return storetest.Database[*sim.Tx]{
		Connect:   func(*testing.T) driver.Store[*sim.Tx] { return d.Connect(w, sim.Direct) },
		Begin:     s.Begin,
		Commit:    func(x *sim.Tx) error { return x.Commit(context.Background()) },
		Rollback:  func(x *sim.Tx) error { x.Rollback(context.Background()); return nil },
		Nil:       func() *sim.Tx { return nil },
		Unwatched: s.Unwatched().Begin,
		Savepoint: func(x *sim.Tx) error { savepoints[x] = x.Savepoint(); return nil },
		RollbackTo: func(x *sim.Tx) error {
			x.RollbackTo(savepoints[x])
			return nil
		},
		Fail: func(x *sim.Tx) {
			_ = x.Put(context.Background(), "t", "k", 1)
			if x.Insert(context.Background(), "t", "k", 1) == nil {
				panic("insert of an existing key succeeded")
			}
		},
		Write: func(x *sim.Tx) error {
			return x.Insert(context.Background(), "effects", string(rune('a'+effects.Add(1))), 1)
		},
		Effects: func() int { return d.Count("effects") },
	}
}
