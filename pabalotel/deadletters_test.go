package pabalotel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalotel"
	"github.com/pabal-go/pabal/pabaltest"
)

// aside is a broker that says which messages it has put aside.
type aside struct {
	driver.Surveyor
	driver.Broker
	dead  []driver.DeadLetter
	err   error
	asked []driver.QueueSpec
	calls int
}

func (a *aside) DeadLetters(_ context.Context, t driver.Topology) ([]driver.DeadLetter, error) {
	a.asked = t.Queues
	a.calls++
	return a.dead, a.err
}

// The broker is asked for the store's queues, at most once a minute, and more seldom as long as it refuses.
func TestDeadLettersAreThoseOfTheStoresQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		b := &aside{dead: []driver.DeadLetter{{Queue: "order", Messages: 3}}}
		stop, err := pabalotel.WatchDeadLetters(w.order.Operator, b, &pabalotel.Options{MeterProvider: w.meters})
		if err != nil {
			t.Fatal(err)
		}
		shows := func(calls int, want map[string]float64) {
			t.Helper()
			if got := w.points("pabal.dead_letters"); b.calls != calls || !maps.Equal(got, want) {
				t.Errorf("after %d calls, not %d: %v, not %v", b.calls, calls, got, want)
			}
		}
		three := map[string]float64{"name=event-record-order": 0, "name=order": 3}
		shows(1, three)
		if fmt.Sprint(b.asked) != "[{event-record-order []} {order []}]" {
			t.Errorf("asked for %v", b.asked)
		}
		b.dead = nil
		time.Sleep(59 * time.Second)
		shows(1, three)
		time.Sleep(time.Second)
		shows(2, map[string]float64{"name=event-record-order": 0, "name=order": 0})

		b.err = errors.New("AccessDenied")
		time.Sleep(time.Minute)
		var all metricdata.ResourceMetrics
		if err := w.reader.Collect(t.Context(), &all); !errors.Is(err, b.err) {
			t.Errorf("a refusal is told as %v", err)
		}
		time.Sleep(9 * time.Minute)
		shows(3, map[string]float64{})
		b.err = nil
		time.Sleep(time.Minute)
		shows(4, map[string]float64{"name=event-record-order": 0, "name=order": 0})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		shows(4, map[string]float64{})
	})
}

// A broker without dead letters has no series.
func TestBrokerThatPutsNothingAsideReportsNothing(t *testing.T) {
	w := watch(t)
	stop, err := pabalotel.WatchDeadLetters(w.order.Operator, pabaltest.NewBroker(), &pabalotel.Options{MeterProvider: w.meters})
	if err != nil || len(w.points("pabal.dead_letters")) > 0 {
		t.Errorf("%v, %v", err, w.points("pabal.dead_letters"))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Beside the health of a store: what its broker has put aside.
func ExampleWatchDeadLetters() {
	reader := metric.NewManualReader() // in earnest an exporter: of Prometheus, of OTLP
	post := pabaltest.New(&testing.T{})
	order := post.Client("order")
	broker := &aside{dead: []driver.DeadLetter{{Queue: "order", Messages: 3}}} // in earnest of pabalsns
	o := &pabalotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}
	stop, err := pabalotel.WatchDeadLetters(order.Operator, broker, o)
	if err != nil {
		log.Fatal(err)
	}
	defer stop() //nolint:errcheck // the program ends

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit, len(m.Data.(metricdata.Gauge[int64]).DataPoints), "queues")
	}
	// Output: pabal.dead_letters {message} 2 queues
}
