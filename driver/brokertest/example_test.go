package brokertest_test

import (
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// The test of a driver: here, as an example, of the broker in memory, which does not deduplicate.
func ExampleRun() {
	_ = func(t *testing.T) {
		brokertest.Run(t, brokertest.Harness{NoDedup: true, Open: func(*testing.T) func(*testing.T) driver.Broker {
			w := world.Real()
			server := sim.NewBrokerServer(w, sim.BrokerOptions{})
			return func(*testing.T) driver.Broker { return server.Connect(w, sim.Direct) }
		}})
	}
}
