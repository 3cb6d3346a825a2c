package scenario

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What is tried when nothing goes wrong any more: the end of all processes and a later beginning, promptness, databases that are
// away, and, when it is much later, forgetting.

const (
	retention      = 30 * 24 * time.Hour // Options' defaults
	inboxRetention = 45 * 24 * time.Hour

	lastingKey = "D" // of an event that stays parked
)

// later switches everything off and on again.
func (r *run) later(w world.World) {
	if r.c.Seed/32%2 == 0 {
		r.s.Outage("broker", 40*time.Second)
		r.want("order-1", 3)
		_ = w.Sleep(context.Background(), 25*time.Second)
	}
	r.want("order-1", 9)
	_ = w.Sleep(context.Background(), time.Duration(w.Rand()%uint64(3*time.Second)))
	r.shutDown(w)
	r.begin(w)
	r.shutDown(w)
	_ = w.Sleep(context.Background(), r.c.Later)
	r.begin(w)
	r.sunny(w)
	r.keepMessages(w)
	if r.c.Later > 24*time.Hour {
		_ = w.Sleep(context.Background(), 61*time.Minute)
		r.checkForgetting()
	}
	if r.c.Later > inboxRetention { // what waits is not forgotten, nor where its key stands
		r.calmly.oneKey = lastingKey
		r.record(w)
		r.calmly.oneKey = ""
		_ = w.Sleep(context.Background(), 10*time.Second)
	}
	if missing := r.unparked(); missing != "" {
		_ = r.fail("P7 no theft: what is %s is not parked any more", missing)
	}
	r.mend()
	r.settle(w)
	if r.c.Later > retention && r.c.Later < inboxRetention { // by mistake it was set forward all the time
		r.s.TurnClock("database-order", -r.c.Later-2*time.Hour)
		r.calmly.oneKey = lastingKey // of which there was nothing since
		r.record(w)
		r.calmly.oneKey = ""
		r.sunny(w)
	}
	r.repeat(w)
}

// begin starts all processes again.
func (r *run) begin(w world.World) {
	r.off = false
	for _, name := range r.processes {
		r.start(name, r.program(name))
	}
	_ = w.Sleep(context.Background(), 30*time.Second)
	r.settle(w)
}

// shutDown asks all processes to end and looks at what the order service leaves behind.
func (r *run) shutDown(w world.World) {
	r.off = true
	begin := r.s.Elapsed()
	for _, name := range r.processes {
		w.Go("restart", func(w world.World) { r.restart(w, r.running[name]) })
	}
	_ = w.Join(context.Background())
	now := r.databases["order"].Clock()
	for _, e := range r.databases["order"].Events() {
		p := r.databases["order"].PendingOf(e.ID)
		if p == nil || p.Parked() || r.watch.born[e.ID] > begin {
			continue
		}
		if p.AcceptedAt.IsZero() && p.DueAt.After(now) && !r.watch.verdicts[claimed{p.ID, p.Claims}] {
			_ = r.fail("shutdown: the lease of %s is not given back: %+v", e.ID, *p)
		}
		if p.AcceptedAt.IsZero() && r.watch.taken[claimed{p.ID, p.Claims}] {
			_ = r.fail("shutdown: it is not written that %s was accepted: %+v", e.ID, *p)
		}
	}
}

// sunny is when nothing goes wrong: what is recorded is published at once, and only once.
func (r *run) sunny(w world.World) {
	r.watch.prompt = r.s.Elapsed()
	r.want("order-1", 8)
	for range 150 {
		if _ = w.Sleep(context.Background(), time.Second); r.settled() {
			r.watch.prompt = 0
			return
		}
	}
	_ = r.fail("promptness: after 150 s without any fault it is owed: %s", r.owed())
}

// keepMessages has databases away for longer than the broker leaves messages to whoever received them.
func (r *run) keepMessages(w world.World) {
	r.watch.keeping = true
	r.s.Outage("database-settlement", 70*time.Second)
	r.s.Outage("database-order", 70*time.Second)
	for _, body := range r.bodies[len(r.bodies)-3:] {
		r.broker.Put("settlement", body)
		r.broker.Put("event-record-order", body)
	}
	_ = w.Sleep(context.Background(), 100*time.Second)
	r.settle(w)
	r.watch.keeping = false
}

// checkForgetting looks, an hour later, at what is forgotten and what is not.
func (r *run) checkForgetting() {
	order := r.databases["order"]
	now := order.Clock()
	for id := range r.watch.born { // the order does not matter
		if order.PendingOf(id) != nil && !order.Has(id) {
			_ = r.fail("P7 no theft: %s is not confirmed, and forgotten", id)
		}
	}
	there := 0
	for _, e := range order.Events() {
		if age := now.Sub(e.RecordedAt); age > retention+time.Hour && order.PendingOf(e.ID) == nil {
			_ = r.fail("forgetting: %s is %v old and still there", e.ID, age)
		}
		there++
	}
	if r.c.Later < retention && there != len(r.watch.born) {
		_ = r.fail("P7 no theft: of %d events younger than the retention %d are there", len(r.watch.born), there)
	}
	for id, at := range r.watch.born {
		age := r.s.Elapsed() - at
		if age < inboxRetention+2*time.Hour {
			continue
		}
		for _, consumer := range consumersOf {
			row := r.databases[consumer].RowOf(consumer, driver.CursorKey{Source: "order"}, id)
			if row != nil && row.State == driver.Done {
				_ = r.fail("forgetting: %s knows %s, which is %v old", consumer, id, age)
			}
		}
	}
}

// repeat has the first messages delivered once more, at any age: whoever has forgotten them does not handle them.
func (r *run) repeat(w world.World) {
	for _, body := range r.bodies[:3] {
		r.broker.Put("settlement", body)
	}
	_ = w.Sleep(context.Background(), 20*time.Second)
	if owed := r.broker.Owed(); owed != "" {
		_ = r.fail("inbox: %s", owed)
	}
	parked := 0
	for _, row := range r.databases["settlement"].Kept("settlement") {
		if row.Reason == "too old to tell" {
			parked++
		}
	}
	if want := r.c.Later > inboxRetention; want != (parked > 0) {
		_ = r.fail("inbox: of old messages, %v later, %d are too old to tell", r.c.Later, parked)
	}
}

// promptly checks a message of an event that was recorded while nothing goes wrong.
func (v *watch) promptly(id uuid.UUID, dedup string) {
	born, since := v.born[id], v.prompt
	if since == 0 || born < since || redelivered(dedup) {
		return
	}
	if v.r.watch.copies[id]++; v.copies[id] > 1 {
		_ = v.r.fail("promptness: %s is published again, and nothing goes wrong", id)
	}
	if late := v.r.s.Elapsed() - born; late > time.Second {
		_ = v.r.fail("promptness: %s is published %v after COMMIT", id, late)
	}
}
