package scenario

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// What a process asks of its store is looked at too.

// claim is a claim of which a process has heard.
type claim struct {
	claimed
	in *incarnation
	p  *sender
}

// sender is what one process sends, as a careful broker sees it, and what it has heard.
type sender struct {
	process
	w         world.World
	topics    map[string]*sentTopic
	flying    map[string]bool // topic and key of what is in flight
	queue     int             // Options.Queue
	inFlight  map[string]int  // messages that it has received, and neither acknowledged nor lost, by queue
	received  map[uuid.UUID]comeBack
	confirmed map[string][]comeBack // by topic, since the topic was proven last
	settled   map[uuid.UUID]bool    // events that it knows to have come back
}

type sentTopic struct {
	misses int
	lone   world.Mono
}

// comeBack is a message that came back through the record queue.
type comeBack struct {
	topic  string
	sentAt time.Time
	at     world.Mono // when it was confirmed
}

func newSender(p process, w world.World, queue int) *sender {
	if queue == 0 {
		queue = 10_000
	}
	return &sender{
		process: p, w: w, topics: map[string]*sentTopic{}, flying: map[string]bool{}, queue: queue,
		inFlight: map[string]int{}, received: map[uuid.UUID]comeBack{}, confirmed: map[string][]comeBack{}, settled: map[uuid.UUID]bool{},
	}
}

func (p *sender) topic(name string) *sentTopic {
	t := p.topics[name]
	if t == nil {
		t = &sentTopic{}
		p.topics[name] = t
	}
	return t
}

// cameBack notes a message of the record queue, until its event is confirmed.
func (p *sender) cameBack(d *driver.Delivery) {
	id := idOf(d)
	at, err := time.Parse(time.RFC3339Nano, field(d.Body, "sentat"))
	if id == uuid.Nil || err != nil {
		return
	}
	if before, known := p.received[id]; !known || at.Before(before.sentAt) {
		p.received[id] = comeBack{topic: field(d.Body, "topic"), sentAt: at}
	}
}

// field reads a field of a message, whose value is plain text.
func field(body []byte, name string) string {
	_, rest, _ := bytes.Cut(body, []byte(`"`+name+`":"`))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

// watchedStore is a process's pool, looked at.
type watchedStore struct {
	*sim.Store
	v *watch
	p *sender
}

// Record looks at whose a new event is.
func (s *watchedStore) Record(ctx context.Context, t *sim.Tx, r driver.Recording) error {
	in := s.p.in
	long := min(s.p.w.Now().Sub(in.since), in.p.Running()) > time.Second
	switch {
	case r.Lease != 0 && r.Lease != lease:
		_ = s.v.r.fail("lease: %s records with a lease of %v", s.p.name, r.Lease)
	case r.Lease == 0 && in.runs && long && s.p.ctx.Err() == nil:
		_ = s.v.r.fail("lease: %s publishes, and does not lease what it records", s.p.name)
	case r.Lease != 0 && !in.runs:
		_ = s.v.r.fail("lease: %s does not publish, and leases what it records", s.p.name)
	}
	return s.Store.Record(ctx, t, r)
}

// Claim looks at how often a topic that does not accept is tried.
func (s *watchedStore) Claim(ctx context.Context, sel driver.Selection) ([]driver.Claimed, error) {
	if len(sel.IDs) == 0 && !sel.Accepted {
		t, now := s.p.topic(sel.Topic), s.p.w.Now()
		if t.misses >= 5 {
			if t.lone != 0 && now.Sub(t.lone) < 10*time.Second {
				_ = s.v.r.fail("P3 no storm: %s tries topic %s again after %v", s.p.name, sel.Topic, now.Sub(t.lone))
			}
			t.lone = now
		}
	}
	rows, err := s.Store.Claim(ctx, sel)
	for i := range rows {
		if p := &rows[i]; !p.Parked() && !s.v.ordered[p.ID] {
			s.v.claims = append(s.v.claims, claim{claimed{p.ID, p.Claims}, s.p.in, s.p})
		}
	}
	return rows, err
}

// answered checks that whoever claimed an event, and lives, has said what became of it, if it was claimed again. Whoever has said
// so of a later claim need not: the former verdict would be fenced off. Nor whoever has seen the event come back since then, and of what
// the database has lost.
func (v *watch) answered() {
	for _, c := range v.claims {
		if c.p.settled[c.id] || v.r.losses.undone[c.id] {
			continue
		}
		later := slices.ContainsFunc(v.claims, func(l claim) bool {
			return l.id == c.id && l.in == c.in && l.claims > c.claims && v.verdicts[l.claimed]
		})
		if c.in.p.Alive() && c.in.stopped == 0 && v.again[c.claimed] && !v.verdicts[c.claimed] && !v.ordered[c.id] && !later {
			_ = v.r.fail("fence: %s has no verdict on its claim %d of %s", c.in.p.Name, c.claims, c.id)
		}
	}
}

// Settle looks at verdicts.
func (s *watchedStore) Settle(ctx context.Context, verdicts []driver.Settlement) error {
	for _, x := range verdicts {
		s.v.verdicts[claimed{x.ID, x.Claims}] = true
		if want := min(s.v.r.c.RepublishAfter, 10*time.Second<<min(x.Claims, 10)); strings.HasPrefix(x.Error, "not accepted") &&
			(x.Delay > want || x.Delay < want-want/10-1) {
			_ = s.v.r.fail("backoff: %s, not accepted at claim %d, waits %v", x.ID, x.Claims, x.Delay)
		}
	}
	return s.Store.Settle(ctx, verdicts)
}

// Confirm notes what a topic may be proven with.
func (s *watchedStore) Confirm(ctx context.Context, events []driver.Ref) ([]driver.Confirmation, error) {
	answers, err := s.Store.Confirm(ctx, events)
	for i, answer := range answers {
		back, known := s.p.received[events[i].ID]
		delete(s.p.received, events[i].ID)
		if answer != driver.Absent {
			s.p.settled[events[i].ID] = true
		}
		if known && answer != driver.Absent {
			back.at = s.p.w.Now()
			s.p.confirmed[back.topic] = append(s.p.confirmed[back.topic], back)
		}
	}
	return answers, err
}

// Tend looks at what a topic is proven with: nothing that came back in the 30 s may have been sent before. What has come back
// within the last lease may be left for the next time.
func (s *watchedStore) Tend(ctx context.Context, c driver.Chore) (int, error) {
	if proof := c.Prove; proof != nil {
		for _, back := range s.p.confirmed[proof.Topic] {
			if back.sentAt.Before(proof.SentAt) && min(s.p.w.Now().Sub(back.at), s.p.in.p.Running()) > lease {
				_ = s.v.r.fail("proof: %s is proven since %v, and what was sent %v before came back", proof.Topic, proof.SentAt,
					proof.SentAt.Sub(back.sentAt))
			}
		}
		delete(s.p.confirmed, proof.Topic)
	}
	return s.Store.Tend(ctx, c)
}
