// Package pabalotel has OpenTelemetry watch Pabal: traces that connect the transaction that records an event, each publish of it and
// each handler, and metrics by the semantic conventions for messaging.
//
//	observer, err := pabalotel.New(nil) // the global providers
//	client, err := pabal.New(ctx, store, broker, "order", &pabal.Options{Observer: observer})
//	stop, err := pabalotel.WatchHealth(client.Operator, nil)
//
// # Traces
//
// Record is a span "create <topic>" of kind producer, in the trace of its context, and goes with its events. Publish is a span
// "send <topic>" and a handler's call a span "process <topic>" of kind consumer: of one event they are children of its create span, of
// several they begin a trace of their own. Either way they have a link to the create span of each event, so an event that is
// published again, or handled again, has one more span that points to the same origin. A handler that records events goes
// on with the trace that it was called in.
//
// # Metrics
//
// By the conventions: messaging.client.sent.messages, messaging.client.consumed.messages, messaging.client.operation.duration (create and
// send) and messaging.process.duration, in seconds. Of Pabal's own:
//
//   - pabal.events counts what happened to events, by pabal.step (publish, confirm, republish, redeliver, consume, forget) and
//     pabal.result (accepted, again, never, confirmed, repeated, stray, ghost, handled, duplicate, held, parked, …)
//   - pabal.healthy, pabal.troubles, pabal.unconfirmed, pabal.parked, pabal.oldest.age, pabal.held, pabal.held.age and
//     pabal.overflowing are of [WatchHealth]: what `pabal status` shows
//   - pabal.dead_letters is of [WatchDeadLetters]
//
// See https://opentelemetry.io/docs/specs/semconv/messaging/.
package pabalotel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/pabal-go/pabal"
)

const scope = "github.com/pabal-go/pabal/pabalotel"

// system is the value of messaging.system: what the conventions ask for where none of theirs fits. The broker below is not
// seen from here.
const system = messagingconv.SystemAttr("pabal")

// Options of [New], [WatchHealth] and [WatchDeadLetters]. Nil and zero values are the good defaults.
type Options struct {
	TracerProvider trace.TracerProvider // default: otel.GetTracerProvider()
	MeterProvider  metric.MeterProvider // default: otel.GetMeterProvider()
}

func (o *Options) meter() metric.Meter {
	if o == nil || o.MeterProvider == nil {
		return otel.GetMeterProvider().Meter(scope)
	}
	return o.MeterProvider.Meter(scope)
}

func (o *Options) tracer() trace.Tracer {
	if o == nil || o.TracerProvider == nil {
		return otel.GetTracerProvider().Tracer(scope)
	}
	return o.TracerProvider.Tracer(scope)
}

type observer struct {
	tracer    trace.Tracer
	events    metric.Int64Counter
	sent      messagingconv.ClientSentMessages
	consumed  messagingconv.ClientConsumedMessages
	operation messagingconv.ClientOperationDuration
	process   messagingconv.ProcessDuration
}

// New makes an observer for Options.Observer of any number of clients. Its error is one of the meter's, about an instrument that
// is there already in another form. The observer may be used by many goroutines at once and does not block.
func New(o *Options) (pabal.Observer, error) {
	w := &observer{tracer: o.tracer()}
	meter := o.meter()
	var errs [5]error
	w.events, errs[0] = meter.Int64Counter("pabal.events", metric.WithUnit("{event}"),
		metric.WithDescription("What happened to events, by step and result."))
	w.sent, errs[1] = messagingconv.NewClientSentMessages(meter)
	w.consumed, errs[2] = messagingconv.NewClientConsumedMessages(meter)
	w.operation, errs[3] = messagingconv.NewClientOperationDuration(meter)
	w.process, errs[4] = messagingconv.NewProcessDuration(meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("pabalotel: %w", err)
	}
	return w, nil
}

// operation is how the conventions see a step of Pabal's.
type operation struct {
	name string // and type
	kind trace.SpanKind
}

var operations = map[string]operation{
	"record":  {"create", trace.SpanKindProducer},
	"publish": {"send", trace.SpanKindProducer},
	"handle":  {"process", trace.SpanKindConsumer},
}

// Start implements pabal.Observer.
func (o *observer) Start(ctx context.Context, s pabal.Step) (context.Context, func(error)) {
	op, known := operations[s.Name]
	if !known { // of a newer version of the core
		op = operation{s.Name, trace.SpanKindInternal}
	}
	began := time.Now()
	attributes := append(destination(s.Topic, s.Consumer),
		semconv.MessagingSystemKey.String(string(system)), semconv.MessagingOperationName(op.name),
		semconv.MessagingOperationTypeKey.String(op.name))
	if s.Events > 1 {
		attributes = append(attributes, semconv.MessagingBatchMessageCount(s.Events))
	}
	if s.Type != "" {
		attributes = append(attributes, attribute.String("pabal.event.type", s.Type))
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(op.kind), trace.WithTimestamp(began), trace.WithAttributes(attributes...)}
	parent := ctx
	if s.Traceparents != nil {
		var origins []trace.Link
		parent, origins = from(ctx, s)
		options = append(options, trace.WithLinks(origins...))
	} else if given := pabal.Traceparent(ctx); given != "" && !trace.SpanContextFromContext(ctx).IsValid() {
		parent = extract(ctx, given) // of a caller that traces without OpenTelemetry
	}
	inner, span := o.tracer.Start(parent, op.name+" "+s.Topic, options...)
	if span.SpanContext().IsValid() {
		inner = pabal.WithTraceparent(inner, traceparent(inner))
	}
	return inner, func(err error) { o.end(ctx, span, s, op, began, err) }
}

// from finds where the events of a step come from: of one, that is the parent, of more each is but a link.
func from(ctx context.Context, s pabal.Step) (parent context.Context, origins []trace.Link) {
	texts := s.Traceparents()
	parent = ctx
	for _, text := range texts {
		c := extract(ctx, text)
		if origin := trace.SpanContextFromContext(c); origin.IsValid() {
			origins = append(origins, trace.Link{SpanContext: origin})
			if s.Events == 1 {
				parent = c
			}
		}
	}
	return parent, origins
}

func (o *observer) end(ctx context.Context, span trace.Span, s pabal.Step, op operation, began time.Time, err error) {
	took := time.Since(began).Seconds()
	attributes := destination(s.Topic, s.Consumer)
	if err != nil {
		failed := semconv.ErrorType(err)
		attributes = append(attributes, failed)
		span.SetAttributes(failed)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
	switch s.Name {
	case "handle":
		o.process.Record(ctx, took, op.name, system, attributes...)
		o.consumed.Add(ctx, int64(s.Events), op.name, system, attributes...)
	case "record", "publish":
		attributes = append(attributes, semconv.MessagingOperationTypeKey.String(op.name))
		o.operation.Record(ctx, took, op.name, system, attributes...)
	}
}

// Count implements pabal.Observer.
func (o *observer) Count(c pabal.Count) {
	ctx := context.Background()
	attributes := destination(c.Topic, c.Consumer)
	o.events.Add(ctx, int64(c.N), metric.WithAttributes(append(attributes,
		attribute.String("pabal.step", c.Step), attribute.String("pabal.result", c.Result))...))
	if c.Step != "publish" {
		return
	}
	attributes = destination(c.Topic, c.Consumer)
	if c.Result != "accepted" {
		attributes = append(attributes, semconv.ErrorTypeKey.String(c.Result))
	}
	o.sent.Add(ctx, int64(c.N), "send", system, attributes...)
}

func destination(topic, consumer string) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, 8)
	if topic != "" {
		attributes = append(attributes, semconv.MessagingDestinationName(topic))
	}
	if consumer != "" {
		attributes = append(attributes, semconv.MessagingConsumerGroupName(consumer))
	}
	return attributes
}

// The traceparent of the W3C's Trace Context is what events carry, whatever propagator a program has otherwise.

const header = "traceparent"

var w3c propagation.TraceContext

func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier[header]
}

func extract(ctx context.Context, text string) context.Context {
	return w3c.Extract(ctx, propagation.MapCarrier{header: text})
}
