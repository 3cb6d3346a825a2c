// Package brokertest is the conformance suite of driver.Broker. Every case carries the sentence of the contract that it
// checks, and prints it when it is broken. A driver's test calls [Run] with a [Harness].
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Harness gives the suite brokers of one kind, and states what that kind cannot do.
type Harness struct {
	// Open makes an empty broker for one test and returns a way to connect to it: each call another process, as it were.
	// Limits.Hold, if not 0, should be about two seconds, so that the cases of redelivery are quick.
	Open func(t *testing.T) (connect func(t *testing.T) driver.Broker)

	NoDedup bool // a message of the same Dedup is stored again
	NoLost  bool // Extend does not tell what is no longer ours
	// NoTopics: a topic exists as soon as something is published to it, so none is ever missing.
	NoTopics bool
}

type suite struct {
	t       *testing.T
	h       Harness
	b       driver.Broker
	connect func(t *testing.T) driver.Broker
	ctx     context.Context
}

type testCase struct {
	name string
	rule string
	run  func(s *suite)
}

// Run runs every case.
func Run(t *testing.T, h Harness) {
	for _, c := range slices.Concat(checkCases, publishCases, receiveCases) {
		t.Run(c.name, func(t *testing.T) {
			connect := h.Open(t)
			s := &suite{t: t, h: h, b: connect(t), connect: connect, ctx: t.Context()}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the rule: %s", c.rule)
				}
			})
			c.run(s)
		})
	}
}

func (s *suite) check(ok bool, format string, args ...any) {
	s.t.Helper()
	if !ok {
		s.t.Errorf(format, args...)
	}
}

func (s *suite) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// shop is the topology of most cases: one topic, two queues.
var shop = driver.Topology{
	Topics: []driver.TopicSpec{{Name: "paid", Ordered: true}},
	Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}, {Name: "event-record", Topics: []string{"paid"}}},
}

func (s *suite) create() {
	s.t.Helper()
	s.ok(s.b.Check(s.ctx, shop, true))
}

func message(text string) driver.Message {
	id := uuid.Must(uuid.NewV7())
	return driver.Message{
		ID: id, Dedup: id.String() + "/0", Group: "A1", Body: []byte(text),
		Attributes: []driver.Attribute{{Name: "id", Value: id.String()}, {Name: "source", Value: "order"}, {Name: "type", Value: "paid"}},
	}
}

var paid = driver.Destination{Topic: "paid"}

func (s *suite) publish(to driver.Destination, messages ...driver.Message) []driver.Verdict {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	verdicts := s.b.Publish(ctx, to, messages)
	s.check(len(verdicts) == len(messages), "%d verdicts on %d messages", len(verdicts), len(messages))
	return verdicts
}

func (s *suite) accepted(to driver.Destination, texts ...string) {
	s.t.Helper()
	var messages []driver.Message
	for _, text := range texts {
		messages = append(messages, message(text))
	}
	for i, v := range s.publish(to, messages...) {
		s.check(v.Kind == driver.Accepted && v.Err == nil, "message %d: %v, %v", i, v.Kind, v.Err)
	}
}

// receive receives until n messages have come, or 15 s have passed.
func (s *suite) receive(b driver.Broker, queue string, n int) []driver.Delivery {
	s.t.Helper()
	var all []driver.Delivery
	for end := time.Now().Add(15 * time.Second); len(all) < n && time.Now().Before(end); {
		got, err := b.Receive(s.ctx, queue, n-len(all))
		s.ok(err)
		s.check(len(got) <= n-len(all), "%d messages, at most %d were asked for", len(got), n-len(all))
		all = append(all, got...)
	}
	s.check(len(all) == n, "%d messages of queue %s came, want %d", len(all), queue, n)
	return all
}

// nothing expects that no message comes for d.
func (s *suite) nothing(b driver.Broker, queue string, d time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	for ctx.Err() == nil {
		got, err := b.Receive(ctx, queue, 10)
		s.ok(err)
		s.check(len(got) == 0, "message %q came", texts(got))
		if len(got) > 0 {
			return
		}
	}
}

func texts(deliveries []driver.Delivery) []string {
	var list []string
	for _, d := range deliveries {
		list = append(list, string(d.Body))
	}
	slices.Sort(list)
	return list
}

var checkCases = []testCase{{
	"Check/names what is missing", "Check: without create it answers a *MissingError that names everything missing.",
	func(s *suite) {
		for _, b := range []driver.Broker{s.b, s.connect(s.t)} {
			err := b.Check(s.ctx, shop, false)
			var missing *driver.MissingError
			s.check(errors.As(err, &missing), "answered %v", err)
		}
		partly := driver.Topology{Topics: shop.Topics, Queues: []driver.QueueSpec{{Name: "settlement"}}}
		s.ok(s.b.Check(s.ctx, partly, true))
		err := s.b.Check(s.ctx, shop, false)
		for _, want := range []string{"queue event-record", "subscription of queue settlement to topic paid"} {
			s.check(err != nil && strings.Contains(err.Error(), want), "%q is not named in: %v", want, err)
		}
		s.check(err != nil && !strings.Contains(err.Error(), "queue settlement,"), "the queue that is there is named in: %v", err)
		s.create()
		s.ok(s.b.Check(s.ctx, shop, false))
	},
}, {
	"Check/many at once", "Check: it is safe to call from many processes at once and again at any time.",
	func(s *suite) {
		var wg sync.WaitGroup
		for i := range 8 {
			b := s.connect(s.t)
			wg.Go(func() {
				topic := fmt.Sprintf("topic-%d", i)
				t := driver.Topology{Topics: []driver.TopicSpec{{Name: topic}}, Queues: []driver.QueueSpec{{Name: "all", Topics: []string{topic}}}}
				for range 2 {
					if err := b.Check(s.ctx, t, true); err != nil {
						s.t.Errorf("check %s: %v", topic, err)
					}
				}
			})
		}
		wg.Wait()
		for i := range 8 {
			s.accepted(driver.Destination{Topic: fmt.Sprintf("topic-%d", i)}, fmt.Sprint(i))
		}
		got := texts(s.receive(s.b, "all", 8))
		s.check(slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6", "7"}), "came: %v", got)
	},
}, {
	"Check/keeps what waits", "Check: it never deletes or recreates.",
	func(s *suite) {
		s.create()
		s.accepted(paid, "a")
		s.ok(s.b.Check(s.ctx, driver.Topology{Topics: []driver.TopicSpec{{Name: "more"}},
			Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"more"}}}}, true))
		s.accepted(driver.Destination{Topic: "more"}, "b")
		got := texts(s.receive(s.b, "settlement", 2))
		s.check(slices.Equal(got, []string{"a", "b"}), "came: %v", got)
	},
}}

var publishCases = []testCase{{
	"Publish/fans out", "Broker: it copies what is published to a topic into every queue subscribed to it; what is sent to one queue comes there only.",
	func(s *suite) {
		s.create()
		m := message("한글 \U0001F44D")
		v := s.publish(paid, m)
		s.check(v[0].Kind == driver.Accepted, "%v: %v", v[0].Kind, v[0].Err)
		for _, queue := range []string{"settlement", "event-record"} {
			d := s.receive(s.b, queue, 1)[0]
			s.check(string(d.Body) == string(m.Body) && d.Attempt == 1, "body %q, attempt %d", d.Body, d.Attempt)
			for _, a := range m.Attributes {
				s.check(slices.Contains(d.Attributes, a), "attribute %v is not in %v", a, d.Attributes)
			}
		}
		s.accepted(driver.Destination{Queue: "settlement"}, "direct")
		s.check(string(s.receive(s.b, "settlement", 1)[0].Body) == "direct", "the message did not come")
		s.nothing(s.b, "event-record", 300*time.Millisecond)
	},
}, {
	"Publish/batch", "Publish: answers one verdict per message, in the order given.",
	func(s *suite) {
		s.create()
		var want []string
		n := 200
		if most := s.b.Limits().Batch; most > 0 {
			n = min(n, most)
		}
		for i := range n {
			want = append(want, fmt.Sprintf("%03d", i))
		}
		s.accepted(paid, want...)
		got := texts(s.receive(s.b, "settlement", n))
		s.check(slices.Equal(got, want), "came: %v", got)
	},
}, {
	"Publish/too large", "Never is for a message that can never succeed unchanged.",
	func(s *suite) {
		s.create()
		most := s.b.Limits().Message
		if most == 0 {
			return // the broker has no limit: there is nothing to check
		}
		large := message(strings.Repeat("x", most+1))
		v := s.publish(paid, message("a"), large)
		s.check(v[0].Kind == driver.Accepted || v[0].Kind == driver.Again, "its neighbour: %v", v[0].Kind)
		s.check(v[1].Kind == driver.Never && v[1].Err != nil, "too large: %v, %v", v[1].Kind, v[1].Err)
	},
}, {
	"Publish/missing destination", "A destination's fault is Again with ErrDestination in Err.",
	func(s *suite) {
		s.create()
		destinations := []driver.Destination{{Queue: "nowhere"}}
		if !s.h.NoTopics {
			destinations = append(destinations, driver.Destination{Topic: "nowhere"})
		}
		for _, to := range destinations {
			v := s.publish(to, message("a"))[0]
			s.check(v.Kind == driver.Again && errors.Is(v.Err, driver.ErrDestination), "%s: %v, %v", to, v.Kind, v.Err)
		}
		_, err := s.b.Receive(s.ctx, "nowhere", 1)
		s.check(errors.Is(err, driver.ErrDestination), "Receive: %v", err)
	},
}, {
	"Publish/ended context", "The zero verdict is Again: an ended context.",
	func(s *suite) {
		s.create()
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		for _, v := range s.b.Publish(ctx, paid, []driver.Message{message("a"), message("b")}) {
			s.check(v.Kind != driver.Never, "%v, %v", v.Kind, v.Err)
		}
	},
}, {
	"Publish/dedup", "Message: a broker that deduplicates does it by Dedup, and only by this.",
	func(s *suite) {
		s.create()
		m := message("a")
		again := m
		again.Dedup = m.ID.String() + "/1"
		for range 2 {
			s.check(s.publish(paid, m)[0].Kind == driver.Accepted, "a copy is not accepted")
		}
		s.check(s.publish(paid, again)[0].Kind == driver.Accepted, "the next claim is not accepted")
		want := 2
		if s.h.NoDedup {
			want = 3
		}
		s.receive(s.b, "settlement", want)
		s.nothing(s.b, "settlement", 300*time.Millisecond)
	},
}, {
	"Publish/slices", "Rules: slices and their contents belong to the caller again when the method returns.",
	func(s *suite) {
		s.create()
		m := message("before")
		s.check(s.publish(paid, m)[0].Kind == driver.Accepted, "not accepted")
		copy(m.Body, "AFTER!")
		s.check(string(s.receive(s.b, "settlement", 1)[0].Body) == "before", "the broker kept the caller's bytes")
	},
}}

var receiveCases = []testCase{{
	"Receive/returns at once", "Receive waits for messages and returns at least one, or none after Limits.Wait.",
	func(s *suite) {
		s.create()
		got := make(chan []driver.Delivery)
		go func() {
			d, _ := s.b.Receive(s.ctx, "settlement", 10)
			got <- d
		}()
		s.accepted(paid, "a")
		select {
		case d := <-got:
			s.check(len(d) == 1, "%d messages", len(d))
		case <-time.After(s.b.Limits().Wait + 5*time.Second):
			s.t.Error("it still waits")
		}
	},
}, {
	"Receive/ended context", "The context's end means \"start no further wait\"; it is no error.",
	func(s *suite) {
		s.create()
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		start := time.Now()
		_, err := s.b.Receive(ctx, "settlement", 10)
		s.check(err == nil && time.Since(start) < s.b.Limits().Wait+2*time.Second, "answered %v after %v", err, time.Since(start))
	},
}, {
	"Receive/nothing is lost at its end", "The call may return late, and with messages, which then are the caller's.",
	func(s *suite) {
		s.create()
		seen := map[string]bool{}
		for round := range 20 {
			ctx, cancel := context.WithCancel(s.ctx)
			time.AfterFunc(time.Duration(round%5)*time.Millisecond, cancel)
			s.accepted(paid, fmt.Sprint(round))
			got, err := s.b.Receive(ctx, "settlement", 10)
			s.ok(err)
			for _, d := range got {
				seen[string(d.Body)] = true
			}
			s.ok(s.b.Ack(s.ctx, "settlement", got))
			cancel()
		}
		if hold := s.b.Limits().Hold; len(seen) < 20 {
			start := time.Now()
			for len(seen) < 20 && time.Since(start) < 10*time.Second {
				got, err := s.b.Receive(s.ctx, "settlement", 20)
				s.ok(err)
				for _, d := range got {
					seen[string(d.Body)] = true
				}
			}
			s.check(time.Since(start) < max(hold/2, 500*time.Millisecond), "what a dead call took came back after %v", time.Since(start))
		}
		s.check(len(seen) == 20, "%d of 20 messages came", len(seen))
	},
}, {
	"Receive/shares", "Several Receives on a queue, here and on other processes, share its messages.",
	func(s *suite) {
		s.create()
		other := s.connect(s.t)
		var mu sync.Mutex
		seen := map[string]int{}
		ctx, cancel := context.WithTimeout(s.ctx, 15*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for _, b := range []driver.Broker{s.b, other, s.b, other} {
			wg.Go(func() {
				for ctx.Err() == nil {
					got, err := b.Receive(ctx, "settlement", 5)
					if err == nil {
						err = b.Ack(s.ctx, "settlement", got)
					}
					if err != nil {
						s.t.Error(err)
						return
					}
					mu.Lock()
					for _, d := range got {
						seen[string(d.Body)]++
					}
					if len(seen) == 100 {
						cancel()
					}
					mu.Unlock()
				}
			})
		}
		for i := range 10 {
			var list []string
			for j := range 10 {
				list = append(list, fmt.Sprint(i*10+j))
			}
			s.accepted(paid, list...)
		}
		wg.Wait()
		s.check(len(seen) == 100, "%d of 100 messages came", len(seen))
		for text, n := range seen {
			s.check(n == 1, "%s came %d times", text, n)
		}
	},
}, {
	"Ack", "Ack removes deliveries of a queue from it for ever.",
	func(s *suite) {
		s.create()
		s.accepted(paid, "a", "b")
		got := s.receive(s.b, "settlement", 2)
		i := slices.IndexFunc(got, func(d driver.Delivery) bool { return string(d.Body) == "a" })
		s.ok(s.b.Ack(s.ctx, "settlement", got[i:i+1]))
		if s.b.Limits().Hold == 0 {
			return
		}
		again := s.receive(s.b, "settlement", 1)[0]
		s.check(string(again.Body) == "b" && again.Attempt == 2, "%q came again, attempt %d", again.Body, again.Attempt)
		s.receive(s.b, "event-record", 2)
	},
}, {
	"Extend/keeps", "Extend keeps deliveries ours for another d.",
	func(s *suite) {
		s.create()
		hold := s.b.Limits().Hold
		if hold == 0 {
			return // ours while we are connected: nothing to keep
		}
		s.accepted(paid, "a")
		d := s.receive(s.b, "settlement", 1)
		other := s.connect(s.t)
		for start := time.Now(); time.Since(start) < 2*hold; {
			lost, err := s.b.Extend(s.ctx, "settlement", d, hold)
			s.check(err == nil && len(lost) == 0, "lost %v, %v", lost, err)
			s.nothing(other, "settlement", hold/3)
		}
		s.ok(s.b.Ack(s.ctx, "settlement", d))
		s.nothing(other, "settlement", hold+hold/2)
	},
}, {
	"Extend/gives back", "Extend: 0 gives them back for delivery to anyone at once (after a moment).",
	func(s *suite) {
		s.create()
		s.accepted(paid, "a")
		d := s.receive(s.b, "settlement", 1)
		start := time.Now()
		_, err := s.b.Extend(s.ctx, "settlement", d, 0)
		s.ok(err)
		again := s.receive(s.b, "settlement", 1)[0]
		s.check(string(again.Body) == "a" && again.Attempt == 2, "%q came, attempt %d", again.Body, again.Attempt)
		if hold := s.b.Limits().Hold; hold > 0 {
			s.check(time.Since(start) < hold, "it came after %v", time.Since(start))
		}
	},
}, {
	"Extend/tells what is lost", "Extend answers the indexes of those that are no longer ours.",
	func(s *suite) {
		s.create()
		if s.h.NoLost {
			return // stated by the harness
		}
		s.accepted(paid, "a", "b")
		d := s.receive(s.b, "settlement", 2)
		s.ok(s.b.Ack(s.ctx, "settlement", d[:1]))
		lost, err := s.b.Extend(s.ctx, "settlement", d, s.b.Limits().Hold)
		s.ok(err)
		s.check(slices.Equal(lost, []int{0}), "lost: %v", lost)
	},
}, {
	"Close", "Close: deliveries neither acknowledged nor given back come again, to anyone, none is lost.",
	func(s *suite) {
		s.create()
		other := s.connect(s.t)
		s.accepted(paid, "a", "b", "c")
		s.receive(other, "settlement", 1)
		s.ok(other.Close())
		var got []string // each once: what waits for longer than Hold may come twice
		for end := time.Now().Add(15 * time.Second); len(got) < 3 && time.Now().Before(end); {
			deliveries, err := s.b.Receive(s.ctx, "settlement", 3)
			s.ok(err)
			s.ok(s.b.Ack(s.ctx, "settlement", deliveries))
			got = append(got, texts(deliveries)...)
			slices.Sort(got)
			got = slices.Compact(got)
		}
		s.check(slices.Equal(got, []string{"a", "b", "c"}), "came: %v", got)
	},
}}
