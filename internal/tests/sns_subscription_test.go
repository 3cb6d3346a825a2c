package tests

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// accepted counts what the broker accepted of a client.
type accepted struct{ n atomic.Int64 }

func (*accepted) Start(ctx context.Context, _ pabal.Step) (context.Context, func(error)) {
	return ctx, func(error) {}
}

func (a *accepted) Count(c pabal.Count) {
	if c.Step == "publish" && c.Result == driver.Accepted.String() {
		a.n.Add(int64(c.N))
	}
}

// TestRecordSubscriptionRemovedWhileRunning removes the subscription by which confirmations come back, behind everybody's back:
// consumers go on, status tells after a minute, one event alone is published again in each republish interval, and once the
// subscription is back everything is confirmed. Of the time that passes only the store knows: its rows grow older.
func TestRecordSubscriptionRemovedWhileRunning(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	broker := openSNS(t, url)
	const interval = 5 * time.Minute
	var published accepted
	order := snsService(t, broker, "order", false, pabal.Options{
		RepublishAfter: interval, PublishTimeout: time.Second, Lease: 3 * time.Second, Sweep: 100 * time.Millisecond, Observer: &published,
	})
	settlement := snsService(t, broker, "settlement", true, pabal.Options{})
	for _, s := range []*snsProcess{order, settlement} {
		if err := s.client.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	recordTicks(t, order, 0, tickKeys)
	settled(t, order, []*snsProcess{settlement}, tickKeys)

	subscribed := driver.Topology{
		Topics: []driver.TopicSpec{{Name: ticked.Topic(), Ordered: true}},
		Queues: []driver.QueueSpec{{Name: "event-record-order", Topics: []string{ticked.Topic()}}},
	}
	unsubscribe(t, url, ticked.Topic(), "event-record-order")
	before := published.n.Load()
	recordTicks(t, order, tickKeys, 2*tickKeys)
	until(t, "all is accepted", func() bool { return published.n.Load() == before+tickKeys })
	until(t, "all is handled", func() bool { return effects(t, settlement) == 2*tickKeys })

	age(t, order, time.Minute+time.Second)
	s, err := order.client.Status(t.Context())
	if err != nil || s.Healthy || len(s.Unconfirmed) == 0 || !strings.Contains(s.Troubles[0].What, "was accepted by the broker and has not come back") {
		t.Fatalf("after a minute status tells %+v, %v", s, err)
	}
	if plan, err := broker.Plan(t.Context(), subscribed); err != nil ||
		!slices.Equal(plan, []string{"create subscription of queue event-record-order to topic ticked"}) {
		t.Errorf("planned: %q, %v", plan, err)
	}
	const intervals = 6
	for i := range int64(intervals) {
		age(t, order, interval)
		until(t, "one goes alone", func() bool { return published.n.Load() > before+tickKeys+i })
	}
	if n := published.n.Load() - before - tickKeys; n != intervals {
		t.Errorf("P3: in %d intervals %d events were published again", intervals, n)
	}

	if err := broker.Check(t.Context(), subscribed, true); err != nil {
		t.Fatal(err)
	}
	age(t, order, interval)
	settled(t, order, []*snsProcess{settlement}, 2*tickKeys)
	if n := published.n.Load() - before; n > 2*tickKeys+intervals {
		t.Errorf("P3: %d publishes of %d events", n, tickKeys)
	}
	checkTicks(t, settlement, 2*tickKeys)
	if s, err := order.client.Status(t.Context()); err != nil || !s.Healthy {
		t.Errorf("healed: %+v, %v", s, err)
	}
}

// age makes everything that a store has pending older.
func age(t *testing.T, s *snsProcess, d time.Duration) {
	t.Helper()
	for _, statement := range []string{
		"update pabal_pending set recorded_at = recorded_at - ?1, due_at = due_at - ?1, accepted_at = accepted_at - ?1, sent_at = sent_at - ?1",
		"update pabal_topic set proven_at = proven_at - ?1, probed_at = probed_at - ?1",
	} {
		if _, err := s.db.ExecContext(t.Context(), statement, d.Microseconds()); err != nil {
			t.Fatal(err)
		}
	}
}

func effects(t *testing.T, s *snsProcess) (n int) {
	t.Helper()
	if err := s.db.QueryRowContext(t.Context(), "select count(*) from effect").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// unsubscribe removes a queue's subscription to a topic as its owner may.
func unsubscribe(t *testing.T, url, topic, queue string) {
	t.Helper()
	client := sns.NewFromConfig(awsConfiguration(url))
	list, err := client.ListSubscriptionsByTopic(t.Context(), &sns.ListSubscriptionsByTopicInput{
		TopicArn: aws.String("arn:aws:sns:us-east-1:000000000000:" + topic),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, subscription := range list.Subscriptions {
		if strings.HasSuffix(*subscription.Endpoint, ":"+queue) {
			if _, err := client.Unsubscribe(t.Context(), &sns.UnsubscribeInput{SubscriptionArn: subscription.SubscriptionArn}); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("queue %s is not subscribed to topic %s", queue, topic)
}
