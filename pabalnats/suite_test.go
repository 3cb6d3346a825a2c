package pabalnats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/pabalnats"
)

// startServer starts a JetStream server on a port of the loopback interface.
func startServer(t testing.TB) string {
	t.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS is not ready")
	}
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	return ns.ClientURL()
}

func TestConformance(t *testing.T) { brokertest.Run(t, serverHarness) }

func TestConformanceMisbehaving(t *testing.T) { brokertest.RunMisbehaving(t, serverHarness, 1) }

func TestConformanceEmbedded(t *testing.T) { brokertest.Run(t, embeddedHarness) }

func TestConformanceEmbeddedMisbehaving(t *testing.T) {
	brokertest.RunMisbehaving(t, embeddedHarness, 2)
}

var serverHarness = brokertest.Harness{NoLost: true, NoTopics: true, Open: func(t *testing.T) func(*testing.T) driver.Broker {
	url := startServer(t)
	return func(t *testing.T) driver.Broker {
		b, err := pabalnats.Connect(t.Context(), url, &pabalnats.Options{Hold: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
}}

var embeddedHarness = brokertest.Harness{NoLost: true, NoTopics: true, Open: func(t *testing.T) func(*testing.T) driver.Broker {
	b, err := pabalnats.Open(t.TempDir(), &pabalnats.Options{Hold: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return func(t *testing.T) driver.Broker {
		other, err := b.Again()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Close() })
		return other
	}
}}
