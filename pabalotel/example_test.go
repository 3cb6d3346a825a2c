package pabalotel_test

import (
	"context"
	"fmt"
	"log"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalotel"
	"github.com/pabal-go/pabal/pabaltest"
)

// A program hands its providers over, or leaves that out and sets the global ones.
func ExampleNew() {
	spans := tracetest.NewSpanRecorder()
	observer, err := pabalotel.New(&pabalotel.Options{TracerProvider: trace.NewTracerProvider(trace.WithSpanProcessor(spans))})
	if err != nil {
		log.Fatal(err)
	}

	post := pabaltest.New(&testing.T{})
	order := post.ClientWith("order", &pabal.Options{Observer: observer})
	err = post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, orderPaid.New(paid{"A1"}))
	})
	if err != nil {
		log.Fatal(err)
	}
	post.Settle(time.Minute)
	for _, s := range spans.Ended() {
		fmt.Println(s.SpanKind(), s.Name(), s.Parent().IsValid())
	}
	// Output:
	// producer create order-pay-done false
	// producer send order-pay-done true
}

// Whoever collects metrics sees what `pabal status` shows.
func ExampleWatchHealth() {
	reader := metric.NewManualReader() // in earnest an exporter: of Prometheus, of OTLP
	post := pabaltest.New(&testing.T{})
	order := post.Client("order")
	stop, err := pabalotel.WatchHealth(order.Operator, &pabalotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	if err != nil {
		log.Fatal(err)
	}
	defer stop() //nolint:errcheck // the program ends

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit)
	}
	// Output:
	// pabal.healthy {store}
	// pabal.troubles {trouble}
}
