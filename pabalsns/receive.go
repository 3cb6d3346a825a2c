package pabalsns

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// Receiving. A ReceiveMessage that is under way is never cancelled: SQS may hand messages to the dead call, and they come
// back only after the visibility timeout. So a poll runs by itself, and what it brings lies in the reader until a Receive
// takes it; when nobody waits any more it is given back at once. While polls come back full, several run at a time.

const (
	pollsMost     = 4                      // ReceiveMessage calls of a queue under way here
	answerTime    = 15 * time.Second       // for an answer, beyond the wait that was asked for
	steady        = 100 * time.Millisecond // a poll that took longer has waited: what it brought says nothing of the rate
	gatherMost    = 20 * time.Millisecond  // how long a poll is put off so that the next one comes back full
	emptyPause    = 10 * time.Millisecond  // after an empty answer that came before its time, and
	emptyMost     = 200 * time.Millisecond // at most, when they follow each other
	overLimitWait = time.Second            // before the next poll when too many messages are in flight, or too many calls
)

// reader is a queue that this process receives from.
type reader struct {
	b     *Broker
	queue string

	queueThere context.Context // ends with the queue, and with it the polls under way: they can lose nothing more
	abandon    context.CancelFunc

	mu      sync.Mutex
	buffer  []received
	polls   int           // under way
	width   int           // polls that may be under way
	waiting int           // Receives that wait
	changed chan struct{} // closed, and replaced, when a poll has ended
	fails   int           // polls that ended with an error
	err     error         // of the last of them
	empties int           // polls in a row that came back empty before their time
	after   time.Time     // no poll starts earlier
	idle    bool          // the last Receive went because its context ended: what comes is given back
	ended   bool          // the broker is closed: likewise, for ever
}

// received is a message of ours that no Receive has taken yet.
type received struct {
	delivery driver.Delivery
	at       time.Time // when its poll was sent, so that its visibility timeout began later
}

// Receive implements driver.Broker.
func (b *Broker) Receive(ctx context.Context, queue string, limit int) ([]driver.Delivery, error) {
	b.mu.Lock()
	r := b.readers[queue]
	if r == nil {
		r = &reader{b: b, queue: queue, width: 1, changed: make(chan struct{})}
		r.queueThere, r.abandon = context.WithCancel(context.Background())
		b.readers[queue] = r
	}
	b.mu.Unlock()
	return r.receive(ctx, limit)
}

func (r *reader) receive(ctx context.Context, limit int) ([]driver.Delivery, error) {
	wait := time.NewTimer(r.b.o.Wait)
	defer wait.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	r.idle = false
	defer func() { r.leave(ctx) }()
	for fails := r.fails; ; {
		if batch := r.take(limit); len(batch) > 0 {
			return batch, nil
		}
		if r.fails != fails {
			return nil, r.err
		}
		if ctx.Err() != nil || r.ended {
			return nil, nil
		}
		pause := time.Until(r.after)
		if pause <= 0 {
			r.poll()
		}
		changed := r.changed
		r.mu.Unlock()
		over := false
		select {
		case <-changed:
		case <-after(pause):
		case <-ctx.Done():
		case <-wait.C:
			over = true
		}
		r.mu.Lock()
		if over {
			return r.take(limit), nil
		}
	}
}

// after is time.After for waits that may be none.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}

// leave notes that a Receive is over. When its context has ended and no other waits, nobody may come for what lies here,
// or is on its way, and it is given back. The caller holds mu.
func (r *reader) leave(ctx context.Context) {
	r.waiting--
	if r.waiting > 0 || ctx.Err() == nil {
		return
	}
	r.idle = true
	if len(r.buffer) > 0 {
		r.b.work.Go(r.giveBack)
	}
}

// take removes up to limit messages from the buffer. What has lain there for long is made ours anew first, so that its
// receiver has the whole of Hold before it, but for a quarter. The caller holds mu, which is let go meanwhile.
func (r *reader) take(limit int) []driver.Delivery {
	n := min(limit, len(r.buffer))
	if n == 0 {
		return nil
	}
	var fresh, old []driver.Delivery
	for _, m := range r.buffer[:n] {
		if time.Since(m.at) < r.b.o.Hold/4 {
			fresh = append(fresh, m.delivery)
		} else {
			old = append(old, m.delivery)
		}
	}
	r.buffer = slices.Delete(r.buffer, 0, n)
	if len(old) == 0 {
		return fresh
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), r.b.o.Hold/4+time.Second)
	lost, err := r.b.Extend(ctx, r.queue, old, r.b.o.Hold)
	cancel()
	r.mu.Lock()
	if err != nil {
		return fresh // the others come again by themselves
	}
	for i, d := range old {
		if !slices.Contains(lost, i) {
			fresh = append(fresh, d)
		}
	}
	return fresh
}

// poll starts what is missing of the polls. The caller holds mu.
func (r *reader) poll() {
	for r.polls < r.width {
		r.polls++
		r.b.work.Go(r.receiveMessages)
	}
}

// receiveMessages is one ReceiveMessage.
func (r *reader) receiveMessages() {
	runtime.Gosched() // what the last poll brought is handled before the processor is needed for the next
	start := time.Now()
	deliveries, err := r.b.receiveMessages(r.queueThere, r.queue)
	took := time.Since(start)
	r.mu.Lock()
	r.polls--
	for _, d := range deliveries {
		r.buffer = append(r.buffer, received{d, start})
	}
	r.pace(len(deliveries), took, err)
	close(r.changed)
	r.changed = make(chan struct{})
	unwanted := r.idle || r.ended
	r.mu.Unlock()
	if unwanted {
		r.giveBack()
	}
}

// pace decides when the next poll starts, and how many. Full polls: more of them. Some messages: they come so fast that a
// moment's patience saves a call. Few: no pause, for they are waited for. The caller holds mu.
func (r *reader) pace(n int, took time.Duration, err error) {
	now := time.Now()
	r.width = 1
	switch f := faultOf(err); {
	case f == throttled:
		r.after = now.Add(overLimitWait)
		r.b.warn("receive "+r.queue, "SQS wants us to wait", "queue", r.queue, "err", err)
	case err != nil:
		r.fails++
		r.err = err
	case n == 0 && took < r.b.o.Wait/2:
		r.empties++
		r.after = now.Add(min(time.Duration(r.empties-1)*emptyPause, emptyMost))
	case n == batchEntries:
		r.width = min(r.polls+2, pollsMost)
		r.empties = 0
	default:
		r.empties = 0
		if n > 2 && took < steady {
			r.after = now.Add(min(took*time.Duration(batchEntries-n)/time.Duration(n), gatherMost))
		}
	}
}

// end has nothing kept any more.
func (r *reader) end() {
	r.mu.Lock()
	r.ended = true
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.giveBack()
}

// giveBack gives back what lies here.
func (r *reader) giveBack() {
	r.mu.Lock()
	var left []driver.Delivery
	for _, m := range r.buffer {
		left = append(left, m.delivery)
	}
	r.buffer = nil
	r.mu.Unlock()
	if len(left) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	if _, err := r.b.Extend(ctx, r.queue, left, 0); err != nil {
		r.b.log.Debug("received messages come again by themselves", "queue", r.queue, "err", err)
	}
}

// receiveMessages asks SQS once. Its context is no receiver's: the call ends when SQS does not answer at all.
func (b *Broker) receiveMessages(queueThere context.Context, queue string) ([]driver.Delivery, error) {
	ctx, cancel := context.WithTimeout(queueThere, b.o.Wait+answerTime)
	defer cancel()
	url, err := b.queueURL(ctx, queue)
	if err != nil {
		return nil, err
	}
	out, err := b.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: batchEntries, WaitTimeSeconds: seconds(b.o.Wait), VisibilityTimeout: seconds(b.o.Hold),
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameApproximateReceiveCount},
	})
	if err != nil {
		err = b.destinationError(driver.Destination{Queue: queue}, err)
		return nil, fmt.Errorf("receive from queue %s: %w", queue, err)
	}
	var deliveries []driver.Delivery
	for i := range out.Messages {
		m := &out.Messages[i]
		if body := aws.ToString(m.Body); m.MD5OfBody != nil && checksum([]byte(body)) != *m.MD5OfBody {
			b.warn("checksum "+queue, "message came damaged and comes again", "queue", queue, "message", aws.ToString(m.MessageId))
			continue
		}
		deliveries = append(deliveries, deliveryOf(m))
	}
	return deliveries, nil
}

func seconds(d time.Duration) int32 { return int32(d / time.Second) }

// destinationError marks errors that are a destination's fault, and forgets its address.
func (b *Broker) destinationError(to driver.Destination, err error) error {
	if faultOf(err) == destination {
		err = fmt.Errorf("%w: %w", driver.ErrDestination, err)
		b.forget(to, err)
	}
	return err
}

// receipt is the driver's own part of a delivery.
type receipt struct {
	handle string
	at     time.Time // when it was received: 12 hours later nothing extends it
}

func deliveryOf(m *sqstypes.Message) driver.Delivery {
	d := driver.Delivery{
		Body: []byte(aws.ToString(m.Body)), Attempt: 1, Receipt: receipt{aws.ToString(m.ReceiptHandle), time.Now()},
	}
	if n, err := strconv.Atoi(m.Attributes[string(sqstypes.MessageSystemAttributeNameApproximateReceiveCount)]); err == nil {
		d.Attempt = max(n, 1)
	}
	for name, value := range m.MessageAttributes {
		if value.StringValue != nil {
			d.Attributes = append(d.Attributes, driver.Attribute{Name: name, Value: *value.StringValue})
		}
	}
	slices.SortFunc(d.Attributes, func(a, b driver.Attribute) int { return strings.Compare(a.Name, b.Name) })
	return d
}
