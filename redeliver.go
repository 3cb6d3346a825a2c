package pabal

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

// Redelivering: a job sends recorded events once more, a page at a time, at its rate. What it has sent lies in the
// database, so that another process goes on with it.

const (
	jobsEvery  = 15 * time.Second
	jobLease   = 30 * time.Second
	jobSaved   = jobLease / 3 // how long it goes on without saying so
	jobPage    = 100
	jobLastMax = 10_000 // keys whose last event is kept in mind
)

func (r Redelivery) encode() []byte {
	spec, _ := json.Marshal(r) // of plain fields, that check has looked at: never fails
	return spec
}

func (r *Redelivery) filter() driver.EventFilter {
	return driver.EventFilter{Topic: r.Topic, Type: r.Type, Key: r.Key, From: r.From, To: r.Until, IDs: r.IDs}
}

type redeliverer struct {
	*house
	publisher *publisher
	owner     uuid.UUID
}

func (r *redeliverer) run(ctx context.Context) {
	r.owner = newID(r.w)
	for r.w.Sleep(ctx, jobsEvery-time.Duration(r.w.Rand()%uint64(jobsEvery/4))) == nil {
		reading, err := r.read(ctx, driver.Query{Jobs: true})
		if err != nil {
			continue // the sweep tells of it
		}
		for _, job := range reading.Jobs {
			if job.Finished || job.LeaseUntil.After(reading.Now) && job.Owner != r.owner {
				continue
			}
			if err := r.work(ctx, job); err != nil {
				r.warn(ctx, "redelivery interrupted, trying again", "job", job.ID, "err", err)
			}
		}
	}
}

// work carries a job on to its end, or to the first thing that fails.
func (r *redeliverer) work(ctx context.Context, job driver.Job) error {
	var spec Redelivery
	if err := json.Unmarshal(job.Spec, &spec); err != nil {
		job.Finished, job.LastError = true, reason("job is unreadable", err)
		_, err = r.save(ctx, &job)
		return err
	}
	last := map[string]driver.Ref{}
	due := newRation(spec.Rate, r.limits, r.w.Now())
	ours := false
	for ctx.Err() == nil {
		mine, err := r.save(ctx, &job)
		if err != nil || !mine {
			return err // somebody else has it
		}
		ours = true
		filter := spec.filter()
		filter.After, filter.Limit = job.Resume, jobPage
		page, err := r.read(ctx, driver.Query{Events: &filter})
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if len(page.Events) == 0 {
			job.Finished, job.LastError = true, ""
			mine, err := r.save(ctx, &job)
			if mine {
				r.log.Info("redelivery is done", "job", job.ID, "events", job.Sent)
			}
			return err
		}
		sent, err := r.send(ctx, &job, &spec, page, last, &due)
		job.Sent += sent
		if err != nil && ctx.Err() == nil {
			job.LastError = reason("interrupted", err)
			_, _ = r.save(ctx, &job)
			return err
		}
		r.o.Observer.Count(Count{Step: "redeliver", Result: "accepted", Topic: spec.Topic, Consumer: spec.Consumer, N: sent})
	}
	if ours {
		_, _ = r.keep(ctx, &job, 0) // another process goes on without waiting for the lease
	}
	return ctx.Err()
}

// ration spreads a job's events evenly, for live ones wait behind them.
type ration struct {
	rate int // events a second
	most int // at once, after something held them up: a tenth of a second's worth
	few  int // at once at least: where the broker counts calls, full ones
	from world.Mono
	sent int // since from
}

func newRation(rate int, l driver.Limits, now world.Mono) ration {
	most := max(1, rate/10)
	return ration{rate: rate, most: most, few: max(1, min(l.Batch, most)), from: now}
}

// now is how many events may be sent, or how long to wait for the next.
func (t *ration) now(at world.Mono) (n int, wait time.Duration) {
	n = t.few + int(at.Sub(t.from).Microseconds()*int64(t.rate)/1e6) - t.sent
	if n > t.most {
		t.from, t.sent, n = at, t.few-t.most, t.most
	}
	if n >= t.few {
		return n, 0
	}
	next := time.Duration(int64(t.sent)*1e6/int64(t.rate)+1) * time.Microsecond
	return 0, t.from.Add(next).Sub(at)
}

// wait waits until events may be sent; 0 when ctx has ended.
func (r *redeliverer) wait(ctx context.Context, due *ration) int {
	for {
		n, d := due.now(r.w.Now())
		if n > 0 || r.w.Sleep(ctx, max(d, time.Millisecond)) != nil {
			return n
		}
	}
}

func (r *redeliverer) save(ctx context.Context, job *driver.Job) (mine bool, err error) {
	return r.keep(ctx, job, jobLease)
}

// keep saves a job, which is this client's for so long.
func (r *redeliverer) keep(ctx context.Context, job *driver.Job, lease time.Duration) (mine bool, err error) {
	call, cancel := r.w.Deadline(context.WithoutCancel(ctx), r.o.PublishTimeout)
	defer cancel()
	job.Owner, job.Lease = r.owner, lease
	n, err := r.store.Tend(call, driver.Chore{Job: job})
	return n > 0, err
}

// send publishes a page in order, or as much of it as there is time for, and moves the job's resume point along.
func (r *redeliverer) send(
	ctx context.Context, job *driver.Job, spec *Redelivery, page driver.Reading, last map[string]driver.Ref, due *ration,
) (sent int, err error) {
	began := r.w.Now()
	for start := 0; start < len(page.Events) && r.w.Now().Sub(began) < jobSaved; {
		most := r.wait(ctx, due)
		if most == 0 {
			return sent, ctx.Err()
		}
		if r.limits.Batch > 0 {
			most = min(most, r.limits.Batch)
		}
		topic := page.Events[start].Event.Topic
		end, to := start, driver.Destination{Queue: spec.Consumer}
		if spec.Consumer == "" {
			to = driver.Destination{Topic: topic}
			if err := r.publisher.prepareTopic(ctx, topic, page.Events[start].Event.Position != 0); err != nil {
				return sent, err
			}
		}
		var messages []driver.Message
		bytes := 0
		for ; end < len(page.Events) && len(messages) < most; end++ {
			e := envelope{Event: page.Events[end].Event, Source: r.source, SentAt: page.Now}
			bytes += sizeOnWire(&e.Event) + envelopeRoom
			if e.Topic != topic || end > start && r.limits.BatchBytes > 0 && bytes > r.limits.BatchBytes {
				break
			}
			if spec.Again && !e.Bare { // a bare message has no place for the job: it only fills holes
				e.Job = job.ID
				if e.Prev, err = r.previous(ctx, spec, &e.Event, last); err != nil {
					return sent, err
				}
			}
			messages = append(messages, e.message(e.ID.String()+"/"+job.ID.String()))
		}
		n, err := r.publish(ctx, to, messages)
		sent += n
		due.sent += n
		if n > 0 {
			job.Resume = page.Events[start+n-1].Event.Ref()
		}
		if err != nil {
			return sent, err
		}
		start = end
	}
	return sent, nil
}

// publish sends messages and returns how many of the first were accepted; one that never will be is passed over.
func (r *redeliverer) publish(ctx context.Context, to driver.Destination, messages []driver.Message) (int, error) {
	call, cancel := r.w.Deadline(ctx, r.o.PublishTimeout)
	defer cancel()
	for i, v := range r.broker.Publish(call, to, messages) {
		switch v.Kind {
		case driver.Again:
			return i, fmt.Errorf("redeliver %s to %s: %s", messages[i].ID, to, reason("not accepted", v.Err))
		case driver.Never:
			r.log.Error("event cannot be redelivered", "event_id", messages[i].ID, "err", v.Err)
		}
	}
	return len(messages), nil
}

// previous finds the event of the same key that this job sent before.
func (r *redeliverer) previous(
	ctx context.Context, spec *Redelivery, e *driver.Event, last map[string]driver.Ref,
) (driver.Ref, error) {
	if e.Position == 0 {
		return driver.Ref{}, nil
	}
	name := e.Topic + "\x00" + e.Key
	prev, known := last[name]
	if !known {
		filter := spec.filter()
		filter.Topic, filter.Key, filter.After, filter.Descending, filter.Limit = e.Topic, e.Key, e.Ref(), true, 1
		found, err := r.read(ctx, driver.Query{Events: &filter})
		if err != nil {
			return driver.Ref{}, fmt.Errorf("find the event before %s: %w", e.ID, err)
		}
		if len(found.Events) > 0 {
			prev = found.Events[0].Event.Ref()
		}
	}
	if len(last) >= jobLastMax {
		clear(last)
	}
	last[name] = e.Ref()
	return prev, nil
}

// dedup is the deduplication id towards the broker: a further claim is never swallowed as a copy of an earlier one.
func dedup(id uuid.UUID, claims int) string {
	b := append(appendUUID(make([]byte, 0, 48), id), '/')
	return string(strconv.AppendInt(b, int64(claims), 10))
}
