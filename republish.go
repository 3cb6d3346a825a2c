package pabal

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Republishing: the sweep claims what is due and may go, and hands it to the publisher. It never sets published_at.

const (
	aloneEvery   = 10 * time.Second // while a topic does not accept, and process
	provenMargin = 30 * time.Second // proven_at beyond accepted_at by this: what was accepted then had time to come back
	failuresMax  = 10
	claimsMany   = 16 // of a topic in a sweep

	// A topic is proven every proofEvery, by the lowest sentat since the last time, and provenMargin beyond the acceptance: an
	// event that is due sooner is never charged, and so never parked.
	republishLeast = 2 * time.Minute
	crashesShift   = 3
	crashesAlone   = 4 // a row with as many was claimed alone the last time: publishBatch >> 3*3 is below 1
)

// going says which due events of a topic may go now.
type going struct {
	fresh          bool      // those never accepted
	accepted       bool      // those accepted before acceptedBefore
	acceptedBefore time.Time //
	probe          bool      // else one accepted event alone, every republish_after and store
	alone          bool      // one event of either kind, alone: the topic does not accept
}

// mayGo decides what of a topic may go: what was never accepted while the topic accepts, what was accepted while the topic
// is proven; otherwise one goes alone now and then, whose own return heals the topic (P3).
func mayGo(accepts bool, sinceAlone time.Duration, provenAt time.Time) going {
	g := going{accepted: !provenAt.IsZero(), acceptedBefore: provenAt.Add(-provenMargin)}
	if !accepts {
		g.alone = sinceAlone >= aloneEvery
		return g
	}
	g.fresh, g.probe = true, true
	return g
}

// claimDue decides which of the due rows, oldest first, are claimed: those with as many crashes as the first, the fewer
// the more crashes they have, so that an event that kills its process is soon alone. provenAt is their topic's.
func claimDue(rows []driver.Pending, now, provenAt time.Time, lease time.Duration) []driver.Decision {
	c := rows[0].Crashes
	room := max(1, publishBatch>>min(crashesShift*c, 30))
	var decisions []driver.Decision
	for _, row := range rows {
		if row.Crashes != c || len(decisions) == room {
			continue
		}
		acceptedSince := !row.AcceptedAt.IsZero() && row.AcceptedAt.After(row.SentAt)
		if acceptedSince && provenAt.After(row.AcceptedAt.Add(provenMargin)) || c >= crashesAlone {
			row.Failures++
		}
		row.Claims++
		row.Crashes++
		row.SentAt = now
		row.DueAt = now.Add(lease)
		if row.Failures >= failuresMax {
			row.DueAt, row.Crashes = time.Time{}, 0
			row.LastError = parkedReason(acceptedSince)
		}
		decisions = append(decisions, driver.Decision{Pending: row})
	}
	return decisions
}

func parkedReason(acceptedSince bool) string {
	if acceptedSince {
		return fmt.Sprintf("accepted %d times and never came back, although its topic works", failuresMax)
	}
	return fmt.Sprintf("its process ended without a verdict %d times while it was published alone", failuresMax)
}

// claimUnclaimed decides about events whose commit is in doubt: those that are there and that nobody has claimed.
func claimUnclaimed(rows []driver.Pending, now time.Time, lease time.Duration) []driver.Decision {
	var decisions []driver.Decision
	for _, row := range rows {
		if row.Claims > 0 || row.Parked() || !row.AcceptedAt.IsZero() {
			continue
		}
		row.Claims++
		row.Crashes++
		row.SentAt = now
		row.DueAt = now.Add(lease)
		decisions = append(decisions, driver.Decision{Pending: row})
	}
	return decisions
}

type republisher struct {
	*house
	publisher *publisher
	mark      time.Time  // low-water mark of due_at
	fullAt    world.Mono // when the last sweep without mark was
}

func (r *republisher) run(ctx context.Context) {
	r.fullAt = r.w.Now().Add(-r.o.Lease)
	for ctx.Err() == nil {
		more, err := r.sweep(ctx)
		pause := r.o.Sweep - time.Duration(r.w.Rand()%uint64(r.o.Sweep/4))
		if err != nil {
			r.warn(ctx, "sweep failed, trying again", "err", err)
		}
		if more && err == nil {
			pause = 5 * time.Millisecond // room for others; the lanes are filling
		}
		_ = r.w.Sleep(ctx, pause)
	}
}

// sweep goes over the topics once and reports whether there is more to take at once.
func (r *republisher) sweep(ctx context.Context) (more bool, err error) {
	call, cancel := r.w.Deadline(ctx, r.o.Lease)
	defer cancel()
	now := r.w.Now()
	full := now.Sub(r.fullAt) >= r.o.Lease || r.mark.IsZero()
	after := r.mark
	if full {
		after = time.Time{}
	}
	reading, err := r.store.Read(call, driver.Query{Topics: true, After: after})
	if err != nil {
		return false, fmt.Errorf("read topics: %w", err)
	}
	mark := reading.Now.Add(-time.Minute)
	for i := range reading.Topics {
		t := &reading.Topics[i]
		if t.OldestDue.IsZero() || t.OldestDue.After(reading.Now) {
			continue
		}
		if t.OldestDue.Before(mark) {
			mark = t.OldestDue
		}
		again, err := r.sweepTopic(call, t, after)
		if err != nil {
			return false, fmt.Errorf("claim events of topic %s: %w", t.Name, err)
		}
		more = more || again
	}
	if full {
		r.fullAt = now
	}
	if full || mark.After(r.mark) {
		r.mark = mark
	}
	return more, nil
}

func (r *republisher) sweepTopic(ctx context.Context, t *driver.Topic, after time.Time) (more bool, err error) {
	room := min(r.publisher.room(), publishBatch)
	if room < publishBatch && room < r.o.Queue {
		return true, nil // the lanes are full
	}
	r.mu.Lock()
	local := r.topic(t.Name)
	g := mayGo(local.accepts(), r.w.Now().Sub(local.wentLone), t.ProvenAt)
	if g.alone {
		local.wentLone = r.w.Now()
	}
	r.mu.Unlock()
	fresh := driver.Selection{Topic: t.Name, Limit: room, After: after}
	accepted := fresh
	accepted.Accepted, accepted.AcceptedBefore = true, g.acceptedBefore
	if g.alone {
		fresh.Limit, accepted.Limit = 1, 1
		n, err := r.claim(ctx, t, &fresh, true)
		if n == 0 && err == nil && g.accepted {
			_, err = r.claim(ctx, t, &accepted, true)
		}
		return false, err
	}
	if !g.fresh {
		return false, nil
	}
	n, err := r.claimMany(ctx, t, fresh)
	if err != nil {
		return false, err
	}
	m := 0
	if g.accepted {
		if m, err = r.claimMany(ctx, t, accepted); err != nil {
			return false, err
		}
	}
	if m == 0 && g.probe {
		probe := driver.Selection{Topic: t.Name, Limit: 1, Accepted: true, Probe: r.o.RepublishAfter}
		if _, err = r.claim(ctx, t, &probe, false); err != nil {
			return false, err
		}
	}
	return n+m >= publishBatch>>crashesShift, nil
}

// claimMany claims one batch after the other while they are full and the lanes have room, some at most: other topics wait.
func (r *republisher) claimMany(ctx context.Context, t *driver.Topic, s driver.Selection) (all int, err error) {
	for range claimsMany {
		n, err := r.claim(ctx, t, &s, false)
		if all += n; err != nil || n < publishBatch || r.publisher.room() < publishBatch {
			return all, err
		}
	}
	return all, nil
}

// claim claims and offers what it got; it returns how many rows it changed, and has s go on behind them.
func (r *republisher) claim(ctx context.Context, t *driver.Topic, s *driver.Selection, alone bool) (int, error) {
	s.Decide = func(now time.Time, rows []driver.Pending) []driver.Decision {
		s.After = rows[len(rows)-1].DueAt
		return claimDue(rows, now, t.ProvenAt, r.o.Lease)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	// A claim that is under way when ctx ends may take effect: what it got is published then, or given back, and not left to its lease.
	call, cancel := r.w.Deadline(context.WithoutCancel(ctx), min(r.o.Lease, handlersCancelled))
	defer cancel()
	start := r.w.Now()
	claimed, err := r.store.Claim(call, *s)
	if err != nil || len(claimed) == 0 {
		return 0, err
	}
	entries := claimedEntries(claimed, start.Add(r.o.Lease), alone)
	if n := len(claimed) - len(entries); n > 0 {
		r.parked(claimed, n)
	}
	r.o.Observer.Count(Count{Step: "republish", Result: "claimed", Topic: t.Name, N: len(entries)})
	r.publisher.offer(entries)
	return len(claimed), nil
}

func (r *republisher) parked(claimed []driver.Claimed, n int) {
	for i := range claimed {
		if c := &claimed[i]; c.Parked() {
			r.log.Error("event parked", "event_id", c.ID, "topic", c.Topic, "err", c.LastError)
			r.o.Observer.Count(Count{Step: "republish", Result: "parked", Topic: c.Topic, N: 1})
			if n--; n == 0 {
				return
			}
		}
	}
}

// reason makes the text that a row keeps: a stable beginning, then the error.
func reason(what string, err error) string {
	if err != nil {
		what += ": " + err.Error()
	}
	what = strings.ToValidUTF8(strings.ReplaceAll(what, "\x00", ""), "?")
	if len(what) > 500 {
		what = strings.ToValidUTF8(what[:500], "")
	}
	return what
}

func cmpOr(err, other error) error { return cmp.Or(err, other) }
