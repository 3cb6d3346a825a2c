package sim_test

import (
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

func TestBrokerConformance(t *testing.T) {
	for _, dedup := range []time.Duration{0, time.Minute} {
		t.Run("dedup "+dedup.String(), func(t *testing.T) { brokertest.Run(t, brokerHarness(dedup)) })
	}
}

func TestBrokerConformanceMisbehaving(t *testing.T) {
	for i, dedup := range []time.Duration{0, time.Minute} {
		t.Run("dedup "+dedup.String(), func(t *testing.T) { brokertest.RunMisbehaving(t, brokerHarness(dedup), uint64(i)) })
	}
}

func brokerHarness(dedup time.Duration) brokertest.Harness {
	return brokertest.Harness{NoDedup: dedup == 0, Open: func(*testing.T) func(*testing.T) driver.Broker {
		w := world.Real()
		server := sim.NewBrokerServer(w, sim.BrokerOptions{Dedup: dedup, Limits: driver.Limits{
			Message: 1 << 16, Hold: time.Second, Wait: time.Second,
		}})
		return func(*testing.T) driver.Broker { return server.Connect(w, sim.Direct) }
	}}
}
