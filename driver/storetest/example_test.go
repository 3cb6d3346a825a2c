package storetest_test

import (
	"context"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// memory opens databases in memory: here, as an example, what a driver's test opens on a real server.
var memory = storetest.Harness[*sim.Tx]{Open: func(*testing.T) storetest.Database[*sim.Tx] {
	w := world.Real()
	d := sim.NewDatabase(w, sim.DatabaseOptions{})
	store := d.Connect(w, sim.Direct)
	return storetest.Database[*sim.Tx]{
		Connect:  func(*testing.T) driver.Store[*sim.Tx] { return d.Connect(w, sim.Direct) },
		Begin:    store.Begin,
		Commit:   func(tx *sim.Tx) error { return tx.Commit(context.Background()) },
		Rollback: func(tx *sim.Tx) error { tx.Rollback(context.Background()); return nil },
		Nil:      func() *sim.Tx { return nil },
	}
}}

// Every sentence of the contracts is a case.
func ExampleRun() {
	_ = func(t *testing.T) { storetest.Run(t, memory) }
}

// The same, for a caller that does again what fails now and then, from a seed.
func ExampleRunMisbehaving() {
	_ = func(t *testing.T) { storetest.RunMisbehaving(t, memory, 1) }
}

// The same random operations here and on the simulated database, from a seed.
func ExampleDifferential() {
	_ = func(t *testing.T) { storetest.Differential(t, memory, 1, 1000) }
}
