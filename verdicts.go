package pabal

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What became of what was published: the broker's answers, kept until they are written. Acceptances are written late, for most
// of them are confirmed before.

// acceptance is a settlement that is not written before its time, and not at all once its event has come back here.
type acceptance struct {
	driver.Settlement
	from world.Mono
}

// came forgets acceptances of events that the store knows to have come back: there is nothing left to write. The caller holds mu.
func (h *house) came(id uuid.UUID) { delete(h.accepted, id) }

// note turns the broker's answers into verdicts to be written.
func (p *publisher) note(name string, batch []entry, answers []driver.Verdict) {
	var count [3]int
	var trouble error
	var refused uuid.UUID // the last
	p.mu.Lock()
	now := p.w.Now()
	for i := range batch {
		e, v := &batch[i], answers[i]
		count[v.Kind]++
		s := driver.Settlement{ID: e.event.ID, RecordedAt: e.event.RecordedAt, Claims: e.claims}
		switch v.Kind {
		case driver.Accepted:
			s.Accepted, s.Delay = true, p.o.RepublishAfter
			from := min(now.Add(acceptedDelay), max(now, e.leaseEnd.Add(-leaseMargin)))
			p.acceptances = append(p.acceptances, acceptance{s, from})
			p.accepted[s.ID] = s.Claims
			continue
		case driver.Never:
			refused = s.ID
			s.Park, s.Error = true, reason("refused by the broker", v.Err)
		default:
			trouble = cmpOr(trouble, v.Err)
			s.Error, s.Delay = reason("not accepted", v.Err), v.Delay
			if s.Delay <= 0 {
				s.Delay = backoff(e.claims, p.o.RepublishAfter, p.w.Rand())
			}
		}
		p.urgent = append(p.urgent, s)
	}
	t := p.topic(name)
	wasAccepting := t.accepts()
	switch {
	case count[driver.Accepted] > 0:
		t.misses = 0
	case errors.Is(trouble, driver.ErrDestination):
		t.misses, t.ready = max(t.misses, missesMax), false
	case count[driver.Again] > 0:
		t.misses++
		t.wentLone = now
	}
	warn := trouble != nil && now.Sub(t.warned) >= time.Minute
	if warn {
		t.warned = now
	}
	back := !wasAccepting && t.accepts()
	p.left(batch)
	p.bound()
	p.mu.Unlock()
	p.writer.Set()
	p.report(name, count, trouble, refused, warn, back)
}

func (p *publisher) report(name string, count [3]int, trouble error, refused uuid.UUID, warn, back bool) {
	for kind, n := range count {
		if n > 0 {
			p.o.Observer.Count(Count{Step: "publish", Result: driver.VerdictKind(kind).String(), Topic: name, N: n})
		}
	}
	if warn {
		p.log.Error("events are not accepted", "topic", name, "events", count[driver.Again], "err", trouble)
	}
	if count[driver.Never] > 0 {
		p.log.Error("events parked: the broker refuses them", "topic", name, "events", count[driver.Never], "event_id", refused)
	}
	if back {
		p.log.Info("topic accepts again", "topic", name)
	}
}

// release gives entries back without a try. Those of the first lease are left as they are: their rows have no claim that
// a verdict could end. The caller holds mu.
func (p *publisher) release(entries []entry, delay time.Duration) {
	for i := range entries {
		if e := &entries[i]; e.claims > 0 || !p.open {
			p.urgent = append(p.urgent, driver.Settlement{
				ID: e.event.ID, RecordedAt: e.event.RecordedAt, Claims: e.claims, Delay: delay,
			})
		}
	}
	p.bound()
	p.writer.Set()
}

// bound forgets the oldest verdicts beyond what memory is for. The caller holds mu.
func (p *publisher) bound() {
	if over := len(p.urgent) - settleMax; over > 0 {
		p.urgent = p.urgent[over:]
	}
	for len(p.acceptances) > settleMax {
		p.owed(&p.acceptances[0])
		p.acceptances = p.acceptances[1:]
	}
}

// runWriter writes verdicts when they are ripe, and all of them once nothing more is published.
func (p *publisher) runWriter(ctx context.Context) {
	for {
		batch, wait, done := p.ripe(ctx)
		switch {
		case len(batch) > 0:
			p.settle(ctx, batch)
		case done:
			return
		default:
			p.writer.Wait(ctx, wait)
		}
	}
}

// ripe takes the verdicts that are to be written now: urgent ones, and the acceptances whose time has come, in the order
// in which they came.
func (p *publisher) ripe(ctx context.Context) (batch []driver.Settlement, wait time.Duration, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.urgent), settleBatch)
	batch = append(batch, p.urgent[:n]...)
	p.urgent = p.urgent[n:]
	now := p.w.Now()
	early := p.drained || len(p.acceptances) > settleMax/2
	for n = 0; n < len(p.acceptances) && len(batch) < settleBatch && (early || p.acceptances[n].from <= now); n++ {
		if a := &p.acceptances[n]; p.owed(a) {
			batch = append(batch, a.Settlement)
		}
	}
	p.acceptances = p.acceptances[n:]
	if wait = -1; len(p.acceptances) > 0 {
		wait = max(p.acceptances[0].from.Sub(now), settleGather)
	}
	return batch, wait, p.drained && len(batch) == 0 && len(p.acceptances) == 0 || ctx.Err() != nil
}

// owed takes an acceptance out of what is accepted, and reports whether it is still to be written: its event has not come back, nor
// been accepted once more. What failed to be written, other than acceptances, is.
func (p *publisher) owed(a *acceptance) bool {
	if !a.Accepted {
		return true
	}
	claims, accepted := p.accepted[a.ID]
	if !accepted || claims != a.Claims {
		return false
	}
	delete(p.accepted, a.ID)
	return true
}

func (p *publisher) settle(ctx context.Context, batch []driver.Settlement) {
	call, cancel := p.w.Deadline(ctx, p.o.Lease)
	defer cancel()
	err := p.store.Settle(call, batch)
	if err == nil {
		return
	}
	p.warn(ctx, "verdicts could not be written, trying again", "events", len(batch), "err", err)
	later := p.w.Now().Add(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained {
		return // leases end by themselves
	}
	for _, s := range batch {
		p.acceptances = append(p.acceptances, acceptance{Settlement: s, from: later})
		if _, again := p.accepted[s.ID]; s.Accepted && !again {
			p.accepted[s.ID] = s.Claims
		}
	}
	p.bound()
}

// backoff is how long an event that was not accepted waits: 10, 20, 40 s … up to most, less up to a tenth, so that
// what failed together does not come back together.
func backoff(claims int, most time.Duration, random uint64) time.Duration {
	d := most
	if claims < 16 {
		d = min(most, backoffFirst<<claims)
	}
	return d - time.Duration(random%uint64(d/10+1))
}
