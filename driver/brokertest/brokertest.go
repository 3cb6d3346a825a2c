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
	// Repeats: now and then a message is given to two receivers, as the Amazon SQS Developer Guide says of standard queues.
	Repeats bool
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
