package scenario

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

const handlerTimeout = 20 * time.Second

// relay has no application in it.
func (r *run) relay(p process, w world.World) {
	client, _ := r.client(p, w, "order", "order")
	if r.c.Operator {
		w.Go("operator", func(w world.World) { r.operate(p, w, client) })
	}
	r.mu.Lock()
	r.operator["order"] = client.Operator
	r.mu.Unlock()
	_ = p.run(client)
}

// consumer is a process of a service that handles events.
func (r *run) consumer(name string) program {
	return func(p process, w world.World) {
		client, _ := r.client(p, w, name, name)
		o := pabal.ConsumerOptions{Concurrency: int(1 + r.c.Seed/5%4), Tries: 100, Timeout: handlerTimeout}
		switch {
		case r.c.Batches && name == "notification": // one transaction for all keys
			o.Concurrency = 1
		case r.c.Batches, r.c.Seed/3%4 == 1: // several calls in one
			o.Batch = int(1 + r.c.Seed/7%4)
		}
		if r.c.Plagues || r.c.Later > inboxRetention {
			o.Tries, o.PassParked = 9, r.passes(name)
		}
		consumer := client.Consumer(name, &o)
		one := func(ctx context.Context, tx *sim.Tx, e pabal.Received[paid]) error {
			return r.handle(ctx, p, w, tx, name, e)
		}
		single := func(ctx context.Context, tx *sim.Tx, e pabal.Received[paid]) error {
			if err := one(ctx, tx, e); err != nil {
				return err
			}
			return r.endByHimself(ctx, w, tx)
		}
		batch := func(ctx context.Context, tx *sim.Tx, es []pabal.Received[paid]) error {
			for _, e := range es {
				if err := one(ctx, tx, e); err != nil {
					return err
				}
			}
			return r.endByHimself(ctx, w, tx)
		}
		if r.c.Batches {
			pabal.HandleBatch(consumer, orderPaid, batch)
		} else {
			pabal.Handle(consumer, orderPaid, single)
		}
		pabal.HandleBatch(consumer, orderViewed, batch)
		if r.c.Odd || r.c.Foreign {
			r.handleOdd(consumer, single)
		}
		r.mu.Lock()
		r.operator[name] = client.Operator
		r.mu.Unlock()
		switch err := p.run(client); {
		case err != nil && p.ctx.Err() == nil:
			_ = r.fail("consumer ended: %w", err)
		case err == nil && p.in != nil && p.in.hung:
			_ = r.fail("shutdown: Run of %s does not tell of a handler that it has given up", p.name)
		}
	}
}

// passes reports whether a consumer goes on with a key although one of its events is parked.
func (r *run) passes(consumer string) bool { return consumer == "notification" && r.c.Seed/8%2 == 0 }

// effectOf names the effect of an event, or of its being handled again for a redelivery.
func effectOf(source string, id, job uuid.UUID) string {
	switch {
	case source != "order":
		return source + "/" + id.String()
	case job == uuid.Nil:
		return id.String()
	}
	return id.String() + "/" + job.String()
}

// handle counts the effect in the consumer's database and checks order.
func (r *run) handle(
	ctx context.Context, p process, w world.World, tx *sim.Tx, name string, e pabal.Received[paid],
) error {
	if err := r.suffer(ctx, p, w, name, e); err != nil {
		return err
	}
	if err := r.misbehave(ctx, p, w, tx); err != nil {
		return err
	}
	effect := effectOf(e.Source, e.ID, e.Job)
	if v, err := tx.Get(ctx, "effect", effect); err != nil {
		return err
	} else if v != nil {
		return r.fail("P4 one effect: %s handles %s again", name, effect)
	}
	if err := tx.Put(ctx, "effect", effect, 1); err != nil {
		return err
	}
	if e.Data.Plague == undone && r.sick() {
		tx.Rollback(ctx)
		return nil
	}
	if e.Key == "" || r.passes(name) {
		return nil
	}
	key := e.Key
	if e.Job != uuid.Nil {
		key += "/" + e.Job.String()
	}
	last, err := tx.Get(ctx, "seen", key)
	if err != nil {
		return err
	}
	if before, _ := last.(int64); before >= e.Position {
		if r.losses.forced[name+" "+e.ID.String()] {
			return nil
		}
		return r.fail("P5 order: %s handles position %d of %s after %d", name, e.Position, key, before)
	}
	return tx.Put(ctx, "seen", key, e.Position)
}

// endByHimself is what some handlers do with a transaction that is not theirs, once they have handled all.
func (r *run) endByHimself(ctx context.Context, w world.World, tx *sim.Tx) error {
	if r.calm.Load() {
		return nil
	}
	switch w.Rand() % 200 {
	case 0, 1:
		return tx.Commit(ctx)
	case 2:
		_ = tx.Commit(ctx)
		return errors.New("handler has committed and fails")
	case 3, 4:
		tx.Rollback(ctx)
	}
	return nil
}

// misbehave is what handlers do wrong.
func (r *run) misbehave(ctx context.Context, p process, w world.World, tx *sim.Tx) error {
	if r.calm.Load() {
		return nil
	}
	mood := w.Rand() % 100
	if mood < 7 && r.s != nil && !r.s.Befalls() {
		return nil
	}
	switch mood {
	case 0, 1, 2:
		return errors.New("handler is not in the mood")
	case 3:
		panic("handler panics")
	case 4:
		d := time.Duration(w.Rand() % uint64(30*time.Second))
		if w.Sleep(ctx, d) == nil && d > handlerTimeout && r.s != nil { // of two timers of the real world, the later may be seen first
			return r.fail("timeout: a handler of %s has taken %v", p.name, d)
		}
	case 5:
		if w.Rand()%4 == 0 {
			p.crash()
		}
	case 6:
		return r.hang(w, p, tx)
	}
	return nil
}

// hang is a handler that ignores its context. It is given up, and loses its transaction.
func (r *run) hang(w world.World, p process, tx *sim.Tx) error {
	_ = w.Sleep(context.Background(), 40*time.Second)
	if p.in == nil || p.in.p.Running() < 40*time.Second { // perhaps nobody had the time to give it up
		return nil
	}
	p.in.hung = true
	if !tx.Over() {
		return r.fail("P4 one effect: %s has not given up a handler that ignores its context for 20 s", p.name)
	}
	return nil
}
