package pabaltest

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// What a test makes go wrong.

// errKilled is what InTx returns when its process was killed meanwhile.
var errKilled = errors.New("the client's process was killed")

// Kill ends the client's process as kill -9 does: none of its tasks takes a further step, its open transactions roll back.
// Another Client of the same source is another process, or the same one started again. Called from the client's own
// handler, or while the broker is asked by it, Kill does not return.
func (p *Post) Kill(c *Client) {
	p.t.Helper()
	at := p.office(c)
	at.over = true
	at.process.Crash()
}

// Stop ends the client's Run as SIGTERM does in a program, waits for it and returns its error.
func (p *Post) Stop(c *Client) error {
	p.t.Helper()
	p.run()
	at := p.office(c)
	at.over = true
	p.do(at, at.stop)
	p.advance(time.Minute, func() bool { return at.ended })
	if !at.ended {
		p.t.Fatalf("the client of %s has not ended within a minute", at.source)
	}
	return at.err
}

// Answer is what the broker makes of a message.
type Answer int

const (
	Accept Answer = iota // it is stored, and every subscribed queue gets a copy
	Again                // not now
	Never                // this message never
	Forget               // the broker says that it is stored, and no queue gets a copy
)

// Message is what a client publishes.
type Message struct {
	ID    uuid.UUID // the event's
	Topic string    // where it goes, or
	Queue string    // straight to this queue
	Key   string    // the event's
	Dedup string    // the broker drops a second message of the same Dedup within five minutes
	Body  []byte    // CloudEvents JSON
}

// Answer has f decide about every message that is published from now on.
func (p *Post) Answer(f func(Message) Answer) { p.answer = f }

// AnswerNext says what becomes of the next messages, before any function given to Answer is asked: post.AnswerNext(Again)
// makes the next publish fail.
func (p *Post) AnswerNext(answers ...Answer) { p.next = append(p.next, answers...) }

// ask is what the broker calls for each message.
func (p *Post) ask(to driver.Destination, m driver.Message) (v driver.Verdict, forget bool) {
	answer := Accept
	switch {
	case len(p.next) > 0:
		answer = p.next[0]
		p.next = p.next[1:]
	case p.answer != nil:
		answer = p.answer(Message{m.ID, to.Topic, to.Queue, m.Group, m.Dedup, append([]byte(nil), m.Body...)})
	}
	switch answer {
	case Again:
		return driver.Verdict{Err: errors.New("the test says: again")}, false
	case Never:
		return driver.Verdict{Kind: driver.Never, Err: errors.New("the test says: never")}, false
	default:
		return driver.Verdict{Kind: driver.Accepted}, answer == Forget
	}
}

// Send puts a message straight into a queue: a copy of one that Answer saw, or what another program has sent.
func (p *Post) Send(queue string, body []byte) {
	p.t.Helper()
	p.run()
	if !p.broker.Put(queue, body) {
		p.t.Fatalf("there is no queue %s", queue)
	}
}

// Delivered counts the deliveries of a queue's messages so far, repeated ones included.
func (p *Post) Delivered(queue string) int { return p.broker.Delivered(queue) }

// Unsubscribe removes a queue's subscription to a topic at the broker, behind everybody's back.
func (p *Post) Unsubscribe(queue, topic string) { p.broker.Unsubscribe(queue, topic) }

// Subscribe puts a subscription back.
func (p *Post) Subscribe(queue, topic string) {
	t := driver.Topology{
		Topics: []driver.TopicSpec{{Name: topic}}, Queues: []driver.QueueSpec{{Name: queue, Topics: []string{topic}}},
	}
	if err := p.broker.Connect(p.world, sim.Direct).Check(context.Background(), t, true); err != nil {
		p.t.Fatalf("subscribe %s to %s: %v", queue, topic, err)
	}
}

// BrokerAway makes the broker unreachable for d, beginning now.
func (p *Post) BrokerAway(d time.Duration) { p.sim.Outage("broker", d) }

// DatabaseAway makes the client's database unreachable for d, beginning now.
func (p *Post) DatabaseAway(c *Client, d time.Duration) {
	p.sim.Outage("database-"+p.office(c).source, d)
}

// LoseAnswer loses the answer to the next COMMIT of the client's process: Commit returns an error, although the database
// has committed.
func (p *Post) LoseAnswer(c *Client) { p.office(c).loseAnswer = true }

// Sleep lets d pass inside of a handler or of a transaction's function, or until ctx ends.
func (p *Post) Sleep(ctx context.Context, d time.Duration) error { return p.world.Sleep(ctx, d) }

// link is the way from a client to its database.
type link struct {
	sim.Link
	office *office
}

func (l link) Call(ctx context.Context, c sim.Call, effect func() error) error {
	err := l.Link.Call(ctx, c, effect)
	if c.What == "commit" && err == nil && l.office.loseAnswer {
		l.office.loseAnswer = false
		return sim.ErrLost
	}
	return err
}

// start runs the office's client.
func (f *office) start(ctx context.Context, failed func(error)) {
	f.process.Go("run", func(world.World) {
		f.err = f.client.Run(ctx)
		if f.ended = true; f.err != nil && !f.over {
			failed(f.err)
		}
	})
}
