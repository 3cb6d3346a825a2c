package pabalnats_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

// BenchmarkPublish measures durable publishing to the embedded server: one operation is one message.
func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 16, 32, 256} {
		for _, relaxed := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/relaxed=%v", batch, relaxed), func(b *testing.B) {
				broker, err := pabalnats.Open(b.TempDir(), &pabalnats.Options{Relaxed: relaxed})
				if err != nil {
					b.Fatal(err)
				}
				defer broker.Close() //nolint:errcheck // of a benchmark
				topology := driver.Topology{Topics: []driver.TopicSpec{{Name: "paid"}},
					Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}}}
				if err := broker.Check(b.Context(), topology, true); err != nil {
					b.Fatal(err)
				}
				body := make([]byte, 512)
				for n := 0; n < b.N; n += batch {
					messages := make([]driver.Message, batch)
					for i := range messages {
						messages[i] = driver.Message{ID: uuid.New(), Dedup: uuid.NewString(), Body: body}
					}
					for _, v := range broker.Publish(b.Context(), driver.Destination{Topic: "paid"}, messages) {
						if v.Kind != driver.Accepted {
							b.Fatal(v.Err)
						}
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
