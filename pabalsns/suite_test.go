package pabalsns_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func configuration(url string) aws.Config {
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	}
}

// open connects to an endpoint, with what the tests want of the options where they say nothing.
func open(t testing.TB, url string, o pabalsns.Options) *pabalsns.Broker {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	b, err := pabalsns.Open(configuration(url), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

var installations atomic.Int64

// installation is a prefix that no other test uses.
func installation() string { return fmt.Sprintf("t%d-", installations.Add(1)) }

func harness(url string, o pabalsns.Options) brokertest.Harness {
	o.Hold = cmp.Or(o.Hold, 2*time.Second)
	return brokertest.Harness{NoDedup: true, Repeats: true, Open: func(*testing.T) func(*testing.T) driver.Broker {
		o := o
		o.Prefix = installation()
		return func(t *testing.T) driver.Broker { return open(t, url, o) }
	}}
}

func TestConformanceOnFauxqs(t *testing.T) {
	brokertest.Run(t, harness(servers.Fauxqs(t, false).URL, pabalsns.Options{}))
}

// Topics are FIFO topics, queues standard ones, which know no deduplication.
func TestConformanceOnFauxqsWithFIFOTopics(t *testing.T) {
	brokertest.Run(t, harness(servers.Fauxqs(t, false).URL, pabalsns.Options{FIFO: true}))
}

func TestConformanceOnMoto(t *testing.T) {
	brokertest.Run(t, harness(servers.Moto(t).URL, pabalsns.Options{}))
}

// Calls that are refused, carried out without an answer, or for half of their messages, are made again, and lead to the same.
func TestConformanceMisbehaving(t *testing.T) {
	t.Run("Fauxqs", func(t *testing.T) {
		brokertest.RunMisbehaving(t, harness(servers.Fauxqs(t, false).URL, pabalsns.Options{}), 1)
	})
	t.Run("Fauxqs with FIFO topics", func(t *testing.T) {
		brokertest.RunMisbehaving(t, harness(servers.Fauxqs(t, false).URL, pabalsns.Options{FIFO: true}), 2)
	})
	t.Run("Moto", func(t *testing.T) { // which is slow: what is held back for a call or two would be over after 2 s
		brokertest.RunMisbehaving(t, harness(servers.Moto(t).URL, pabalsns.Options{Hold: 6 * time.Second}), 3)
	})
}

var village = driver.Topology{
	Topics: []driver.TopicSpec{{Name: "paid", Ordered: true}}, Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}},
}

func check(t testing.TB, b *pabalsns.Broker, topology driver.Topology) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := b.Check(ctx, topology, true); err != nil {
		t.Fatal(err)
	}
}
