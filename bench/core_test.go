package main

import (
	"fmt"
	"testing"
)

// BenchmarkCore measures package pabal alone: an operation is an event, recorded, handled by three services, confirmed.
func BenchmarkCore(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		for _, perTx := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("keyed=%v/transaction=%d", keyed, perTx), func(b *testing.B) {
				n := max(b.N/perTx, 1) * perTx
				r, err := coreRun{keyed: keyed, events: n, perTx: perTx, writers: 8, services: 3}.run(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(r.perSecond(n), "events/s")
				b.ReportMetric(float64(r.cpu.Nanoseconds()), "cpu-ns/event")
				b.ReportMetric(r.allocs, "allocs/event")
				b.ReportMetric(r.bytes, "B/event")
			})
		}
	}
}
