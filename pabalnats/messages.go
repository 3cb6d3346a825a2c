package pabalnats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
)

// Publish implements driver.Broker: all messages are sent before the first answer is awaited, or as an atomic batch.
func (b *Broker) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	verdicts := make([]driver.Verdict, len(messages))
	if err := b.connected(ctx); err != nil {
		return refused(verdicts, err)
	}
	subject := b.topicSubject(to.Topic)
	if to.Queue != "" {
		subject = b.queueSubject(to.Queue)
		if err := b.exists(ctx, to.Queue); err != nil {
			return refused(verdicts, err)
		}
	}
	if v, done := b.publishAtomically(ctx, subject, messages); done {
		for i := range verdicts {
			verdicts[i] = v
		}
		return verdicts
	}
	answers := make([]jetstream.PubAckFuture, len(messages))
	for i := range messages {
		if err := ctx.Err(); err != nil { // a network that takes nothing holds each write up
			verdicts[i].Err = err
			continue
		}
		answers[i], verdicts[i] = b.send(subject, &messages[i])
	}
	for i, answer := range answers {
		if answer == nil {
			continue
		}
		select {
		case <-answer.Ok():
			verdicts[i] = driver.Verdict{Kind: driver.Accepted}
		case err := <-answer.Err():
			verdicts[i] = verdictOf(err)
		case <-ctx.Done():
			verdicts[i] = driver.Verdict{Err: ctx.Err()}
		}
	}
	return verdicts
}

// refused is verdicts on messages none of which was sent.
func refused(verdicts []driver.Verdict, err error) []driver.Verdict {
	for i := range verdicts {
		verdicts[i].Err = err
	}
	return verdicts
}

func (b *Broker) send(subject string, m *driver.Message) (jetstream.PubAckFuture, driver.Verdict) {
	msg, v := b.message(subject, m)
	if msg == nil {
		return nil, v
	}
	future, err := b.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
	if err != nil {
		if errors.Is(err, nats.ErrMaxPayload) { // with its attributes
			err = tooLarge(len(m.Body), b.conn.MaxPayload())
			return nil, driver.Verdict{Kind: driver.Never, Err: err}
		}
		return nil, verdictOf(err)
	}
	return future, driver.Verdict{}
}

// message is what is sent; nil with a verdict: the server takes no such message.
func (b *Broker) message(subject string, m *driver.Message) (*nats.Msg, driver.Verdict) {
	if most := b.conn.MaxPayload(); most > 0 && int64(len(m.Body)) > most { // 0: never connected
		return nil, driver.Verdict{Kind: driver.Never, Err: tooLarge(len(m.Body), most)}
	}
	msg := &nats.Msg{Subject: subject, Data: append([]byte(nil), m.Body...), Header: nats.Header{}} // sent after we return, perhaps
	for _, a := range m.Attributes {
		msg.Header[a.Name] = []string{a.Value}
	}
	msg.Header[jetstream.ExpectedStreamHeader] = []string{b.o.Stream}
	if m.Dedup != "" {
		msg.Header[jetstream.MsgIDHeader] = []string{m.Dedup}
	}
	return msg, driver.Verdict{}
}

func tooLarge(size int, most int64) error {
	return fmt.Errorf("message of %d bytes and its attributes: the server takes %d at most (its max_payload)", size, most)
}

// Codes of the server's errors that nats.go has no name for.
const (
	noResources jetstream.ErrorCode = 10023 // a limit of the server or the account
	noStorage   jetstream.ErrorCode = 10047 // the server's, or its disk's
	notStored   jetstream.ErrorCode = 10077 // the stream's own limits, or a failed write
)

// verdictOf says what an error means for a message. What is not known is Again.
func verdictOf(err error) driver.Verdict {
	var code jetstream.ErrorCode
	if api := new(jetstream.APIError); errors.As(err, &api) {
		code = api.ErrorCode
	}
	switch {
	case code == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return driver.Verdict{Kind: driver.Never, Err: fmt.Errorf("the stream's max_msg_size: %w", err)}
	case errors.Is(err, nats.ErrBadHeaderMsg):
		return driver.Verdict{Kind: driver.Never, Err: err}
	case code == noResources, code == noStorage, code == notStored:
		return driver.Verdict{Err: fmt.Errorf("the stream has no room: raise its limits, give the server space, or let queues drain: %w", err)}
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders): // deleted, or without a leader: the next Check tells
		return driver.Verdict{Err: fmt.Errorf("%w: no stream takes the message: %w", driver.ErrDestination, err)}
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrPermissionViolation), code == jetstream.JSErrCodeStreamNotFound:
		return driver.Verdict{Err: fmt.Errorf("%w: %w", driver.ErrDestination, err)}
	default:
		return driver.Verdict{Err: err}
	}
}

// exists looks a queue up, once: what is sent to a queue that nobody made would be dropped, and accepted.
func (b *Broker) exists(ctx context.Context, name string) error {
	b.mu.Lock()
	known := b.known[name]
	b.mu.Unlock()
	if known {
		return nil
	}
	_, err := b.js.Consumer(ctx, b.o.Stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: no queue %s", driver.ErrDestination, name)
	}
	if err == nil {
		b.mu.Lock()
		b.known[name] = true
		b.mu.Unlock()
	}
	return err
}

// queue is a queue that this process receives from: one standing pull, whose messages lie here until they are asked for.
type queue struct {
	conn     *nats.Conn
	consumer jetstream.Consumer
	embedded bool // the server ends with us
	hold     time.Duration
	consume  jetstream.ConsumeContext

	mu     sync.Mutex
	buffer []buffered
	last   jetstream.Msg // that came in
	closed bool
	more   chan struct{} // holds one: something is in the buffer
	room   *sync.Cond
}

type buffered struct {
	msg jetstream.Msg
	at  time.Time
}

func (b *Broker) queue(ctx context.Context, name string) (*queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[name]; q != nil {
		return q, nil
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiveWait) // ctx's end is no error
	defer cancel()
	c, err := b.js.Consumer(call, b.o.Stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: no queue %s", driver.ErrDestination, name)
	}
	if err != nil {
		return nil, fmt.Errorf("look up queue %s: %w", name, err)
	}
	q := &queue{conn: b.conn, consumer: c, embedded: b.embedded != nil, hold: b.o.Hold, more: make(chan struct{}, 1)}
	q.room = sync.NewCond(&q.mu)
	q.consume, err = c.Consume(q.put, jetstream.PullMaxMessages(prefetch), jetstream.ConsumeErrHandler(
		func(_ jetstream.ConsumeContext, err error) {
			if ends(err) {
				b.forget(name, q)
			}
			b.o.Logger.Warn("NATS queue", "queue", name, "err", err)
		}))
	if err != nil {
		return nil, fmt.Errorf("receive from queue %s: %w", name, err)
	}
	b.queues[name] = q
	return q, nil
}

// ends tells whether nats.go pulls no more after an error.
func ends(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrBadRequest)
}

// forget gives up a queue whose consumer is gone; the next Receive says so, or finds a new one.
func (b *Broker) forget(name string, q *queue) {
	b.mu.Lock()
	if b.queues[name] == q {
		delete(b.queues, name)
	}
	delete(b.known, name)
	b.mu.Unlock()
	go q.close() // stopping waits for the handler that calls us
}

// put takes a message in; while the buffer is full it blocks, and with it the pull.
func (q *queue) put(msg jetstream.Msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buffer) >= prefetch && !q.closed {
		q.room.Wait()
	}
	q.buffer = append(q.buffer, buffered{msg, time.Now()})
	q.last = msg
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take removes up to limit messages. One that has lain here for long is extended; one whose time may be over comes again.
func (q *queue) take(limit int) (deliveries []driver.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for ; n < len(q.buffer) && len(deliveries) < limit; n++ {
		b := q.buffer[n]
		age := time.Since(b.at)
		if age > q.hold*9/10 {
			continue
		}
		if age > q.hold/4 && b.msg.InProgress() != nil {
			continue
		}
		deliveries = append(deliveries, delivery(b.msg))
	}
	clear(q.buffer[:n])
	q.buffer = q.buffer[n:]
	if len(q.buffer) > 0 {
		q.signal()
	}
	q.room.Broadcast()
	return deliveries
}

func delivery(msg jetstream.Msg) driver.Delivery {
	d := driver.Delivery{Body: msg.Data(), Attempt: 1, Receipt: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.Attempt = int(meta.NumDelivered)
	}
	for name, values := range msg.Headers() {
		if !strings.HasPrefix(name, "Nats-") && len(values) > 0 {
			d.Attributes = append(d.Attributes, driver.Attribute{Name: name, Value: values[0]})
		}
	}
	return d
}

// close stops the pull and gives back what lies here, and what was on its way.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.room.Broadcast()
	q.mu.Unlock()
	wait, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	q.consume.Drain()
	select {
	case <-q.consume.Closed():
	case <-wait.Done(): // the server is away: what it holds for us comes again when its time is over
	}
	if q.embedded {
		q.fetch(wait, 1) // its answer stands behind all that was being sent, so the server knows by then what nobody got
		q.fetch(wait, prefetch)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range q.buffer {
		_ = giveBack(b.msg)
	}
	if q.last != nil {
		// Acknowledgements are taken in their order: once this one is answered, so are all before it, and a server in this
		// process may go. If the message is no longer ours nothing happens to it.
		_, _ = q.conn.RequestWithContext(wait, q.last.Reply(), []byte("-NAK "+givenBack.String()))
	}
	q.buffer = nil
	q.signal()
}

// fetch brings in what the server has for us right now: first what it was sending when the pull ended. It notes only in memory
// that nobody got that, so once it has stopped only the end of Hold would bring it again.
func (q *queue) fetch(ctx context.Context, most int) {
	batch, err := q.consumer.FetchNoWait(most)
	if err != nil {
		return
	}
	for {
		select {
		case msg, more := <-batch.Messages():
			if !more {
				return
			}
			q.put(msg)
		case <-ctx.Done():
			return
		}
	}
}

// giveBack has a message delivered to anyone. JetStream forgets a Nak without a delay when it restarts.
func giveBack(msg jetstream.Msg) error { return msg.NakWithDelay(givenBack) }

// Receive implements driver.Broker.
func (b *Broker) Receive(ctx context.Context, name string, limit int) ([]driver.Delivery, error) {
	q, err := b.queue(ctx, name)
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(receiveWait)
	defer wait.Stop()
	for {
		if deliveries := q.take(limit); len(deliveries) > 0 {
			return deliveries, nil
		}
		select {
		case <-q.more:
		case <-wait.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// Ack implements driver.Broker.
func (b *Broker) Ack(_ context.Context, queue string, deliveries []driver.Delivery) error {
	for _, d := range deliveries {
		if err := d.Receipt.(jetstream.Msg).Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return fmt.Errorf("acknowledge to queue %s: %w", queue, err)
		}
	}
	return nil
}

// Extend implements driver.Broker. JetStream does not tell when a message is no longer ours: a redelivery shows it.
func (b *Broker) Extend(_ context.Context, queue string, deliveries []driver.Delivery, d time.Duration) ([]int, error) {
	for _, one := range deliveries {
		msg := one.Receipt.(jetstream.Msg)
		var err error
		if d > 0 {
			err = msg.InProgress()
		} else {
			err = giveBack(msg)
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return nil, fmt.Errorf("extend messages of queue %s: %w", queue, err)
		}
	}
	return nil, nil
}
