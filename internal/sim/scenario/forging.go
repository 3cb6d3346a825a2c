package scenario

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Messages that no Pabal sent: events that do not exist, or take another one's place, from elsewhere, or no events at all.

const recordQueue = "event-record-order"

// forgery is an event that nobody recorded.
type forgery struct {
	id       uuid.UUID
	typ, key string
	position int64 // 0: none
	at       time.Time
	prev     driver.Ref
}

func (f *forgery) body() []byte {
	const micro = "2006-01-02T15:04:05.000000Z"
	var b strings.Builder
	fmt.Fprintf(&b, `{"specversion":"1.0","id":"%s","source":"order","type":"%s","topic":"%s","time":"%s","sentat":"%s"`, f.id, f.typ,
		orderPaid.Topic(), f.at.Format(micro), f.at.Format(micro))
	if f.position > 0 {
		fmt.Fprintf(&b, `,"subject":"%s","position":"%d"`, f.key, f.position)
	}
	if !f.prev.IsZero() {
		fmt.Fprintf(&b, `,"previd":"%s","prevposition":"%d","prevtime":"%s"`, f.prev.ID, f.prev.Position, f.prev.RecordedAt.Format(micro))
	}
	fmt.Fprintf(&b, `,"datacontenttype":"application/json","data":{"no":"%s","amount":1}}`, f.key)
	return []byte(b.String())
}

func (f *forgery) ref() driver.Ref {
	return driver.Ref{ID: f.id, Position: f.position, RecordedAt: f.at}
}

// chain is the next event of the same key.
func (f *forgery) next(w world.World) forgery {
	return forgery{id: idByChance(w), typ: f.typ, key: f.key, position: f.position + 1, at: f.at, prev: f.ref()}
}

func idByChance(w world.World) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], w.Rand())
	binary.BigEndian.PutUint64(id[8:], w.Rand())
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

// young is an event without key that was recorded just now.
func (r *run) young(w world.World) forgery {
	return forgery{id: idByChance(w), typ: orderViewed.Name(), at: r.databases["order"].Clock()}
}

// forgeAny puts something into a queue in bad weather.
func (r *run) forgeAny(w world.World) {
	switch w.Rand() % 4 {
	case 0:
		r.broker.Put(recordQueue, []byte("what is this?"))
	case 1:
		r.broker.Put(recordQueue, fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"elsewhere","type":"x"}`, w.Rand()))
	case 2:
		f := r.young(w)
		r.calmly.ghosts[f.id] = r.s.Elapsed()
		r.broker.Put(recordQueue, f.body())
	case 3: // older than retention: forgotten, most likely
		f := r.young(w)
		f.at = f.at.Add(-retention - 24*time.Hour)
		r.broker.Put(recordQueue, f.body())
	}
}

// alarmed checks an alarm: the event came back, and was absent twice, 30 s apart.
func (r *run) alarmed(id uuid.UUID, now time.Duration) {
	put, forged := r.calmly.ghosts[id]
	switch {
	case !forged:
		_ = r.fail("ghosts: alarm of %s, which is none", id)
	case now-put < 30*time.Second:
		_ = r.fail("ghosts: alarm of %s after %v", id, now-put)
	}
	r.calmly.alarms[id]++
}

// forge looks at what becomes of forgeries when nothing goes wrong.
func (r *run) forge(w world.World) {
	ghosts := r.forgeConfirmations(w)
	r.forgeDeliveries(w)
	r.forgeHeld(w)
	r.forgeOrders(w)
	r.checkAlarms(ghosts)
	switch r.c.Seed / 8 % 16 {
	case 0:
		r.overflow(w)
	case 1, 5, 9, 13:
		r.manyHeld(w, 30)
	case 3, 11:
		r.manyHeld(w, 250)
	}
}

// forgeConfirmations puts strays, ghosts and an event that is long forgotten into the record queue.
func (r *run) forgeConfirmations(w world.World) (ghosts []uuid.UUID) {
	strays := r.watch.counts.n["confirm stray"]
	r.broker.Put(recordQueue, []byte("what is this?"))
	r.broker.Put(recordQueue, []byte(`{"specversion":"1.0","id":"7","source":"order","type":"x"}`))
	for range 2 {
		f := r.young(w)
		ghosts = append(ghosts, f.id)
		r.calmly.ghosts[f.id] = r.s.Elapsed()
		r.broker.Put(recordQueue, f.body())
	}
	f := r.young(w)
	f.at = f.at.Add(-retention - 24*time.Hour)
	r.broker.Put(recordQueue, f.body())
	_ = w.Sleep(context.Background(), 10*time.Second)
	if n := r.watch.counts.n["confirm stray"] - strays; n != 2 {
		_ = r.fail("strays: 2 are counted as %d", n)
	}
	return ghosts
}

// checkAlarms is asked when the confirmer has had time for a second look.
func (r *run) checkAlarms(ghosts []uuid.UUID) {
	sum := 0
	for _, n := range r.calmly.alarms { // the order does not matter
		sum += n
	}
	if n := r.watch.counts.n["confirm ghost"]; n != sum {
		_ = r.fail("ghosts: %d are counted, of %d there was an alarm", n, sum)
	}
	for _, id := range ghosts {
		if r.calmly.alarms[id] != 1 {
			_ = r.fail("ghosts: %d alarms of %s", r.calmly.alarms[id], id)
		}
	}
}

// forgeDeliveries puts into a consumer's queue what takes another event's place, what nobody can read, and one event from
// elsewhere, twice.
func (r *run) forgeDeliveries(w world.World) {
	settlement := r.databases["settlement"]
	effects := settlement.Count("effect")
	fork := idByChance(w)
	r.broker.Put("settlement", r.forkOf(fork))
	r.broker.Put("settlement", []byte("what is this?"))
	for _, version := range []string{"1", "2"} {
		r.broker.Put("settlement", fmt.Appendf(nil, `{"specversion":"1.0","id":"7","source":"elsewhere","type":"%s","dataversion":"%s",
			"datacontenttype":"application/json","data":{"no":""}}`, orderViewed.Name(), version))
	}
	_ = w.Sleep(context.Background(), 10*time.Second)
	reasons := map[string]int{}
	for _, row := range settlement.Kept("settlement") {
		reasons[row.Reason]++
		if row.Reason == "unreadable" || row.ID == fork {
			r.calmly.forged["settlement "+row.ID.String()] = row.Reason
		}
	}
	if reasons["fork"] != 1 || reasons["unreadable"] != 1 {
		_ = r.fail("inbox: of a fork and something unreadable is parked: %v", reasons)
	}
	if n := settlement.Count("effect") - effects; n != 1 {
		_ = r.fail("P4 one effect: an event from elsewhere has %d", n)
	}
}

// forkOf is the last message of a key that a consumer has handled, under another id.
func (r *run) forkOf(id uuid.UUID) []byte {
	for i := len(r.bodies) - 1; i >= 0; i-- {
		body := r.bodies[i]
		was, err := uuid.Parse(field(body, "id"))
		row := r.databases["settlement"].RowOf("settlement", driver.CursorKey{Source: "order"}, was)
		if err == nil && field(body, "position") != "" && row != nil && row.State == driver.Done {
			return bytes.Replace(body, []byte(was.String()), []byte(id.String()), 1)
		}
	}
	_ = r.fail("forging: no message of a key")
	return nil
}

// lost is an event of a key whose predecessor is missing.
func (r *run) lost(w world.World, typ, key string) forgery {
	now := r.databases["order"].Clock()
	before := forgery{id: idByChance(w), typ: typ, key: key, position: 1_000_000, at: now}
	return before.next(w)
}

// missing is what an operator reads of an event whose predecessor is missing.
func missing(f *forgery) string {
	return fmt.Sprintf("%s, key %q) is held: its predecessor %s is missing", f.typ, f.key, f.prev.ID)
}

// troubles is what the status of a service says.
func (r *run) troubles(service string) string {
	s, err := r.operator[service].Status(context.Background())
	if err != nil {
		_ = r.fail("P6 no silence: no status: %w", err)
		return ""
	}
	var b strings.Builder
	for _, t := range s.Troubles {
		b.WriteString(t.What + "\n  " + t.Command + "\n")
	}
	return b.String()
}

// forgeHeld has events held whose predecessor is missing: after 30 s the status says so, and only of the first.
func (r *run) forgeHeld(w world.World) {
	first := r.lost(w, orderPaid.Name(), "Z9")
	second := first.next(w)
	r.broker.Put("settlement", second.body())
	r.broker.Put("settlement", first.body())
	_ = w.Sleep(context.Background(), 20*time.Second)
	if said := r.troubles("settlement"); strings.Contains(said, first.id.String()) {
		_ = r.fail("P6 no silence: what is held for 20 s is shown: %s", said)
	}
	_ = w.Sleep(context.Background(), 60*time.Second)
	said := r.troubles("settlement")
	if !strings.Contains(said, missing(&first)) || strings.Contains(said, "event "+second.id.String()) {
		_ = r.fail("P6 no silence: two events are held, of which the first waits for %s: %s", first.prev.ID, said)
	}
	if !strings.Contains(said, "events redeliver --id "+first.prev.ID.String()+" --to settlement") {
		_ = r.fail("P6 no silence: no command mends it: %s", said)
	}
	before := forgery{id: first.prev.ID, typ: first.typ, key: first.key, position: first.prev.Position, at: first.at}
	r.broker.Put("settlement", before.body())
	_ = w.Sleep(context.Background(), 10*time.Second)
	for _, f := range []forgery{before, first, second} {
		if r.databases["settlement"].Business("effect", f.id.String()) == nil {
			_ = r.fail("P5 order: %s waits, and its predecessor has come", f.id)
		}
	}
}

// forgeOrders has an operator go on without a predecessor: with an event that is held, or behind it.
func (r *run) forgeOrders(w world.World) {
	for _, skip := range []bool{false, true} {
		key, order := "Z5", r.operator["settlement"].RetryReceived
		if skip {
			key, order = "Z6", r.operator["settlement"].SkipReceived
		}
		first := r.lost(w, orderPaid.Name(), key)
		second := first.next(w)
		r.broker.Put("settlement", first.body())
		r.broker.Put("settlement", second.body())
		_ = w.Sleep(context.Background(), 5*time.Second)
		if n, err := order(context.Background(), "settlement", first.id); n != 1 || err != nil {
			_ = r.fail("inbox: an order about %s: %d, %w", first.id, n, err)
		}
		_ = w.Sleep(context.Background(), 10*time.Second)
		handled := func(f *forgery) bool { return r.databases["settlement"].Business("effect", f.id.String()) != nil }
		if handled(&first) == skip || !handled(&second) {
			_ = r.fail("inbox: %s was retried or skipped (%v), and its key does not go on", first.id, skip)
		}
	}
}

// manyHeld has one event held for long, and then many: the status still tells of the one.
func (r *run) manyHeld(w world.World, n int) {
	long := r.lost(w, orderPaid.Name(), "Z8")
	r.broker.Put("settlement", long.body())
	_ = w.Sleep(context.Background(), 35*time.Second)
	for i := range n {
		f := r.lost(w, orderNoted.Name(), fmt.Sprintf("B%03d", (i*7)%n))
		r.broker.Put("settlement", f.body())
	}
	_ = w.Sleep(context.Background(), 3*time.Second)
	want := missing(&long)
	if n > 200 {
		want = fmt.Sprintf("of %d events that are held one has been for long", n+1)
	}
	if said := r.troubles("settlement"); !strings.Contains(said, want) {
		_ = r.fail("P6 no silence: among %d events that are held one has been for long: %s", n+1, said)
	}
}

// overflow has more events of a key held than are kept. When the missing one comes, all that are go on; then what was not
// kept comes again.
func (r *run) overflow(w world.World) {
	const more = 50
	first := r.lost(w, orderNoted.Name(), "Z7")
	before := forgery{id: first.prev.ID, typ: first.typ, key: first.key, position: first.prev.Position, at: first.at}
	chain := []forgery{first}
	for len(chain) < driver.CountMax+more {
		chain = append(chain, chain[len(chain)-1].next(w))
	}
	deliver := func(chain []forgery) (kept int) {
		for i := range chain {
			r.broker.Put("settlement", chain[i].body())
		}
		for calm := 0; calm < 3; calm++ {
			_ = w.Sleep(context.Background(), 5*time.Second)
			if r.broker.Owed() != "" {
				calm = 0
			}
		}
		for _, row := range r.databases["settlement"].Kept("settlement") {
			if row.Key == first.key {
				kept++
			}
		}
		return kept
	}
	if n := deliver(chain); n != driver.CountMax {
		_ = r.fail("inbox: of %d events of a key %d are kept", len(chain), n)
	}
	if said := r.troubles("settlement"); !strings.Contains(said, "key Z7 of order/"+orderPaid.Topic()+" overflows") ||
		!strings.Contains(said, "events redeliver --topic "+orderPaid.Topic()+` --key "Z7"`) {
		_ = r.fail("P6 no silence: key Z7 overflows: %.1000s", said)
	}
	dropped := slices.DeleteFunc(slices.Clone(chain), func(f forgery) bool {
		return r.databases["settlement"].RowOf("settlement", driver.CursorKey{Source: "order"}, f.id) != nil
	})
	behind := 0 // what was kept, and follows one that was not: the broker's order is no order
	if len(dropped) > 0 {
		behind = len(chain) - slices.IndexFunc(chain, func(f forgery) bool { return f.id == dropped[0].id }) - len(dropped)
	}
	if n := deliver([]forgery{before}); n != behind {
		_ = r.fail("inbox: %d events of a key still wait, not %d, and their predecessor has come", n, behind)
	}
	if n := deliver(dropped); n != 0 || len(dropped) != more || strings.Contains(r.troubles("settlement"), "overflows") {
		_ = r.fail("inbox: %d that were not kept came again, and %d events of their key still wait", len(dropped), n)
	}
}
