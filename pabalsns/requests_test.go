package pabalsns_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

// BenchmarkRequests publishes at full rate while four queues are received and acknowledged, and counts the API requests of
// an event at the server: 0.9 when all are tens, 9 one by one.
func BenchmarkRequests(b *testing.B) {
	proxy := hostile.Start(b, servers.Fauxqs(b, false).URL, 1, hostile.Rates{})
	broker := open(b, proxy.URL, pabalsns.Options{})
	topology := driver.Topology{Topics: []driver.TopicSpec{{Name: "paid"}}}
	queues := []string{"settlement", "notification", "ledger", "event-record-order"}
	for _, name := range queues {
		topology.Queues = append(topology.Queues, driver.QueueSpec{Name: name, Topics: []string{"paid"}})
	}
	if err := broker.Check(b.Context(), topology, true); err != nil {
		b.Fatal(err)
	}
	before := proxy.Calls()
	b.ResetTimer()
	var running sync.WaitGroup
	for _, name := range queues {
		running.Go(func() { drainQueue(b, broker, name) })
	}
	for lane := range 4 {
		running.Go(func() { publishLane(b, broker, (b.N+lane)/4) })
	}
	running.Wait()
	b.StopTimer()
	total := 0
	for action, n := range proxy.Calls() {
		if n -= before[action]; n > 0 {
			b.ReportMetric(float64(n)/float64(b.N), action+"/event")
			total += n
		}
	}
	b.ReportMetric(float64(total)/float64(b.N), "requests/event")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func publishLane(b *testing.B, broker *pabalsns.Broker, n int) {
	body := make([]byte, 512)
	for i := range body {
		body[i] = 'x'
	}
	for from := 0; from < n; from += 10 {
		list := messages(make([]string, min(10, n-from))...)
		for i := range list {
			list[i].Body = body
		}
		for _, v := range broker.Publish(b.Context(), paid, list) {
			if v.Kind != driver.Accepted {
				b.Error(v.Err)
			}
		}
	}
}

func drainQueue(b *testing.B, broker *pabalsns.Broker, name string) {
	deadline := time.Now().Add(time.Minute)
	for n := 0; n < b.N; {
		got, err := broker.Receive(b.Context(), name, 10)
		if err == nil {
			err = broker.Ack(b.Context(), name, got)
		}
		if n += len(got); err != nil || time.Now().After(deadline) {
			b.Error(fmt.Errorf("%d messages of queue %s, %w", n, name, err))
			return
		}
	}
}
