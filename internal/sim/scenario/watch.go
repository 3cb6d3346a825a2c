package scenario

import (
	"bytes"
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// What the end of a run cannot show is watched while it runs: what becomes of a row of pending, what a process sends, when
// it acknowledges, how it stops. Only in the simulated world, where nothing happens between two steps.

const (
	lease          = 10 * time.Second // Options' defaults
	publishTimeout = 3 * time.Second
	provenMargin   = 30 * time.Second
)

// never is no claim yet.
const never = math.MaxInt

// claimed names one claim of an event.
type claimed struct {
	id     uuid.UUID
	claims int
}

type watch struct {
	r        *run
	verdicts map[claimed]bool // that some process has asked to write
	probes   map[string]time.Time
	proven   map[string]proven
	back     map[uuid.UUID]bool // came back through the record queue
	ordered  map[uuid.UUID]bool // by an operator
	sent     map[string]bool    // deduplication ids
	taken    map[claimed]bool   // accepted, as its sender knows
	born     map[uuid.UUID]time.Duration
	copies   map[uuid.UUID]int
	prompt   time.Duration      // since then nothing goes wrong; 0: something does
	keeping  bool               // nothing is delivered twice
	skipped  map[uuid.UUID]bool // ordered to be
	passed   map[string]bool    // by a consumer's operator: consumer and id
	counts   *counts
	claims   []claim          // by processes, to be published
	again    map[claimed]bool // of which another one followed
	jobs     map[string]*job
	lost     bool              // the order service's database is losing commits
	unsent   map[uuid.UUID]int // bare events that an operator skips: his claim, from which on nobody sends them
}

// proven is a topic's proven_at, and since when it has been that.
type proven struct{ at, since time.Time }

func newWatch(r *run) *watch {
	return &watch{
		r: r, verdicts: map[claimed]bool{}, probes: map[string]time.Time{}, proven: map[string]proven{}, back: map[uuid.UUID]bool{},
		ordered: map[uuid.UUID]bool{}, sent: map[string]bool{},
		taken: map[claimed]bool{}, born: map[uuid.UUID]time.Duration{}, copies: map[uuid.UUID]int{},
		skipped: map[uuid.UUID]bool{}, passed: map[string]bool{}, counts: &counts{n: map[string]int{}}, jobs: map[string]*job{}, again: map[claimed]bool{},
		unsent: map[uuid.UUID]int{},
	}
}

// pending holds a change of a pending row against the rules of confirming and claiming.
func (v *watch) pending(was, is *driver.Pending) {
	if was != nil && is != nil && is.Crashes == 0 && is.Claims > was.Claims && v.unsent[is.ID] == never {
		v.unsent[is.ID] = is.Claims // by the operator: any other claim counts as a crash
	}
	switch r := v.r; {
	case v.lost:
	case was == nil:
		v.born[is.ID] = r.s.Elapsed()
	case is == nil:
		if _, unsent := v.unsent[was.ID]; !unsent && !v.back[was.ID] {
			_ = r.fail("P1 no loss: %s is confirmed and never came back", was.ID)
		}
	case is.Claims < was.Claims:
		_ = r.fail("fence: the claims of %s go down", was.ID)
	case is.Claims == was.Claims:
		if !v.verdicts[claimed{was.ID, was.Claims}] {
			_ = r.fail("fence: %s changes, and nobody has a verdict on its claim %d", was.ID, was.Claims)
		}
	case !v.ordered[was.ID]:
		v.again[claimed{was.ID, was.Claims}] = true
		v.claim(was, is, r.databases["order"].Clock())
	}
}

func (v *watch) claim(was, is *driver.Pending, now time.Time) {
	r := v.r
	t := r.databases["order"].TopicOf(was.Topic)
	if v.proven[t.Name].at != t.ProvenAt {
		v.proven[t.Name] = proven{t.ProvenAt, now}
	}
	if was.Claims > 0 && was.DueAt.After(now) {
		_ = r.fail("lease: %s is claimed, and somebody else has it for %v", was.ID, was.DueAt.Sub(now))
	}
	accepted := !was.AcceptedAt.IsZero()
	since := accepted && was.AcceptedAt.After(was.SentAt)
	works := accepted && t.ProvenAt.After(was.AcceptedAt.Add(provenMargin))
	if accepted && !works {
		if last := v.probes[t.Name]; now.Sub(last) < r.c.RepublishAfter {
			_ = r.fail("P3 no storm: %s goes again, unproven, %v after another one", was.ID, now.Sub(last))
		}
		v.probes[t.Name] = now
	}
	alone := was.Crashes >= 4
	switch charged := is.Failures > was.Failures; {
	case is.Failures > was.Failures+1 || charged && !(since && works || alone):
		_ = r.fail("failures: %s is charged with what is no failure of its own", was.ID)
	case !charged && (alone || since && works && now.Sub(v.proven[t.Name].since) > 2*lease):
		_ = r.fail("failures: %s is not charged", was.ID)
	}
	switch {
	case is.Parked():
		if is.Failures < 10 {
			_ = r.fail("failures: %s is parked after %d", was.ID, is.Failures)
		}
	case is.Failures >= 10:
		_ = r.fail("failures: %s is not parked after ten", was.ID)
	case is.Crashes != was.Crashes+1:
		_ = r.fail("crashes: the claim of %s is not counted", was.ID)
	case is.DueAt.Sub(now) < lease:
		_ = r.fail("lease: %s is claimed for %v", was.ID, is.DueAt.Sub(now))
	}
}

// row holds a change of an inbox row against the rules of trying again.
func (v *watch) row(consumer string, was, is *driver.Row) {
	if was != nil && is != nil && is.State == driver.Done && was.State == driver.Held && was.Reason == "failed" && was.Started == 0 {
		if left := was.NextAt.Sub(v.r.databases[consumer].Clock()); left > 0 {
			_ = v.r.fail("backoff: %s is handled at %s %v before its next try", is.ID, consumer, left)
		}
	}
	if is == nil || is.State != driver.Held && is.State != driver.Parked {
		return
	}
	r := v.r
	now := r.databases[consumer].Clock()
	swept := was != nil // and not received just now, in a transaction that may be long
	if was == nil {
		was = &driver.Row{State: driver.Held}
	}
	switch {
	case is.Failures > was.Failures && strings.Contains(is.LastError, "context canceled"):
		_ = r.fail("shutdown: %s is charged at %s with the end of a process", is.ID, consumer)
	case was.State == driver.Done:
		_ = r.fail("P4 one effect: %s was done at %s, and is %v", is.ID, consumer, is.State)
	case is.State == driver.Parked:
	case is.Failures > was.Failures:
		want := time.Second << min(was.Failures, 9)
		if pause := is.NextAt.Sub(now); pause > want+time.Second || pause < want-want/10-time.Minute {
			_ = r.fail("backoff: %s is tried again at %s in %v after failure %d", is.ID, consumer, pause, is.Failures)
		}
	case swept && is.Started > was.Started && is.NextAt.Sub(now) < 20*time.Second:
		_ = r.fail("inbox: %s is started at %s for %v only", is.ID, consumer, is.NextAt.Sub(now))
	}
}

// job is what a process sends for a redelivery.
type job struct {
	p     *sender
	since world.Mono
	n     int
}

// paced looks at the rate of a redelivery of an operator in bad weather.
func (v *watch) paced(id string, p *sender) {
	now := p.w.Now()
	j := v.jobs[id]
	if j == nil || j.p != p {
		j = &job{p: p, since: now}
		v.jobs[id] = j
	}
	if d := now.Sub(j.since); v.r.c.Operator && j.n > int(jobRate*(d+2*time.Second)/time.Second) {
		_ = v.r.fail("redelivery: %d events in %v, at %d a second", j.n, d, jobRate)
	}
	j.n++
}

// watchedBroker is a process's connection, looked at.
type watchedBroker struct {
	driver.Broker
	v *watch
	p *sender
}

func (b *watchedBroker) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	if b.v.r.c.Narrow {
		b.fits(messages)
	}
	if to.Topic == "" {
		if !strings.HasPrefix(to.Queue, driver.ReplyPrefix) {
			_ = b.v.r.fail("canaries: %s answers to queue %s", b.p.name, to.Queue)
		}
		return b.Broker.Publish(ctx, to, messages)
	}
	for i := range messages {
		if b.v.r.sick() && plagued(messages[i].Body, poison) {
			b.p.crash()
		}
	}
	t := b.p.topic(to.Topic)
	var flying []string
	jobs := 0
	for i := range messages {
		m := &messages[i]
		if redelivered(m.Dedup) {
			jobs++
			b.v.paced(m.Dedup[37:], b.p)
			continue
		}
		claims, _ := strconv.Atoi(m.Dedup[37:])
		b.one(m, claims)
		if m.Group != "" {
			flying = append(flying, to.Topic+" "+m.Group)
		}
	}
	for _, key := range flying {
		if b.p.flying[key] {
			_ = b.v.r.fail("P5 order: %s has two batches of %s in flight", b.p.name, key)
		}
	}
	if jobs == 0 && t.misses >= 5 && len(messages) > 1 {
		_ = b.v.r.fail("P3 no storm: %s sends %d events to topic %s, which does not accept", b.p.name, len(messages), to.Topic)
	}
	if jobs == 0 && len(messages) > b.p.queue {
		_ = b.v.r.fail("P3 bounded: %s has queued %d events, at most %d", b.p.name, len(messages), b.p.queue)
	}
	for _, key := range flying {
		b.p.flying[key] = true
	}
	verdicts := b.Broker.Publish(ctx, to, messages)
	for _, key := range flying {
		delete(b.p.flying, key)
	}
	for i := range messages {
		if claims, err := strconv.Atoi(messages[i].Dedup[37:]); err == nil && verdicts[i].Kind == driver.Accepted {
			b.v.taken[claimed{messages[i].ID, claims}] = true
		}
	}
	if jobs == 0 {
		b.count(t, verdicts)
	}
	return verdicts
}

// one looks at a message that is about to go.
func (b *watchedBroker) one(m *driver.Message, claims int) {
	r := b.v.r
	if b.v.sent[m.Dedup] && !r.losses.undone[m.ID] {
		_ = r.fail("fence: %s is sent again as %s: a broker that deduplicates swallows it", m.ID, m.Dedup)
	}
	b.v.sent[m.Dedup] = true
	if at, skipped := b.v.unsent[m.ID]; skipped && claims >= at {
		_ = r.fail("skip: %s sends %s, which has no envelope that says so", b.p.name, m.ID)
	}
	row := r.databases["order"].PendingOf(m.ID)
	if row == nil || b.v.ordered[m.ID] {
		return
	}
	if left := row.DueAt.Sub(r.databases["order"].Clock()); row.Claims > claims || row.Claims == claims && left < publishTimeout {
		_ = r.fail("lease: %s sends %s with claim %d of %d, %v before its end", b.p.name, m.ID, claims, row.Claims, left)
	}
}

func (b *watchedBroker) count(t *sentTopic, verdicts []driver.Verdict) {
	var kinds [3]int
	for i := range verdicts {
		kinds[verdicts[i].Kind]++
	}
	switch {
	case kinds[driver.Accepted] > 0:
		t.misses, t.lone = 0, 0
	case kinds[driver.Again] > 0:
		t.misses++
	}
}

func (b *watchedBroker) Receive(ctx context.Context, queue string, limit int) ([]driver.Delivery, error) {
	record := strings.HasPrefix(queue, "event-record-")
	if record && b.v.r.s.Elapsed() < b.v.r.calmly.deaf {
		_ = b.p.w.Sleep(ctx, 5*time.Second)
		return nil, nil
	}
	if b.v.r.c.Narrow {
		b.asks(queue, limit)
	}
	deliveries, err := b.Broker.Receive(ctx, queue, limit)
	if err != nil { // whoever asked does not get what is on its way
		return nil, err
	}
	b.p.inFlight[queue] += len(deliveries)
	for i := range deliveries {
		if b.v.keeping && deliveries[i].Attempt > 1 {
			_ = b.v.r.fail("confirming: %s is delivered again while a database is away: nobody keeps it", idOf(&deliveries[i]))
		}
	}
	for i := range deliveries {
		if d := &deliveries[i]; record && !again(d) { // who never had it does not get it by being told to handle it again
			b.v.back[idOf(d)] = true
			b.p.cameBack(d)
		}
	}
	return deliveries, nil
}

func (b *watchedBroker) Ack(ctx context.Context, queue string, deliveries []driver.Delivery) error {
	record := strings.HasPrefix(queue, "event-record-")
	defer func() { b.p.inFlight[queue] -= len(deliveries) }() // until it is answered they may be in flight
	for i := range deliveries {
		id := idOf(&deliveries[i])
		if record && b.v.r.c.Losing {
			b.v.r.losses.acknowledged[id] = true
		}
		switch {
		case id == uuid.Nil, b.v.r.calmly.canaries[id], b.v.r.calmly.hidden[id]:
		case record && (again(&deliveries[i]) || b.v.r.losses.undone[id]):
		case record && b.v.r.databases["order"].PendingOf(id) != nil:
			_ = b.v.r.fail("P1 no loss: %s acknowledges %s and has not confirmed it", b.p.name, id)
		case !record && !b.v.r.databases[queue].Knows(queue, id):
			_ = b.v.r.fail("P1 no loss: %s acknowledges %s, which is not in its inbox", b.p.name, id)
		}
	}
	return b.Broker.Ack(ctx, queue, deliveries)
}

func (b *watchedBroker) Extend(
	ctx context.Context, queue string, deliveries []driver.Delivery, d time.Duration,
) ([]int, error) {
	if d == 0 && strings.HasPrefix(queue, "event-record-") {
		_ = b.v.r.fail("confirming: %s gives messages back", b.p.name)
	}
	lost, err := b.Broker.Extend(ctx, queue, deliveries, d)
	if b.p.inFlight[queue] -= len(lost); d == 0 {
		b.p.inFlight[queue] -= len(deliveries)
	}
	return lost, err
}

// again tells a message of a redelivery that has events handled again.
func again(d *driver.Delivery) bool { return bytes.Contains(d.Body, []byte(`"job":`)) }

func idOf(d *driver.Delivery) uuid.UUID {
	for _, a := range d.Attributes {
		if a.Name == "id" {
			id, _ := uuid.Parse(a.Value)
			return id
		}
	}
	return uuid.Nil
}
