package pabalotel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalotel"
	"github.com/pabal-go/pabal/pabaltest"
)

type paid struct {
	OrderNo string `json:"orderNo"`
}

var (
	orderPaid = pabal.Define[paid]("order-pay-done")
	settled   = pabal.Define[paid]("order-settled")
)

// watched is an order service and a settlement service under observation.
type watched struct {
	*pabaltest.Post
	t          *testing.T
	order      *pabaltest.Client
	settlement *pabaltest.Client
	spans      *tracetest.SpanRecorder
	tracer     oteltrace.TracerProvider
	meters     *metric.MeterProvider
	reader     *metric.ManualReader
}

func watch(t *testing.T) *watched {
	w := &watched{Post: pabaltest.New(t), t: t, spans: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	w.tracer = trace.NewTracerProvider(trace.WithSpanProcessor(w.spans))
	w.meters = metric.NewMeterProvider(metric.WithReader(w.reader))
	observer, err := pabalotel.New(&pabalotel.Options{TracerProvider: w.tracer, MeterProvider: w.meters})
	if err != nil {
		t.Fatal(err)
	}
	w.order = w.ClientWith("order", &pabal.Options{Observer: observer})
	w.settlement = w.ClientWith("settlement", &pabal.Options{Observer: observer})
	return w
}

func (w *watched) record(ctx context.Context, events ...pabal.Event) {
	w.t.Helper()
	if err := w.InTx(w.order, func(tx pabaltest.Tx) error { return w.order.Record(ctx, tx, events...) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) named(name string) (found []trace.ReadOnlySpan) {
	for _, s := range w.spans.Ended() {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	return found
}

// one is the only span of a name.
func (w *watched) one(name string) trace.ReadOnlySpan {
	w.t.Helper()
	found := w.named(name)
	if len(found) != 1 {
		w.t.Fatalf("%d spans are called %q, of %v", len(found), name, names(w.spans.Ended()))
	}
	return found[0]
}

func names(spans []trace.ReadOnlySpan) (all []string) {
	for _, s := range spans {
		all = append(all, s.Name())
	}
	return all
}

func childOf(child, parent trace.ReadOnlySpan) bool {
	return child.Parent().SpanID() == parent.SpanContext().SpanID() && child.SpanContext().TraceID() == parent.SpanContext().TraceID()
}

func linkedTo(s trace.ReadOnlySpan, origins ...trace.ReadOnlySpan) bool {
	if len(s.Links()) != len(origins) {
		return false
	}
	for _, o := range origins {
		if !slices.ContainsFunc(s.Links(), func(l trace.Link) bool { return l.SpanContext.SpanID() == o.SpanContext().SpanID() }) {
			return false
		}
	}
	return true
}

func TestOneTraceConnectsRecordingPublishingEachHandlerAndWhatItRecords(t *testing.T) {
	w := watch(t)
	pabal.Handle(w.settlement.Consumer("settlement", nil), orderPaid,
		func(ctx context.Context, tx pabaltest.Tx, e pabal.Received[paid]) error {
			return w.settlement.Record(ctx, tx, settled.New(e.Data))
		})
	ctx, request := w.tracer.Tracer("test").Start(t.Context(), "POST /orders/A1/pay")
	w.record(ctx, orderPaid.New(paid{"A1"}))
	request.End()
	w.Settle(time.Minute)

	create, send, process := w.one("create order-pay-done"), w.one("send order-pay-done"), w.one("process order-pay-done")
	if create.Parent().SpanID() != request.SpanContext().SpanID() || create.SpanKind() != oteltrace.SpanKindProducer {
		t.Errorf("recording is a %v child of %v", create.SpanKind(), create.Parent())
	}
	if !childOf(send, create) || !linkedTo(send, create) || send.SpanKind() != oteltrace.SpanKindProducer {
		t.Errorf("publishing is a %v child of %v with links %v", send.SpanKind(), send.Parent(), send.Links())
	}
	if !childOf(process, create) || !linkedTo(process, create) || process.SpanKind() != oteltrace.SpanKindConsumer {
		t.Errorf("handling is a %v child of %v with links %v", process.SpanKind(), process.Parent(), process.Links())
	}
	if next := w.one("create order-settled"); !childOf(next, process) {
		t.Errorf("what the handler recorded is a child of %v", next.Parent())
	}
	want := map[attribute.Key]string{
		"messaging.system": "pabal", "messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.destination.name": "order-pay-done", "messaging.consumer.group.name": "settlement", "pabal.event.type": "order-pay-done",
	}
	got := map[attribute.Key]string{}
	for _, a := range process.Attributes() {
		got[a.Key] = a.Value.String()
	}
	if !maps.Equal(got, want) {
		t.Errorf("handling has attributes %v, not %v", got, want)
	}
}

func TestRepublishedEventHasALinkToItsOriginEachTime(t *testing.T) {
	w := watch(t)
	w.AnswerNext(pabaltest.Again, pabaltest.Again)
	w.record(t.Context(), orderPaid.New(paid{"A1"}))
	w.Settle(10 * time.Minute)
	create, sends := w.one("create order-pay-done"), w.named("send order-pay-done")
	if len(sends) != 3 {
		t.Fatalf("%d publishes: %v", len(sends), names(w.spans.Ended()))
	}
	for i, s := range sends {
		if !linkedTo(s, create) {
			t.Errorf("publish %d has links %v", i+1, s.Links())
		}
		if failed := s.Status().Code == codes.Error; failed != (i < 2) {
			t.Errorf("publish %d has status %v", i+1, s.Status())
		}
	}
}

func TestBatchIsATraceOfItsOwnWithALinkToEachOrigin(t *testing.T) {
	w := watch(t)
	pabal.HandleBatch(w.settlement.Consumer("settlement", nil), orderPaid,
		func(context.Context, pabaltest.Tx, []pabal.Received[paid]) error { return nil })
	w.AnswerNext(pabaltest.Again, pabaltest.Again, pabaltest.Again) // the republisher takes all three together
	for _, no := range []string{"A1", "A2", "A3"} {
		w.record(t.Context(), orderPaid.New(paid{no}))
	}
	w.Settle(10 * time.Minute)
	creates := w.named("create order-pay-done")
	for _, name := range []string{"send order-pay-done", "process order-pay-done"} {
		together := slices.MaxFunc(w.named(name), func(a, b trace.ReadOnlySpan) int { return len(a.Links()) - len(b.Links()) })
		if n := len(together.Links()); n < 2 || !linkedTo(together, created(creates, together)...) || together.Parent().IsValid() {
			t.Errorf("%s of several has parent %v and links %v", name, together.Parent(), together.Links())
		}
		if n := attribute.Int("messaging.batch.message_count", len(together.Links())); !slices.Contains(together.Attributes(), n) {
			t.Errorf("%s has attributes %v, not %v", name, together.Attributes(), n)
		}
	}
}

// created are those that a span has links to.
func created(all []trace.ReadOnlySpan, s trace.ReadOnlySpan) (linked []trace.ReadOnlySpan) {
	for _, c := range all {
		if slices.ContainsFunc(s.Links(), func(l trace.Link) bool { return l.SpanContext.Equal(c.SpanContext().WithRemote(true)) }) {
			linked = append(linked, c)
		}
	}
	return linked
}

func TestTraceOfACallerWithoutOpenTelemetryGoesOn(t *testing.T) {
	const given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w := watch(t)
	w.record(pabal.WithTraceparent(t.Context(), given), orderPaid.New(paid{"A1"}))
	create := w.one("create order-pay-done")
	if create.SpanContext().TraceID().String() != given[3:35] || create.Parent().SpanID().String() != given[36:52] {
		t.Errorf("the span is in trace %v, a child of %v", create.SpanContext().TraceID(), create.Parent().SpanID())
	}
}

// points are the sums and counts of a metric, by its attributes.
func (w *watched) points(name string) map[string]float64 {
	w.t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.reader.Collect(w.t.Context(), &all); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]float64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					found[text(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					found[text(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					found[text(p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					found[text(p.Attributes)] = float64(p.Count)
				}
			default:
				w.t.Fatalf("%s is a %T", name, data)
			}
		}
	}
	return found
}

// text leaves out what all have: the system, and the operation where its type says the same.
func text(set attribute.Set) string {
	var parts []string
	for _, a := range set.ToSlice() {
		if a.Key != "messaging.system" && a.Key != "messaging.operation.type" {
			parts = append(parts, fmt.Sprintf("%s=%s", a.Key[strings.LastIndexByte(string(a.Key), '.')+1:], a.Value.String()))
		}
	}
	return strings.Join(parts, " ")
}

func TestMetricsFollowTheConventionsAndCountWhatHappened(t *testing.T) {
	w := watch(t)
	failing := true
	pabal.Handle(w.settlement.Consumer("settlement", nil), orderPaid, func(context.Context, pabaltest.Tx, pabal.Received[paid]) error {
		if failing {
			failing = false
			return errors.New("not yet")
		}
		return nil
	})
	w.AnswerNext(pabaltest.Again)
	w.record(t.Context(), orderPaid.New(paid{"A1"}))
	w.Settle(10 * time.Minute)
	w.Pass(time.Second) // what is counted after the last commit
	for name, want := range map[string]map[string]float64{
		"messaging.client.sent.messages": {
			"name=order-pay-done name=send": 1, "type=again name=order-pay-done name=send": 1,
		},
		"messaging.client.operation.duration": {
			"name=order-pay-done name=create": 1, "name=order-pay-done name=send": 1,
			"type=*errors.errorString name=order-pay-done name=send": 1,
		},
		"messaging.process.duration": {
			"name=settlement name=order-pay-done name=process":                          1,
			"type=*errors.errorString name=settlement name=order-pay-done name=process": 1,
		},
		"messaging.client.consumed.messages": {
			"name=settlement name=order-pay-done name=process":                          1,
			"type=*errors.errorString name=settlement name=order-pay-done name=process": 1,
		},
	} {
		if got := w.points(name); !maps.Equal(got, want) {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	events := w.points("pabal.events")
	for _, want := range []string{
		"name=order-pay-done result=again step=publish", "name=order-pay-done result=accepted step=publish",
		"name=order-pay-done result=confirmed step=confirm", "name=order-pay-done result=claimed step=republish",
		"name=settlement name=order-pay-done result=handled step=consume",
	} {
		if events[want] != 1 {
			t.Errorf("pabal.events has not one %q: %v", want, events)
		}
	}
}

func TestHealthIsWhatStatusShows(t *testing.T) {
	w := watch(t)
	o := &pabalotel.Options{MeterProvider: w.meters}
	stop, err := pabalotel.WatchHealth(w.order.Operator, o)
	if err != nil {
		t.Fatal(err)
	}
	w.AnswerNext(pabaltest.Never)
	w.record(t.Context(), orderPaid.New(paid{"A1"}))
	w.Pass(time.Minute)
	w.BrokerAway(time.Hour)
	w.record(t.Context(), orderPaid.New(paid{"A2"}))
	w.Pass(20 * time.Minute)
	for name, want := range map[string]map[string]float64{
		"pabal.healthy": {"": 0}, "pabal.troubles": {"": 2},
		"pabal.unconfirmed": {"name=order-pay-done": 1}, "pabal.parked": {"name=order-pay-done": 1},
	} {
		if got := w.points(name); !maps.Equal(got, want) {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	if age := w.points("pabal.oldest.age")["name=order-pay-done"]; age < 20*60 || age > 21*60 {
		t.Errorf("the oldest is %v s old, not 20 minutes", age)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := w.points("pabal.healthy"); len(got) != 0 {
		t.Errorf("stopped, it still reports %v", got)
	}
}

// What a consumer holds has an age, which ends with it.
func TestHeldAgeIsThatOfTheOldest(t *testing.T) {
	w := watch(t)
	if _, err := pabalotel.WatchHealth(w.settlement.Operator, &pabalotel.Options{MeterProvider: w.meters}); err != nil {
		t.Fatal(err)
	}
	broken := true
	pabal.Handle(w.settlement.Consumer("settlement", nil), orderPaid, func(context.Context, pabaltest.Tx, pabal.Received[paid]) error {
		if broken {
			return errors.New("no ledger")
		}
		return nil
	})
	w.record(t.Context(), orderPaid.New(paid{"A1"}))
	w.Pass(2 * time.Minute)
	w.record(t.Context(), orderPaid.New(paid{"A2"}))
	w.Pass(time.Second)
	if age := w.points("pabal.held.age")["name=settlement"]; w.points("pabal.held")["name=settlement"] != 2 || age < 119 || age > 122 {
		t.Errorf("%v are held, the oldest for %v s", w.points("pabal.held"), age)
	}
	broken = false
	w.Settle(time.Hour)
	if age, there := w.points("pabal.held.age")["name=settlement"]; age != 0 || !there {
		t.Errorf("nothing is held, and the oldest is %v s old (%v)", age, there)
	}
}
