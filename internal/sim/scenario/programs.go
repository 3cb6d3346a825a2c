package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// order is a process of the order service: it records and publishes.
func (r *run) order(p process, w world.World) {
	client, store := r.client(p, w, "order", "order")
	w.Go("run", func(world.World) { _ = client.Run(p.ctx) })
	for r.broker.Subscribers(orderPaid.Topic()) < 2 || r.broker.Subscribers(orderViewed.Topic()) < 2 {
		_ = w.Sleep(context.Background(), time.Second) // what is recorded before anybody subscribes is nobody's
	}
	_ = w.Sleep(context.Background(), 10*time.Second) // more than clocks differ
	done := r.databases["order"].Business("progress", p.name)
	n, _ := done.(int)
	for ; n < r.c.Orders && p.ctx.Err() == nil; n++ {
		for p.ctx.Err() == nil && !r.placeOrder(w, client, store, p.name, n) {
			_ = w.Sleep(context.Background(), time.Second)
		}
		_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*r.c.Weather/time.Duration(r.c.Orders))))
	}
	r.mu.Lock()
	r.orders[p.name] = n == r.c.Orders // also when it was so before it was restarted
	r.mu.Unlock()
	_ = w.Join(context.Background())
}

var errChanged = errors.New("the customer changed his mind")

// placeOrder is a transaction of the application; it reports whether order n is over.
func (r *run) placeOrder(w world.World, client *pabal.Client[*sim.Tx], store *sim.Store, name string, n int) bool {
	ctx, cancel := w.Deadline(context.Background(), 20*time.Second)
	defer cancel()
	tx, err := store.Begin(ctx)
	if err != nil {
		return false
	}
	if done, err := tx.Get(ctx, "progress", name); err != nil || done != nil && done.(int) > n {
		tx.Rollback(ctx)
		return err == nil // an answer of COMMIT was lost: it is done
	}
	err = r.orderStatements(ctx, w, client, tx, name, n)
	if errors.Is(err, errChanged) {
		tx.Rollback(ctx)
		return w.Rand()%2 == 0
	}
	if err != nil && w.Rand()%4 != 0 { // one in four programs ignores errors and commits
		tx.Rollback(ctx)
		return false
	}
	return tx.Commit(ctx) == nil
}

func (r *run) orderStatements(
	ctx context.Context, w world.World, client *pabal.Client[*sim.Tx], tx *sim.Tx, name string, n int,
) error {
	key := func() string { return fmt.Sprintf("A%d", w.Rand()%uint64(r.c.Keys)) }
	if err := tx.Put(ctx, "progress", name, n+1); err != nil {
		return err
	}
	events := []pabal.Event{orderPaid.New(paid{No: key(), Amount: n}), orderViewed.New(paid{No: key()})}
	for range w.Rand() % 3 {
		events = append(events, orderPaid.New(paid{No: key(), Amount: n}))
	}
	if err := client.Record(ctx, tx, events...); err != nil {
		return err
	}
	switch w.Rand() % 12 {
	case 0: // a part of it is taken back
		savepoint := tx.Savepoint()
		if err := client.Record(ctx, tx, orderPaid.New(paid{No: key(), Amount: -1})); err != nil {
			return err
		}
		tx.RollbackTo(savepoint)
	case 1: // slow, once in a while longer than the lease
		_ = w.Sleep(ctx, time.Duration(w.Rand()%uint64(14*time.Second)))
	case 2:
		return errChanged
	}
	return nil
}

// relay has no application in it.
func (r *run) relay(p process, w world.World) {
	client, _ := r.client(p, w, "order", "order")
	_ = client.Run(p.ctx)
}

// consumer is a process of a service that handles events.
func (r *run) consumer(name string) program {
	return func(p process, w world.World) {
		client, _ := r.client(p, w, name, name)
		consumer := client.Consumer(name, &pabal.ConsumerOptions{Concurrency: 3, Tries: 100, Timeout: 20 * time.Second})
		pabal.Handle(consumer, orderPaid, func(ctx context.Context, tx *sim.Tx, e pabal.Received[paid]) error {
			return r.handle(ctx, p, w, tx, name, e)
		})
		pabal.HandleBatch(consumer, orderViewed, func(ctx context.Context, tx *sim.Tx, es []pabal.Received[paid]) error {
			for _, e := range es {
				if err := r.handle(ctx, p, w, tx, name, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err := client.Run(p.ctx); err != nil && p.ctx.Err() == nil {
			_ = r.fail("consumer ended: %w", err)
		}
	}
}

// handle counts the effect in the consumer's database and checks order.
func (r *run) handle(
	ctx context.Context, p process, w world.World, tx *sim.Tx, name string, e pabal.Received[paid],
) error {
	if err := r.misbehave(ctx, p, w); err != nil {
		return err
	}
	effect := e.ID.String()
	if v, err := tx.Get(ctx, "effect", effect); err != nil {
		return err
	} else if v != nil {
		return r.fail("P4 one effect: %s handles %s again", name, e.ID)
	}
	if err := tx.Put(ctx, "effect", effect, 1); err != nil {
		return err
	}
	if e.Key == "" {
		return nil
	}
	last, err := tx.Get(ctx, "seen", e.Key)
	if err != nil {
		return err
	}
	if before, _ := last.(int64); before >= e.Position {
		return r.fail("P5 order: %s handles position %d of %s after %d", name, e.Position, e.Key, before)
	}
	return tx.Put(ctx, "seen", e.Key, e.Position)
}

// misbehave is what handlers do wrong.
func (r *run) misbehave(ctx context.Context, p process, w world.World) error {
	if r.calm.Load() {
		return nil
	}
	switch w.Rand() % 100 {
	case 0, 1, 2:
		return errors.New("handler is not in the mood")
	case 3:
		panic("handler panics")
	case 4:
		_ = w.Sleep(ctx, time.Duration(w.Rand()%uint64(30*time.Second)))
	case 5:
		if w.Rand()%4 == 0 {
			p.crash()
		}
	case 6:
		_ = w.Sleep(context.Background(), 40*time.Second) // ignores its context
	}
	return nil
}
