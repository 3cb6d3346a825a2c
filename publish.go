package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Publishing. What a transaction recorded, and what the republisher claimed, waits in lanes: bounded queues in memory,
// each with one call in flight, so that a batch goes as soon as nothing is in flight and others form meanwhile. Events of
// a key share a lane as long as any of them is on its way. A lane tries each event once; what becomes of it is written by
// the writer task. Whatever is dropped here is still in the database, where the republisher finds it.

const (
	publishBatch  = 256             // where the broker has no limit; also the most events in a claim
	publishBytes  = 1 << 20         // bytes of a batch where the broker has no limit
	acceptedDelay = 2 * time.Second // most events have come back before their acceptance would be written
	settleGather  = 20 * time.Millisecond
	leaseMargin   = 3 * time.Second  // an acceptance is written when less of its lease is left
	missesMax     = 5                // calls in a row without an acceptance: the topic does not accept
	backoffFirst  = 10 * time.Second // after the first again
	passedMax     = 1000             // entries of other topics that a batch passes over
	settleBatch   = 1000
	settleMax     = 50_000 // verdicts kept while the database is away; the oldest are forgotten: their leases end
)

// recorded is what one call of Record put into a transaction.
type recorded struct {
	rows []driver.Event
	at   world.Mono // when Record had returned
}

// entry is an event on its way to the broker.
type entry struct {
	event    driver.Event
	claims   int
	sentAt   time.Time  // at most when it is sent, by the database's clock
	leaseEnd world.Mono // nothing is sent later
	alone    bool       // goes although its topic does not accept
}

// topic is what this process knows of a topic.
type topic struct {
	ready    bool       // the broker has it, with the record queue subscribed
	misses   int        // publish calls in a row without an acceptance
	wentLone world.Mono // when an event last went alone, or in vain
	warned   world.Mono // when its trouble was last logged
}

func (t *topic) accepts() bool { return t.misses < missesMax }

// goesAlone reports whether it is time for an event to go alone, and notes that it does.
func (t *topic) goesAlone(now world.Mono) bool {
	if now.Sub(t.wentLone) < aloneEvery {
		return false
	}
	t.wentLone = now
	return true
}

// topic returns what is known of a topic. The caller holds mu.
func (h *house) topic(name string) *topic {
	t := h.topics[name]
	if t == nil {
		long := h.w.Now().Add(-time.Hour)
		t = &topic{wentLone: long, warned: long}
		h.topics[name] = t
	}
	return t
}

type publisher struct {
	*house
	lanes    []*lane[entry] // each with at most one call in flight
	stays    stays          // of what is in lanes, and in calls
	queued   int            // entries in all lanes
	offered  meter
	next     int // lane of the next batch without key
	open     bool
	doubtful []entry // to be claimed by id
	claimer  world.Signal
	urgent   []driver.Settlement // to be written at once
	writer   world.Signal
	drained  bool // nothing more will be published: the writer may end

	acceptances []acceptance // to be written when their time comes; most events have come back by then
}

func newPublisher(h *house) *publisher {
	p := &publisher{house: h, stays: stays{}, claimer: h.w.NewSignal(), writer: h.w.NewSignal()}
	for range h.o.Lanes {
		p.lanes = append(p.lanes, &lane[entry]{wake: h.w.NewSignal()})
	}
	return p
}

// lease is how long events that are recorded now belong to this process: not at all when nobody would publish them.
func (p *publisher) lease() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return 0
	}
	return p.o.Lease
}

// committed takes over what a transaction recorded. It is called in the midst of the caller's COMMIT and never blocks.
func (p *publisher) committed(r *recorded, leaseEnd world.Mono, s driver.CommitState) {
	if s == driver.Void {
		return
	}
	now := p.w.Now()
	entries := make([]entry, len(r.rows))
	if r.at == 0 { // Record failed, and its COMMIT may have been on its way: of the rows only the ids can be relied on
		for i := range r.rows {
			entries[i].event.ID = r.rows[i].ID
		}
		p.doubt(entries)
		return
	}
	for i := range r.rows {
		entries[i] = entry{event: r.rows[i], sentAt: r.rows[i].RecordedAt.Add(now.Sub(r.at)), leaseEnd: leaseEnd}
	}
	if s == driver.Doubtful || leaseEnd.Sub(now) < p.o.PublishTimeout {
		p.doubt(entries)
		return
	}
	p.offer(entries)
}

// offer queues entries; what finds no room is released.
func (p *publisher) offer(entries []entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	room := p.o.Queue - p.queued
	if !p.open {
		room = 0
	}
	if len(entries) > room {
		p.release(entries[room:], 0)
		entries = entries[:room]
	}
	p.next++
	p.offered.add(len(entries), p.w.Now())
	for i := range entries {
		p.lanes[p.laneOf(&entries[i].event)].put(entries[i])
	}
	p.queued += len(entries)
}

// laneOf is the lane of an event: where others of its key are. The caller holds mu.
func (p *publisher) laneOf(e *driver.Event) int {
	if e.Key == "" {
		return p.freeLane(uint64(p.next))
	}
	key := spread(e.Topic, e.Key)
	return p.stays.enter(key, func() int { return p.freeLane(key) })
}

// freeLane is a lane where nothing else may be in flight; under load, one where a batch forms. The caller holds mu.
func (p *publisher) freeLane(hash uint64) int {
	return pick(p.lanes, p.offered.busy(0), p.most(), hash)
}

// left takes note of entries that are in no lane any more, nor in a call. The caller holds mu.
func (p *publisher) left(entries []entry) {
	for i := range entries {
		if e := &entries[i].event; e.Key != "" {
			p.stays.leave(spread(e.Topic, e.Key))
		}
	}
}

// spread is FNV-1a: the same in every run, unlike hash/maphash.
func spread(texts ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, text := range texts {
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return h
}

// room is how many entries may be offered.
func (p *publisher) room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.o.Queue - p.queued
}

// begin opens the intake.
func (p *publisher) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
}

// end closes the intake: what is queued is still published, then the lanes and the claimer end.
func (p *publisher) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
	for _, l := range p.lanes {
		l.wake.Set()
	}
	p.claimer.Set()
}

// run publishes until end has been called and everything is done. When ctx ends, what is left is given back.
func (p *publisher) run(ctx context.Context, w world.World) {
	for _, l := range p.lanes {
		w.Go("lane", func(world.World) { p.runLane(ctx, l) })
	}
	w.Go("claimer", func(world.World) { p.runClaimer(ctx) })
	_ = w.Join(context.WithoutCancel(ctx)) // they end with ctx
	p.mu.Lock()
	p.drained = true
	p.mu.Unlock()
	p.writer.Set()
}

func (p *publisher) runLane(ctx context.Context, l *lane[entry]) {
	var rate pace
	gathers := beforePublish.upTo(p.most())
	for {
		batch, idle := p.take(ctx, l)
		switch {
		case len(batch) > 0:
			start := p.w.Now()
			p.publish(ctx, batch)
			gather(ctx, p.house, l, gathers, rate.pause(len(batch), p.most(), start, p.w.Now(), gathers))
		case !idle:
			return
		default:
			l.wake.Wait(ctx, -1)
		}
	}
}

// most is how many messages go into a call.
func (p *publisher) most() int {
	if p.limits.Batch > 0 {
		return min(publishBatch, p.limits.Batch)
	}
	return publishBatch
}

// take removes the next batch from a lane: entries of one topic, in order, as many as fit into a call. Without a batch it
// says whether more may come.
func (p *publisher) take(ctx context.Context, l *lane[entry]) (batch []entry, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		p.release(l.queue, 0)
		p.left(l.queue)
		p.queued -= len(l.queue)
		l.queue = nil
		return nil, false
	}
	if len(l.queue) == 0 {
		return nil, p.open
	}
	most, bytes := p.most(), publishBytes
	if p.limits.BatchBytes > 0 {
		bytes = p.limits.BatchBytes
	}
	name := l.queue[0].event.Topic
	batch = make([]entry, 0, min(most, len(l.queue)))
	var others []entry // of other topics, passed over
	n := 0
	for ; n < len(l.queue) && len(batch) < most && len(others) < passedMax; n++ {
		e := &l.queue[n]
		if e.event.Topic != name {
			others = append(others, *e)
			continue
		}
		size := sizeOnWire(&e.event) + envelopeRoom
		if len(batch) > 0 && size > bytes {
			break
		}
		bytes -= size
		batch = append(batch, *e)
	}
	left := n - len(others)
	copy(l.queue[left:n], others)
	if rest := len(l.queue) - left; rest <= left { // its place is used again
		copy(l.queue, l.queue[left:])
		clear(l.queue[rest:])
		l.queue = l.queue[:rest]
	} else {
		clear(l.queue[:left])
		l.queue = l.queue[left:]
	}
	p.queued -= len(batch)
	return batch, true
}

// publish sends one batch of one topic and notes what became of it.
func (p *publisher) publish(ctx context.Context, batch []entry) {
	name := batch[0].event.Topic
	ordered := false
	for i := range batch {
		ordered = ordered || batch[i].event.Position != 0
	}
	err := p.prepareTopic(ctx, name, ordered)
	batch = p.sendable(batch, name)
	if len(batch) == 0 {
		return
	}
	verdicts := make([]driver.Verdict, len(batch))
	if err != nil {
		for i := range verdicts {
			verdicts[i].Err = err
		}
	} else {
		p.send(ctx, driver.Destination{Topic: name}, batch, verdicts)
	}
	p.note(name, batch, verdicts)
}

func (p *publisher) send(ctx context.Context, to driver.Destination, batch []entry, verdicts []driver.Verdict) {
	ctx, end := p.o.Observer.Start(ctx, Step{
		Name: "publish", Topic: batch[0].event.Topic, Events: len(batch),
		Traceparents: traceparents(batch, func(e *entry) string { return e.event.Traceparent }),
	})
	call, cancel := p.w.Deadline(ctx, p.o.PublishTimeout)
	defer cancel()
	messages := make([]driver.Message, len(batch))
	for i := range batch {
		e := envelope{Event: batch[i].event, Source: p.source, SentAt: batch[i].sentAt}
		messages[i] = e.message(dedup(e.ID, batch[i].claims))
	}
	copy(verdicts, p.broker.Publish(call, to, messages))
	end(verdicts[0].Err)
}

// sendable drops what may not be sent any more: its lease is nearly over, or its topic does not accept.
func (p *publisher) sendable(batch []entry, name string) []entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	accepts, now := p.topic(name).accepts(), p.w.Now()
	sendable := batch[:0]
	for i := range batch {
		e := batch[i : i+1]
		switch {
		case e[0].leaseEnd.Sub(now) < p.o.PublishTimeout:
			// The republisher takes it when its lease ends; what was claimed was not tried, which is a verdict.
			p.release(e, 0)
			p.left(e)
		case !accepts && !e[0].alone && !p.topic(name).goesAlone(now):
			p.release(e, backoff(e[0].claims, p.o.RepublishAfter, p.w.Rand()))
			p.left(e)
		default:
			sendable = append(sendable, e[0])
		}
	}
	return sendable
}

// prepareTopic sees to it, once in a process, that the store and the broker know a topic and that the record queue is
// subscribed to it before anything is published: a copy that nobody subscribed to is gone.
func (p *publisher) prepareTopic(ctx context.Context, name string, ordered bool) error {
	p.mu.Lock()
	ready := p.topic(name).ready
	p.mu.Unlock()
	if ready {
		return nil
	}
	call, cancel := p.w.Deadline(ctx, p.o.PublishTimeout)
	defer cancel()
	if _, err := p.store.Tend(call, driver.Chore{Register: &driver.Topic{Name: name, Ordered: ordered}}); err != nil {
		return err
	}
	topology := driver.Topology{
		Topics: []driver.TopicSpec{{Name: name, Ordered: ordered}},
		Queues: []driver.QueueSpec{{Name: recordQueue(p.source), Topics: []string{name}}},
	}
	if err := p.broker.Check(call, topology, !p.o.FixedTopology); err != nil {
		return err
	}
	p.mu.Lock()
	p.topic(name).ready = true
	p.mu.Unlock()
	return nil
}
