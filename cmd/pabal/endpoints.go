package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalotel"
)

// What machines ask a process that runs: whether it lives, whether it is ready, how much of what it has done.

const (
	lookEvery = 5 * time.Second        // at database and broker
	lookSoon  = 500 * time.Millisecond // as long as it is not ready
	lookTime  = 3 * time.Second        // longest time that one look takes
)

type endpointFlags struct {
	HTTP string `name:"http" help:"Address at which to answer /livez, /readyz and /metrics (Prometheus)." placeholder:"HOST:PORT" env:"PABAL_HTTP"`
}

// endpoints answer from what was seen last, so that whoever asks waits for nothing. A nil one is that of a process without.
type endpoints struct {
	a        *app
	registry *prometheus.Registry
	listener net.Listener
	server   *http.Server
	looking  sync.WaitGroup
	end      context.CancelFunc
	closing  []func() error

	mu       sync.Mutex
	watched  []watched
	starting string   // what it waits for before all of its clients are there
	troubles []string // why they are not ready; empty: they are
	seenAt   time.Time
	draining bool
}

// watched is a client.
type watched struct {
	source    string
	reachable func(context.Context) error
	ready     func(context.Context) error
}

// open listens, before anything else is there: a process that waits for its servers lives.
func (f *endpointFlags) open(a *app) (*endpoints, error) {
	if f.HTTP == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", f.HTTP)
	if err != nil {
		return nil, usage("--http: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	e := &endpoints{a: a, registry: registry, listener: listener, starting: "starting"}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { a.log.Warn("metrics are incomplete", "err", err) }))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", e.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	}))
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	ctx, end := context.WithCancel(context.WithoutCancel(a.ctx)) // it answers until the process has drained
	e.end = end
	e.looking.Go(func() {
		if err := e.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("endpoints are gone", "addr", listener.Addr(), "err", err)
		}
	})
	e.looking.Go(func() { e.look(ctx) })
	return e, nil
}

// observe makes the observer of a source's client; each metric has the source's name.
func (e *endpoints) observe(source string) (pabal.Observer, *pabalotel.Options, error) {
	if e == nil {
		return nil, nil, nil
	}
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"source": source}, e.registry)
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(labelled), otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("metrics of %s: %w", source, err)
	}
	provider := metric.NewMeterProvider(metric.WithReader(exporter))
	e.closing = append(e.closing, func() error { return provider.Shutdown(context.WithoutCancel(e.a.ctx)) })
	o := &pabalotel.Options{MeterProvider: provider}
	observer, err := pabalotel.New(o)
	return observer, o, err
}

// watch has the client's health, and the dead letters of its queues, among the metrics, and itself asked for readiness.
func (e *endpoints) watch(
	source string, operator *pabal.Operator, broker driver.Broker, o *pabalotel.Options, reachable, ready func(context.Context) error,
) error {
	if e == nil {
		return nil
	}
	stop, err := pabalotel.WatchHealth(operator, o)
	if err != nil {
		return err
	}
	e.closing = append([]func() error{stop}, e.closing...) // before its provider
	if stop, err = pabalotel.WatchDeadLetters(operator, broker, o); err != nil {
		return err
	}
	e.closing = append([]func() error{stop}, e.closing...)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watched = append(e.watched, watched{source, reachable, ready})
	return nil
}

// waits says why not all clients are there yet.
func (e *endpoints) waits(why string) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starting = why
}

// started says that all clients are there.
func (e *endpoints) started() { e.waits("") }

// look looks at databases and brokers until ctx ends.
func (e *endpoints) look(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		all, troubles := e.watched, e.troubles
		e.mu.Unlock()
		if len(all) > 0 {
			troubles = seen(ctx, all)
			e.mu.Lock()
			e.troubles, e.seenAt = troubles, time.Now()
			e.mu.Unlock()
		}
		if len(troubles) > 0 {
			wait.Reset(lookSoon)
		} else {
			wait.Reset(lookEvery)
		}
	}
}

// seen asks all at once: one whose database hangs delays no other.
func seen(ctx context.Context, all []watched) (troubles []string) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found := make([]error, len(all))
	var asking sync.WaitGroup
	for i, one := range all {
		asking.Go(func() {
			if found[i] = one.reachable(ctx); found[i] == nil && one.ready(ended) != nil {
				found[i] = errors.New("its client does not run yet, or its queues are not subscribed")
			}
		})
	}
	asking.Wait()
	for i, err := range found {
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				troubles = append(troubles, all[i].source+": "+strings.TrimSpace(line))
			}
		}
	}
	return troubles
}

// ended is for asking without waiting.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// readyz says why it is not ready, and not only that; also when nobody has looked for longer than a look takes.
func (e *endpoints) readyz(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	starting, troubles, seenAt, draining := e.starting, e.troubles, e.seenAt, e.draining
	e.mu.Unlock()
	switch age := time.Since(seenAt); {
	case draining:
		troubles = []string{"shutting down"}
	case starting != "":
		troubles = append([]string{starting}, troubles...)
	case len(troubles) == 0 && age > lookEvery+2*lookTime:
		troubles = []string{fmt.Sprintf("nobody has looked at database and broker for %v", age.Round(time.Second))}
	}
	if len(troubles) > 0 {
		respond(w, http.StatusServiceUnavailable, "not ready\n"+strings.Join(troubles, "\n"))
		return
	}
	respond(w, http.StatusOK, "ready")
}

func respond(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // whoever asked is gone
}

// drain says from now on that the process shuts down.
func (e *endpoints) drain() {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.draining = true
}

// close answers no more.
func (e *endpoints) close() {
	if e == nil {
		return
	}
	e.end()
	_ = e.server.Close()
	e.looking.Wait()
	for _, end := range e.closing {
		_ = end() // nothing is flushed: it is asked, and pushes nothing
	}
}
