package scenario

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

const jobRate = 10 // events a second

// operate is an operator at work in bad weather.
func (r *run) operate(p process, w world.World, client *pabal.Client[*sim.Tx]) {
	ctx := context.Background()
	for !r.calm.Load() && w.Sleep(p.ctx, time.Duration(w.Rand()%uint64(80*time.Second))) == nil && !r.calm.Load() {
		switch w.Rand() % 4 {
		case 0:
			if id, _ := r.pick(ctx, w, client, false); id != uuid.Nil {
				r.watch.ordered[id] = true
				if !r.isSkip(id) {
					delete(r.watch.unsent, id)
				}
				_, _ = client.Retry(ctx, id)
			}
		case 1:
			if id, isBare := r.pick(ctx, w, client, true); id != uuid.Nil {
				r.watch.ordered[id], r.watch.skipped[id] = true, true
				if isBare {
					r.watch.unsent[id] = never
				}
				_, _ = client.Skip(ctx, id)
			}
		default: // what was recorded later may not be committed yet
			job := pabal.Redelivery{
				Topic: orderPaid.Topic(), Until: r.databases["order"].Clock().Add(-time.Minute), Rate: jobRate, Again: w.Rand()%2 == 0,
			}
			job.From = job.Until.Add(-time.Duration(w.Rand() % uint64(3*time.Minute)))
			_, _ = client.Redeliver(ctx, job)
		}
	}
}

// isSkip reports whether an event is one that nobody shall handle.
func (r *run) isSkip(id uuid.UUID) bool {
	for _, e := range r.databases["order"].Events() {
		if e.ID == id {
			return e.Skipped
		}
	}
	return false
}

// pick is an event that is not confirmed, and whether it is bare: a bare one, if one is wanted and there is any.
func (r *run) pick(ctx context.Context, w world.World, client *pabal.Client[*sim.Tx], bare bool) (uuid.UUID, bool) {
	found, err := client.Events(ctx, driver.EventFilter{State: driver.Unconfirmed, Limit: 20})
	if err != nil || len(found) == 0 {
		return uuid.Nil, false
	}
	n := int(w.Rand() % uint64(len(found)))
	for i := range found {
		if bare && found[i].Event.Bare {
			n = i
		}
	}
	return found[n].Event.ID, found[n].Event.Bare
}

// mend ends what is wrong with plagues and has what is parked handled. It is called when it is calm.
func (r *run) mend() {
	ctx := context.Background()
	r.mended.Store(true)
	var ids []uuid.UUID
	for _, e := range r.databases["order"].Events() {
		if p := r.databases["order"].PendingOf(e.ID); p != nil && p.Parked() {
			ids = append(ids, e.ID)
			r.watch.ordered[e.ID] = true
			for _, consumer := range consumersOf {
				if r.c.Later > inboxRetention { // too old to tell by now
					r.watch.passed[consumer+" "+e.ID.String()] = true
				}
			}
		}
	}
	if n, err := r.operator["order"].Retry(ctx, ids...); err != nil || n != len(ids) {
		_ = r.fail("retry: %d of %d parked events are retried: %v", n, len(ids), err)
	}
	for _, consumer := range consumersOf {
		for _, row := range r.databases[consumer].Kept(consumer) {
			if row.State != driver.Parked {
				continue
			}
			order := r.operator[consumer].RetryReceived
			if r.skips(consumer) && plagueIn(row.Body) == doomed {
				order = r.operator[consumer].SkipReceived
				r.watch.passed[consumer+" "+row.ID.String()] = true
			}
			if n, err := order(ctx, consumer, row.ID); err != nil || n != 1 {
				_ = r.fail("retry: %s cannot be retried at %s: %v", row.ID, consumer, err)
			}
		}
	}
}
