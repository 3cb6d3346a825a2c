package scenario

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// A broker that answers, and does not take what it is given.

// refuse has a topic refused for a while.
func (r *run) refuse(topic string, d time.Duration) {
	r.calmly.refused[topic] = max(r.calmly.refused[topic], r.s.Elapsed()+d)
}

// refuses is the broker's mood.
func (r *run) refuses(topic string, m *driver.Message) bool {
	if topic == "" || r.s == nil {
		return false
	}
	if r.calmly.hesitate && bytes.Contains(m.Body, []byte(`"position"`)) {
		r.calmly.hesitate = false
		return true
	}
	return r.s.Elapsed() < r.calmly.refused[topic]
}

// refusal is a topic that is refused until nobody believes in it any more; then everything goes as before.
func (r *run) refusal(w world.World) {
	r.refuse(orderPaid.Topic(), 70*time.Second)
	r.want("order-1", 6)
	_ = w.Sleep(context.Background(), 75*time.Second)
	r.settle(w)
	_ = w.Sleep(context.Background(), 10*time.Second)
	r.calmly.oneKey, r.watch.prompt = "A0", r.s.Elapsed() // the next event may go alone, and it opens the topic
	r.record(w)
	r.settle(w)
	r.calmly.oneKey = ""
	r.sunny(w)
	r.loseTopic(w)
}

// loseTopic has a topic removed. It is made again by who publishes, and the record queue is subscribed; consumers subscribe when
// they begin, and an operator fills the hole.
func (r *run) loseTopic(w world.World) {
	from := r.databases["order"].Clock()
	r.broker.Remove(orderViewed.Topic())
	r.record(w)
	for r.broker.Subscribers(orderViewed.Topic()) < 1 {
		_ = w.Sleep(context.Background(), time.Second)
	}
	for _, name := range r.processes {
		if !strings.HasPrefix(name, "order") && name != "relay" {
			r.s.Crash(name)
		}
	}
	for r.broker.Subscribers(orderViewed.Topic()) < 3 {
		_ = w.Sleep(context.Background(), time.Second)
	}
	r.redeliver(w, pabal.Redelivery{Topic: orderViewed.Topic(), From: from, Until: r.databases["order"].Clock(), Rate: 1000})
}

// commitLate has events committed long after they are due, by a process that is no more: those who have been sweeping all the
// time find them.
func (r *run) commitLate(w world.World) {
	before := r.databases["order"].Recorded()
	_ = w.Sleep(context.Background(), 30*time.Second) // whoever is not back yet
	r.calmly.late, r.off = true, true
	for r.running["order-1"].p.Alive() {
		if r.placed("order-1") { // the customer has changed his mind
			r.want("order-1", 1)
		}
		_ = w.Sleep(context.Background(), time.Second)
	}
	r.calmly.late = false
	r.mu.Lock()
	r.orders["order-1"] = true // and places no more
	r.mu.Unlock()
	r.settle(w)
	if r.databases["order"].Recorded() == before {
		_ = r.fail("late: nothing was committed")
	}
}

// record has an order placed, at least one event of which is committed.
func (r *run) record(w world.World) {
	for before := r.databases["order"].Recorded(); r.databases["order"].Recorded() == before; {
		r.want("order-1", 1)
		for range 20 {
			_ = w.Sleep(context.Background(), time.Second)
			if r.databases["order"].Recorded() > before {
				break
			}
		}
	}
}

// redeliver has recorded events delivered once more, and waits until that is done.
func (r *run) redeliver(w world.World, job pabal.Redelivery) {
	if _, err := r.operator["order"].Redeliver(context.Background(), job); err != nil {
		_ = r.fail("redeliver: %w", err)
	}
	r.settle(w)
}
