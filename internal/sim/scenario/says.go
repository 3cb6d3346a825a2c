package scenario

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
)

// What processes say is looked at as well: some lines of the log and some counts are promises (P6).

// counts is an Observer that adds up what it is told of: "confirm ghost".
type counts struct{ n map[string]int }

func (c *counts) Start(ctx context.Context, s pabal.Step) (context.Context, func(error)) {
	if s.Traceparents != nil {
		c.n["traced"] += len(s.Traceparents())
	}
	return ctx, func(error) {}
}

func (c *counts) Count(n pabal.Count) { c.n[n.Step+" "+n.Result] += n.N }

// listener is where the log of a process goes, and, where there is one, to the trace.
type listener struct {
	r     *run
	trace slog.Handler
	stray *time.Duration // when strays were last told of; negative: never
}

func (r *run) logger(p *sim.Process) *slog.Logger {
	never := -time.Minute
	l := listener{r: r, stray: &never}
	if r.c.Trace != nil {
		l.trace = slog.NewTextHandler(traceWriter{r.s, p.Name}, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	return slog.New(l)
}

// Enabled implements slog.Handler.
func (l listener) Enabled(_ context.Context, level slog.Level) bool {
	return l.trace != nil || level >= slog.LevelWarn
}

// WithAttrs implements slog.Handler.
func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	if l.trace != nil {
		l.trace = l.trace.WithAttrs(attrs)
	}
	return l
}

// WithGroup implements slog.Handler.
func (l listener) WithGroup(string) slog.Handler { return l }

// Handle implements slog.Handler.
func (l listener) Handle(ctx context.Context, record slog.Record) error {
	switch now := l.r.s.Elapsed(); record.Message {
	case "record queue holds messages that are not ours":
		if now-*l.stray < time.Minute {
			_ = l.r.fail("strays: told of again after %v", now-*l.stray)
		}
		*l.stray = now
	case "ghost event":
		record.Attrs(func(a slog.Attr) bool {
			if a.Key == "event_id" {
				l.r.alarmed(a.Value.Any().(uuid.UUID), now)
			}
			return true
		})
	}
	record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && record.Level >= slog.LevelWarn && errors.Is(err, context.Canceled) {
			_ = l.r.fail("end: what it cuts off is no trouble, and a process said: %s: %w", record.Message, err)
		}
		return true
	})
	if l.trace == nil {
		return nil
	}
	return l.trace.Handle(ctx, record)
}

type traceWriter struct {
	s    *sim.Sim
	name string
}

func (t traceWriter) Write(b []byte) (int, error) {
	if i := len("time=2026-01-01T00:00:00.000Z "); len(b) > i+1 {
		t.s.Note(t.name, "log "+string(b[i:len(b)-1]))
	}
	return len(b), nil
}

// checkHealth is P6 for a store that owes nothing: no trouble is shown but what is parked.
func (r *run) checkHealth() {
	for _, name := range r.services() {
		operator := r.operator[name]
		if operator == nil {
			continue
		}
		s, err := operator.Status(context.Background())
		if err != nil {
			_ = r.fail("P6 no silence: no status of %s: %w", name, err)
			return
		}
		parked := len(s.Unconfirmed) + len(s.Inbox)
		if len(s.Troubles) != parked || s.Healthy != (parked == 0) {
			_ = r.fail("P6 no silence: %s owes nothing, and its status shows %+v", name, s.Troubles)
		}
	}
}
