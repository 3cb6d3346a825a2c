package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// doubt leaves entries to the claimer, which publishes those that are really there.
func (p *publisher) doubt(entries []entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || len(p.doubtful)+len(entries) > p.o.Queue {
		return // their lease ends, and the republisher takes them
	}
	p.doubtful = append(p.doubtful, entries...)
	p.claimer.Set()
}

// runClaimer claims by id what may have been committed, and offers what is really there.
func (p *publisher) runClaimer(ctx context.Context) {
	for {
		p.mu.Lock()
		n := min(len(p.doubtful), publishBatch)
		batch, open := p.doubtful[:n:n], p.open
		p.doubtful = p.doubtful[n:]
		p.mu.Unlock()
		switch {
		case n > 0:
			p.claimDoubtful(ctx, batch)
		case !open || ctx.Err() != nil:
			return
		default:
			p.claimer.Wait(ctx, -1)
		}
	}
}

func (p *publisher) claimDoubtful(ctx context.Context, batch []entry) {
	refs := make([]driver.Ref, len(batch))
	for i := range batch {
		refs[i] = batch[i].event.Ref()
	}
	call, cancel := p.w.Deadline(ctx, p.o.PublishTimeout)
	defer cancel()
	start := p.w.Now()
	claimed, err := p.store.Claim(call, driver.Selection{IDs: refs,
		Decide: func(now time.Time, rows []driver.Pending) []driver.Decision {
			return claimUnclaimed(rows, now, p.o.Lease)
		}})
	if err != nil {
		p.warn(ctx, "doubtful commits are left to the republisher", "events", len(batch), "err", err)
		return
	}
	p.offer(claimedEntries(claimed, start.Add(p.o.Lease), false))
}

// claimedEntries makes entries of claimed rows that are not parked.
func claimedEntries(claimed []driver.Claimed, leaseEnd world.Mono, alone bool) []entry {
	entries := make([]entry, 0, len(claimed))
	for i := range claimed {
		if c := &claimed[i]; !c.Parked() {
			entries = append(entries, entry{
				event: c.Event, claims: c.Claims, sentAt: c.SentAt, leaseEnd: leaseEnd, alone: alone,
			})
		}
	}
	return entries
}
