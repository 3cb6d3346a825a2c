package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
)

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
