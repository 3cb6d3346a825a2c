package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pabal-go/pabal/driver"
)

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
		again, most := 0, 0
		for _, n := range seen {
			again += n - 1
		}
		if s.h.Repeats {
			most = len(seen) / 20 // if they were not shared, each would come again
		}
		s.check(again <= most, "%d came again", again)
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
	"Close", "Close: deliveries neither acknowledged nor given back come again, to anyone, none is lost. A second Close does nothing.",
	func(s *suite) {
		s.create()
		other := s.connect(s.t)
		s.accepted(paid, "a", "b", "c")
		s.receive(other, "settlement", 1)
		s.ok(other.Close())
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
