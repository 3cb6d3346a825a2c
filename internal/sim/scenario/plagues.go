package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Plagues are events with which something is wrong, each in its own way, until somebody mends it: they must be parked, each
// for a reason of its own, and nothing else may suffer.
const (
	doomed    = "doomed"    // its handlers fail
	deadly    = "deadly"    // its handlers end their processes
	poison    = "poison"    // publishing it ends the process
	refused   = "refused"   // the broker takes it never
	swallowed = "swallowed" // the broker accepts it and forgets it, each time
	undone    = "undone"    // its handlers roll back and say nothing

	slow = "slow" // is no plague: its handlers only take their time
)

// plagueOf says what is wrong with the n-th order of a process.
func (r *run) plagueOf(process string, n int) string {
	switch {
	case process != "order-1":
	case r.c.Plagues:
		return map[int]string{2: doomed, 4: deadly, 6: poison, 8: refused, 10: swallowed, 18: undone}[n]
	case r.c.Later > 0 && n == 8:
		return refused
	case r.c.Later > inboxRetention && n == 2:
		return doomed
	}
	return ""
}

func (r *run) sick() bool { return !r.mended.Load() }

// plagued looks for a plague in a message.
func plagued(body []byte, plague string) bool {
	return bytes.Contains(body, []byte(`"plague":"`+plague+`"`))
}

// answer is the broker's.
func (r *run) answer(to driver.Destination, m driver.Message) (driver.Verdict, bool) {
	if r.sick() && plagued(m.Body, refused) {
		return driver.Verdict{Kind: driver.Never, Err: errors.New("not this one")}, false
	}
	if r.refuses(to.Topic, &m) {
		return driver.Verdict{Err: errors.New("not now")}, false
	}
	forget := !r.calm.Load() && r.server.World().Rand()%1000 < uint64(r.c.Broker.Forget) && !redelivered(m.Dedup)
	return driver.Verdict{Kind: driver.Accepted}, to.Topic != "" && (forget || r.sick() && plagued(m.Body, swallowed))
}

// suffer is what a handler does with a plague.
func (r *run) suffer(ctx context.Context, p process, w world.World, consumer string, e pabal.Received[paid]) error {
	switch plague := e.Data.Plague; {
	case plague == slow && r.sick():
		return w.Sleep(ctx, 3*time.Second)
	case plague == deadly && r.sick():
		p.crash()
	case plague == doomed && r.sick():
		return errors.New("doomed")
	case plague == doomed && r.skips(consumer):
		return r.fail("skip: %s handles %s, which is skipped", consumer, e.ID)
	}
	return nil
}

// skips reports whether a consumer's operator skips what is doomed, instead of mending it.
func (r *run) skips(consumer string) bool {
	return r.c.Plagues && consumer == "settlement" && r.c.Seed/8%2 == 1
}

// unparked names a plague that is not parked where it should be; empty: none. What is parked and is no plague is a failure.
func (r *run) unparked() string {
	want := map[string][]string{}
	for _, e := range r.databases["order"].Events() { // some customer may have changed his mind
		switch plague := plagueIn(e.Payload); plague {
		case poison, refused, swallowed:
			want["order"] = append(want["order"], plague)
		case doomed, deadly, undone:
			for _, consumer := range consumersOf {
				want[consumer] = append(want[consumer], plague)
			}
		}
	}
	parked := func(where, plague, what string) {
		n := len(want[where])
		want[where] = slices.DeleteFunc(want[where], func(p string) bool { return p == plague })
		if n == len(want[where]) {
			_ = r.fail("P1 no loss: %s is parked at %s", what, where)
		}
	}
	for _, e := range r.databases["order"].Events() {
		if p := r.databases["order"].PendingOf(e.ID); p != nil && p.Parked() {
			parked("order", plagueIn(e.Payload), fmt.Sprintf("%s (%s)", e.ID, p.LastError))
		}
	}
	for _, consumer := range consumersOf {
		for _, row := range r.databases[consumer].Kept(consumer) {
			if row.State == driver.Parked && !(plagueIn(row.Body) != "" && r.forgotten(row.RecordedAt)) {
				parked(consumer, plagueIn(row.Body), fmt.Sprintf("%s (%s %s)", row.ID, row.Reason, row.LastError))
			}
		}
	}
	for _, where := range []string{"order", "settlement", "notification"} {
		if len(want[where]) > 0 {
			return want[where][0] + " at " + where
		}
	}
	return ""
}

// forgotten reports whether the order service has forgotten what it recorded at a time.
func (r *run) forgotten(at time.Time) bool { return r.databases["order"].Clock().Sub(at) > retention }

// redelivered tells the messages of a job, which nobody confirms: an operator who misses one redelivers again.
func redelivered(dedup string) bool { return len(dedup) > 50 }

func plagueIn(body []byte) string {
	if !bytes.Contains(body, []byte(`"plague":"`)) {
		return ""
	}
	for _, plague := range []string{doomed, deadly, poison, refused, swallowed, undone} {
		if plagued(body, plague) {
			return plague
		}
	}
	return ""
}
