package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// Canaries, which `pabal topology verify` sends through every subscription. They are no events.

const replyQueue = driver.ReplyPrefix + "scenario"

// sendCanary publishes one to a topic.
func (r *run) sendCanary(w world.World, topic, replyTo string) uuid.UUID {
	id := idByChance(w)
	r.calmly.canaries[id] = true
	at := r.databases["order"].Clock().Format(time.RFC3339Nano)
	body := fmt.Appendf(nil, `{"specversion":"1.0","id":"%s","source":"pabal-verify","type":"%s","topic":"%s","time":"%s","sentat":"%s",
		"replyto":"%s"}`, id, driver.CanaryType, topic, at, at, replyTo)
	r.broker.Connect(w, sim.Direct).Publish(context.Background(), driver.Destination{Topic: topic}, []driver.Message{{
		ID: id, Dedup: id.String() + "/0", Body: body,
		Attributes: []driver.Attribute{{Name: "id", Value: id.String()}, {Name: "type", Value: driver.CanaryType}},
	}})
	return id
}

// sendCanaries sends some that nobody waits for.
func (r *run) sendCanaries(w world.World) {
	for _, replyTo := range []string{replyQueue, "settlement", "no queue's name"} {
		r.sendCanary(w, orderPaid.Topic(), replyTo)
	}
}

// verify sends a canary to each topic: whoever reads a queue that got a copy answers.
func (r *run) verify(w world.World) {
	ctx := context.Background()
	broker := r.broker.Connect(w, sim.Direct)
	if err := broker.Check(ctx, driver.Topology{Queues: []driver.QueueSpec{{Name: replyQueue}}}, true); err != nil {
		_ = r.fail("canaries: %w", err)
	}
	r.sendCanaries(w)
	var owed []string
	for _, topic := range []string{orderPaid.Topic(), orderViewed.Topic()} {
		id := r.sendCanary(w, topic, replyQueue)
		for _, queue := range append(consumersOf, recordQueue) {
			owed = append(owed, id.String()+" through "+queue)
		}
	}
	for range 6 {
		_ = w.Sleep(ctx, 5*time.Second)
		answers, _ := broker.Receive(ctx, replyQueue, 1000) // what is missing is owed
		for i := range answers {
			body := answers[i].Body
			came := field(body, "id") + " through " + field(body, "replyto")
			owed = slices.DeleteFunc(owed, func(one string) bool { return one == came })
		}
		_ = broker.Ack(ctx, replyQueue, answers)
	}
	if len(owed) > 0 {
		_ = r.fail("canaries: nobody has answered to %q", owed)
	}
}
