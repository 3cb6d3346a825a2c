package brokertest_test

import (
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// memory opens brokers in memory, which do not deduplicate: here, as an example, what a driver's test opens on a real server.
var memory = brokertest.Harness{NoDedup: true, Open: func(*testing.T) func(*testing.T) driver.Broker {
	w := world.Real()
	server := sim.NewBrokerServer(w, sim.BrokerOptions{})
	return func(*testing.T) driver.Broker { return server.Connect(w, sim.Direct) }
}}

// The test of a driver.
func ExampleRun() {
	_ = func(t *testing.T) { brokertest.Run(t, memory) }
}

// The same, for a caller that does again what fails now and then, from a seed.
func ExampleRunMisbehaving() {
	_ = func(t *testing.T) { brokertest.RunMisbehaving(t, memory, 1) }
}
