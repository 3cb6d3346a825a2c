package scenario

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// order is a process of the order service: it records and publishes.
func (r *run) order(p process, w world.World) {
	client, store := r.client(p, w, "order", "order")
	n, _ := r.databases["order"].Business("progress", p.name).(int)
	early := w.Rand()%4 == 0 && n < r.c.Orders // the first one before it runs
	begin := func() { w.Go("run", func(world.World) { _ = p.run(client) }) }
	if !early {
		begin()
	}
	for r.broker.Subscribers(orderPaid.Topic()) < 2 || r.broker.Subscribers(orderViewed.Topic()) < 2 {
		_ = w.Sleep(context.Background(), time.Second) // what is recorded before anybody subscribes is nobody's
	}
	_ = w.Sleep(context.Background(), 10*time.Second) // more than clocks differ
	for ; r.wants(p, n); n++ {
		for p.ctx.Err() == nil && !r.placeOrder(p, w, client, store, n) {
			_ = w.Sleep(context.Background(), time.Second)
		}
		if early {
			early = false
			begin()
		}
		if !r.calm.Load() {
			_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(2*r.c.Weather/time.Duration(r.c.Orders))))
		}
	}
	_ = w.Join(context.Background())
}

// wants waits until a process of the order service has an n-th order to place; false once none will come.
func (r *run) wants(p process, n int) bool {
	for p.ctx.Err() == nil {
		r.mu.Lock()
		more := n < r.target[p.name]
		r.orders[p.name] = !more
		r.mu.Unlock()
		if more || r.s == nil {
			return more
		}
		r.bells[p.name].Wait(p.ctx, -1)
	}
	return false
}

// want asks a process of the order service for more orders.
func (r *run) want(name string, n int) {
	r.mu.Lock()
	r.target[name] += n
	r.orders[name] = false
	r.mu.Unlock()
	r.bells[name].Set()
}

var errChanged = errors.New("the customer changed his mind")

// placeOrder is a transaction of the application; it reports whether order n is over.
func (r *run) placeOrder(p process, w world.World, client *pabal.Client[*sim.Tx], store *sim.Store, n int) bool {
	name := p.name
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
	if r.calmly.late { // a long transaction, and the end of its process as it commits
		_ = w.Sleep(context.Background(), 100*time.Second)
		_ = tx.Commit(context.Background())
		p.crash()
	}
	return tx.Commit(ctx) == nil
}

func (r *run) orderStatements(
	ctx context.Context, w world.World, client *pabal.Client[*sim.Tx], tx *sim.Tx, name string, n int,
) error {
	key := func() string { return cmp.Or(r.calmly.oneKey, fmt.Sprintf("A%d", w.Rand()%uint64(r.c.Keys))) }
	if err := tx.Put(ctx, "progress", name, n+1); err != nil {
		return err
	}
	plague := r.plagueOf(name, n)
	no := key()
	if plague != "" { // one to a key, or they would wait for each other
		no = fmt.Sprintf("A%d", n/2%r.c.Keys)
	}
	if r.c.Later > retention && (n == 0 || plague == doomed) && name == "order-1" {
		no = lastingKey
	}
	events := []pabal.Event{orderPaid.New(paid{No: no, Amount: n, Plague: plague}), orderViewed.New(paid{No: key()})}
	if plague == poison || plague == deadly { // what may not die with it
		events = append([]pabal.Event{orderPaid.New(paid{No: no, Amount: n})}, events...)
		events = append(events, orderPaid.New(paid{No: key(), Amount: n, Plague: slow}))
	}
	if plague == refused { // nobody waits for it
		events[0], events[1] = orderPaid.New(paid{No: no, Amount: n}), orderViewed.New(paid{No: no, Plague: plague})
	}
	ctx = r.traced(ctx, w)
	if r.calmly.oneKey == "" {
		events = append(events, r.more(w, key, n)...)
		events = append(events, r.odd(ctx, w, key)...)
	}
	if wrong := wrongEvent(w); r.watch != nil && wrong != nil {
		if client.Record(ctx, tx, append(events[:1:1], *wrong)...) == nil {
			return r.fail("record: an event that no broker takes is recorded, or left out")
		}
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

// more is what an order consists of besides.
func (r *run) more(w world.World, key func() string, n int) (events []pabal.Event) {
	if w.Rand()%8 == 0 {
		events = append(events, orderNoted.New(paid{No: key()}))
	}
	for range w.Rand() % 3 {
		events = append(events, orderPaid.New(paid{No: key(), Amount: n}))
	}
	return events
}

var large = strings.Repeat("x", 1<<20)

// wrongEvent is one that Record refuses, now and then.
func wrongEvent(w world.World) *pabal.Event {
	var e pabal.Event
	switch w.Rand() % 150 {
	case 0:
		e = orderViewed.New(paid{No: large})
	case 1, 2, 3, 4:
		e = wrongEvents[w.Rand()%uint64(len(wrongEvents))]
	default:
		return nil
	}
	return &e
}

// wrongEvents are of all kinds but the large.
var wrongEvents = func() []pabal.Event {
	bare := json.RawMessage(`{"n":1}`)
	many := orderViewed.New(paid{})
	for n := range 21 {
		many = many.With(fmt.Sprint(n), "")
	}
	keyed := pabal.Key(func(p paid) string { return p.No })
	return []pabal.Event{
		{}, many, pabal.Type[paid]{}.New(paid{}),
		orderPaid.New(paid{No: large[:2000]}), orderPaid.New(paid{}), orderPaid.New(paid{No: "\xff"}),
		orderViewed.New(paid{}).With("Upper", ""), orderViewed.New(paid{}).With(large[:65], ""),
		orderViewed.New(paid{}).With("long", large[:1025]), orderViewed.New(paid{}).With("wrong", "\xff"),
		orderPrinted.New(bare[:3]), orderPosted.New(bare).With("bare", ""), orderPosted.New(json.RawMessage("\"\ufffe\"")),
		orderPosted.New(json.RawMessage("\"\xff\"")), pabal.Define[[]byte]("bytes").Bare().New(nil),
		pabal.Define[paid]("no name").New(paid{}), pabal.Define[paid]("name").On("no name").New(paid{}),
		pabal.Define[chan int]("channel").New(nil), pabal.Define("keyed", keyed).Bare().New(paid{No: "A1"}),
		pabal.Define[paid]("version").Version("2").Bare().New(paid{}),
	}
}()
