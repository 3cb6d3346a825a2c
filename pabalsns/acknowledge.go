package pabalsns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// Acknowledging and keeping. Acknowledgements cost a call each unless they go in tens: full tens go at once, the rest waits a
// moment for company. An acknowledgement that gets lost means a further delivery, which the inbox absorbs.

const (
	ackGather  = 100 * time.Millisecond // how long acknowledgements wait for a full ten
	ackTries   = 6                      // of one acknowledgement, the first included
	ackPause   = 200 * time.Millisecond // after the first try; doubled each time
	ackPending = 20_000                 // that wait at most; what is beyond is delivered again
	callsMost  = 8                      // batch calls of one Ack or Extend at a time
	// heldMost is how long SQS leaves a message to its receiver at all: 12 hours from its receipt (ChangeMessageVisibility).
	heldMost = 12 * time.Hour
)

// gatherer is the acknowledgements of a queue.
type gatherer struct {
	b     *Broker
	queue string

	mu      sync.Mutex
	pending []ack
	waiting map[string]bool // their handles; a call that names one twice may be refused with all that it brings
	calling map[string]bool // handles in calls that are under way
	timer   *time.Timer     // runs while something waits
}

type ack struct {
	handle string
	tries  int
}

// Ack implements driver.Broker: full tens are on their way when it returns, the rest at most 100 ms later.
func (b *Broker) Ack(ctx context.Context, queue string, deliveries []driver.Delivery) error {
	if _, err := b.queueURL(ctx, queue); err != nil {
		return fmt.Errorf("acknowledge to queue %s: %w", queue, err)
	}
	acks := make([]ack, len(deliveries))
	for i, d := range deliveries {
		acks[i] = ack{handle: d.Receipt.(receipt).handle}
	}
	g := b.gatherer(queue)
	g.add(acks)
	g.send(ctx, g.take(batchEntries))
	return nil
}

func (b *Broker) gatherer(queue string) *gatherer {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.ackers[queue]
	if g == nil {
		g = &gatherer{b: b, queue: queue, calling: map[string]bool{}, waiting: map[string]bool{}}
		b.ackers[queue] = g
	}
	return g
}

func (g *gatherer) add(acks []ack) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range acks {
		if !g.waiting[a.handle] {
			g.waiting[a.handle] = true
			g.pending = append(g.pending, a)
		}
	}
	if over := len(g.pending) - ackPending; over > 0 {
		for _, a := range g.pending[:over] {
			delete(g.waiting, a.handle)
		}
		g.pending = slices.Delete(g.pending, 0, over)
	}
	if g.timer == nil && len(g.pending) > 0 {
		g.wait(ackGather)
	}
}

// wait has what is pending sent later. The caller holds mu.
func (g *gatherer) wait(d time.Duration) {
	g.timer = time.NewTimer(d)
	timer := g.timer
	g.b.work.Go(func() {
		select {
		case <-timer.C:
			g.flush()
		case <-g.b.closing.Done(): // Close flushes
		}
	})
}

// flush sends what waits, with a context that survives shutdown.
func (g *gatherer) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	g.mu.Lock()
	g.timer = nil
	g.mu.Unlock()
	g.send(ctx, g.take(1))
}

// take removes what waits, in calls of ten, the last of at least so many.
func (g *gatherer) take(least int) (calls [][]ack) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.pending) >= least {
		n := min(len(g.pending), batchEntries)
		calls = append(calls, slices.Clone(g.pending[:n]))
		for _, a := range g.pending[:n] {
			g.calling[a.handle] = true
			delete(g.waiting, a.handle)
		}
		g.pending = slices.Delete(g.pending, 0, n)
	}
	return calls
}

func (g *gatherer) send(ctx context.Context, calls [][]ack) {
	each(calls, func(call []ack) {
		again := g.delete(ctx, call)
		g.mu.Lock()
		for _, a := range call {
			delete(g.calling, a.handle)
		}
		g.mu.Unlock()
		g.again(again)
	})
}

// each does something with each of a list, several at a time, and returns when all is done.
func each[T any](list []T, do func(T)) {
	if len(list) == 1 {
		do(list[0])
		return
	}
	var running sync.WaitGroup
	free := make(chan struct{}, callsMost)
	for _, one := range list {
		free <- struct{}{}
		running.Go(func() {
			do(one)
			<-free
		})
	}
	running.Wait()
}

// again has acknowledgements tried once more, after a pause that grows, or given up.
func (g *gatherer) again(acks []ack) {
	var left []ack
	pause := ackPause
	for _, a := range acks {
		if a.tries++; a.tries < ackTries {
			left = append(left, a)
			pause = max(pause, ackPause<<(a.tries-1))
		}
	}
	if given := len(acks) - len(left); given > 0 {
		g.b.warn("ack "+g.queue, "acknowledged messages will come again", "queue", g.queue, "messages", given)
	}
	if len(left) == 0 {
		return
	}
	timer := time.NewTimer(pause)
	g.b.work.Go(func() {
		select {
		case <-timer.C:
		case <-g.b.closing.Done():
		}
		ctx, cancel := context.WithTimeout(context.Background(), answerTime)
		defer cancel()
		g.send(ctx, [][]ack{left})
	})
}

// delete calls DeleteMessageBatch and answers what is worth another try. A receipt that is not valid any more is not: its
// message is gone or somebody else's.
func (g *gatherer) delete(ctx context.Context, call []ack) (again []ack) {
	url, err := g.b.queueURL(ctx, g.queue)
	if err != nil {
		return call
	}
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &url}
	for i, a := range call {
		in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), ReceiptHandle: aws.String(a.handle),
		})
	}
	out, err := g.b.sqs.DeleteMessageBatch(ctx, in)
	if err != nil {
		_ = g.b.destinationError(driver.Destination{Queue: g.queue}, err) // looked up again for the next try
		return call
	}
	settled := map[string]bool{}
	for _, s := range out.Successful {
		settled[aws.ToString(s.Id)] = true
	}
	for _, f := range out.Failed {
		settled[aws.ToString(f.Id)] = f.SenderFault && faults[aws.ToString(f.Code)] != throttled
	}
	for i, a := range call {
		if !settled[strconv.Itoa(i)] {
			again = append(again, a)
		}
	}
	return again
}

// waits answers the handles whose acknowledgements are not answered yet.
func (g *gatherer) waits() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := maps.Clone(g.calling)
	maps.Copy(all, g.waiting)
	return all
}

// Extend implements driver.Broker. What was acknowledged is no longer ours, also while that is on its way; neither is a
// message 12 hours after it was received, whatever SQS answers.
func (b *Broker) Extend(ctx context.Context, queue string, deliveries []driver.Delivery, d time.Duration) ([]int, error) {
	url, err := b.queueURL(ctx, queue)
	if err != nil {
		return nil, fmt.Errorf("extend messages of queue %s: %w", queue, err)
	}
	e := &extension{b: b, url: url, deliveries: deliveries}
	acknowledged := b.gatherer(queue).waits()
	calls := map[int32][]int{} // by seconds, which differ near the end of the 12 hours
	for i := range deliveries {
		r := deliveries[i].Receipt.(receipt)
		left := heldMost - time.Since(r.at) - time.Second // it was received a little earlier
		if acknowledged[r.handle] || left < time.Second {
			e.lost = append(e.lost, i)
			continue
		}
		s := seconds(min(d+time.Second-1, left)) // no less than asked for
		calls[s] = append(calls[s], i)
	}
	for s, indexes := range calls {
		each(slices.Collect(slices.Chunk(indexes, batchEntries)), func(call []int) { e.change(ctx, call, s) })
	}
	slices.Sort(e.lost)
	if e.err != nil {
		e.err = fmt.Errorf("extend messages of queue %s: %w", queue, b.destinationError(driver.Destination{Queue: queue}, e.err))
	}
	return e.lost, e.err
}

// extension is an Extend that is under way.
type extension struct {
	b          *Broker
	url        string
	deliveries []driver.Delivery

	mu   sync.Mutex
	lost []int
	err  error
}

// change calls ChangeMessageVisibilityBatch. What failed by the caller's fault is not ours any more: ReceiptHandleIsInvalid,
// MessageNotInflight, or InvalidParameterValue past the 12 hours.
func (e *extension) change(ctx context.Context, call []int, s int32) {
	in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &e.url}
	for at, i := range call {
		in.Entries = append(in.Entries, sqstypes.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(strconv.Itoa(at)), ReceiptHandle: aws.String(e.deliveries[i].Receipt.(receipt).handle), VisibilityTimeout: s,
		})
	}
	out, err := e.b.sqs.ChangeMessageVisibilityBatch(ctx, in)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.err = err
		return
	}
	known := map[string]bool{}
	for _, s := range out.Successful {
		known[aws.ToString(s.Id)] = true
	}
	for _, f := range out.Failed {
		at, err := strconv.Atoi(aws.ToString(f.Id))
		if err != nil || at < 0 || at >= len(call) {
			continue
		}
		known[*f.Id] = true
		if f.SenderFault && faults[aws.ToString(f.Code)] != throttled {
			e.lost = append(e.lost, call[at])
		} else {
			e.err = fmt.Errorf("%s: %s", aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
	if len(known) < len(call) && e.err == nil {
		e.err = errors.New("the answer does not mention all of them")
	}
}
