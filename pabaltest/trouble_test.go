package pabaltest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabaltest"
)

// pay records one event in a transaction.
func pay(post *pabaltest.Post, order *pabaltest.Client, orderNo string) error {
	return post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(context.Background(), tx, orderPaid.New(paid{orderNo, 100}))
	})
}

// audit is a consumer that writes down what it sees.
func audit(client *pabaltest.Client, seen *[]string) {
	pabal.Handle(client.Consumer("audit", nil), orderPaid,
		func(_ context.Context, _ pabaltest.Tx, e pabal.Received[paid]) error {
			*seen = append(*seen, e.Data.OrderNo)
			return nil
		})
}

func ExamplePost_Kill() {
	post := pabaltest.New(inExample{})
	first, second := post.Client("order"), post.Client("order") // two processes on one database
	fmt.Println(pay(post, first, "A1"))
	post.Kill(first) // after COMMIT, before it was published
	post.Settle(15 * time.Second)
	found, _ := second.Events(context.Background(), driver.EventFilter{Limit: 10})
	fmt.Println(len(found), "event, confirmed:", found[0].Pending == nil)
	// Output:
	// <nil>
	// 1 event, confirmed: true
}

func ExamplePost_AnswerNext() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	post.AnswerNext(pabaltest.Again) // the next publish fails
	_ = pay(post, order, "A1")
	start := post.Now()
	post.Settle(time.Minute)
	fmt.Println("published after", post.Now().Sub(start).Round(5*time.Second))
	// Output: published after 10s
}

func ExamplePost_Answer() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	post.Answer(func(m pabaltest.Message) pabaltest.Answer {
		if m.Key == "A1" {
			return pabaltest.Never
		}
		return pabaltest.Accept
	})
	_, _ = pay(post, order, "A1"), pay(post, order, "A2")
	post.Settle(time.Minute)
	status, _ := order.Status(context.Background())
	fmt.Println(len(status.Unconfirmed), "parked:", status.Unconfirmed[0].Event.Key, status.Unconfirmed[0].Pending.LastError)
	// Output: 1 parked: A1 refused by the broker: the test says: never
}

func ExamplePost_Send() {
	post := pabaltest.New(inExample{})
	var seen []string
	audit(post.Client("order"), &seen)
	post.Send("audit", []byte(`{"specversion":"1.0","id":"7","source":"erp","type":"order-pay-done","data":{"OrderNo":"E7"}}`))
	post.Settle(time.Minute)
	fmt.Println(seen)
	// Output: [E7]
}

func ExamplePost_Unsubscribe() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	_ = pay(post, order, "A1")
	post.Settle(time.Minute)
	post.Unsubscribe("event-record-order", "order-pay-done")
	_ = pay(post, order, "A2")
	post.Pass(4 * time.Minute)
	status, _ := order.Status(context.Background())
	fmt.Println(len(status.Unconfirmed), "not confirmed")
	post.Subscribe("event-record-order", "order-pay-done")
	post.Settle(5 * time.Minute)
	// Output: 1 not confirmed
}

func ExamplePost_ClientWith() {
	post := pabaltest.New(inExample{})
	options := &pabal.Options{Lease: time.Minute} // which is what a killed process costs
	order, _ := post.ClientWith("order", options), post.ClientWith("order", options)
	_ = pay(post, order, "A1")
	start := post.Now()
	post.Kill(order)
	post.Settle(2 * time.Minute)
	fmt.Println("published after", post.Now().Sub(start).Round(10*time.Second))
	// Output: published after 1m0s
}

func ExamplePost_Stop() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	var seen []string
	audit(post.Client("settlement"), &seen)
	_ = pay(post, order, "A1")
	fmt.Println(post.Stop(order)) // what Run returned; everything that was queued is published
	post.Pass(time.Second)
	fmt.Println(seen, "by", post.Delivered("audit"), "delivery")
	// Output:
	// <nil>
	// [A1] by 1 delivery
}

func ExamplePost_BrokerAway() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	var seen []string
	audit(order, &seen)
	post.Pass(time.Second)
	post.BrokerAway(time.Minute)
	fmt.Println(pay(post, order, "A1")) // the shop goes on
	post.Pass(50 * time.Second)
	fmt.Println("meanwhile", seen)
	post.Settle(2 * time.Minute)
	fmt.Println("in the end", seen)
	// Output:
	// <nil>
	// meanwhile []
	// in the end [A1]
}

func ExamplePost_DatabaseAway() {
	post := pabaltest.New(inExample{})
	order, settlement := post.Client("order"), post.Client("settlement")
	var seen []string
	audit(settlement, &seen)
	post.Pass(time.Second)
	post.DatabaseAway(settlement, time.Minute) // the consumer's
	_ = pay(post, order, "A1")
	post.Pass(50 * time.Second)
	fmt.Println("meanwhile", seen)
	post.Settle(2 * time.Minute)
	fmt.Println("in the end", seen)
	// Output:
	// meanwhile []
	// in the end [A1]
}

// The caller does not know whether its transaction was committed; Pabal finds out.
func ExamplePost_LoseAnswer() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	var seen []string
	audit(order, &seen)
	post.LoseAnswer(order)
	fmt.Println("an error:", pay(post, order, "A1") != nil)
	post.Settle(time.Minute)
	fmt.Println(seen)
	// Output:
	// an error: true
	// [A1]
}

func ExamplePost_Sleep() {
	post := pabaltest.New(inExample{})
	order := post.Client("order")
	consumer := order.Consumer("audit", &pabal.ConsumerOptions{Timeout: 10 * time.Second})
	pabal.Handle(consumer, orderPaid, func(ctx context.Context, _ pabaltest.Tx, e pabal.Received[paid]) error {
		if e.Attempt == 1 {
			err := post.Sleep(ctx, time.Hour) // too slow
			fmt.Println(err)
			return err
		}
		fmt.Println("try", e.Attempt)
		return nil
	})
	_ = pay(post, order, "A1")
	post.Settle(time.Minute)
	// Output:
	// context deadline exceeded
	// try 2
}

func TestStopEndsTheClientAndSaysWhatItReturned(t *testing.T) {
	post := pabaltest.New(t)
	order, other := post.Client("order"), post.Client("order")
	if err := post.Stop(order); err != nil {
		t.Error(err)
	}
	if err := pay(post, other, "A1"); err != nil {
		t.Error(err)
	}
	post.Settle(time.Minute)
	if err := post.Stop(other); err != nil {
		t.Error(err)
	}
	start := post.Now()
	if post.Pass(time.Hour); post.Now().Sub(start) != time.Hour {
		t.Errorf("%v have passed while no client runs", post.Now().Sub(start))
	}
}

func TestKillInATransactionRollsItBack(t *testing.T) {
	post := pabaltest.New(t)
	order, other := post.Client("order"), post.Client("order")
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		_ = order.Record(t.Context(), tx, orderPaid.New(paid{"A1", 1}))
		post.Kill(order)
		return nil
	})
	if err == nil || len(pabaltest.Recorded(post, orderPaid)) != 0 {
		t.Errorf("%v, recorded %v", err, pabaltest.Recorded(post, orderPaid))
	}
	if err := pay(post, other, "A1"); err != nil { // the key's lock is free
		t.Error(err)
	}
	post.Settle(time.Minute)
}

func TestLoseAnswerCommitsAndSaysOtherwise(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	post.LoseAnswer(order)
	if err := pay(post, order, "A1"); err == nil {
		t.Error("no error")
	}
	if err := pay(post, order, "A2"); err != nil {
		t.Error(err)
	}
	if got := pabaltest.Recorded(post, orderPaid); len(got) != 2 {
		t.Errorf("recorded %v", got)
	}
	post.Settle(time.Second)
}

func TestServersAreAwayForAsLongAsTheTestSays(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	var seen []string
	audit(order, &seen)
	post.Pass(time.Second)
	post.BrokerAway(time.Minute)
	if err := pay(post, order, "A1"); err != nil { // P3: a broker that is away fails no transaction
		t.Error(err)
	}
	post.Pass(50 * time.Second)
	if len(seen) != 0 {
		t.Error("published to a broker that is away")
	}
	post.Settle(2 * time.Minute)
	post.DatabaseAway(order, time.Minute)
	if err := pay(post, order, "A2"); err == nil {
		t.Error("recorded in a database that is away")
	}
	post.Pass(time.Minute)
	if err := pay(post, order, "A2"); err != nil {
		t.Error(err)
	}
	post.Settle(time.Minute)
	if fmt.Sprint(seen) != "[A1 A2]" || post.Delivered("audit") != 2 {
		t.Errorf("handled %v of %d deliveries", seen, post.Delivered("audit"))
	}
}

func TestForgetAcceptsAndDeliversNothing(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	var bodies [][]byte
	post.Answer(func(m pabaltest.Message) pabaltest.Answer {
		bodies = append(bodies, m.Body)
		return pabaltest.Forget
	})
	_ = pay(post, order, "A1")
	post.Pass(10 * time.Second)
	if len(bodies) != 1 || !bytes.Contains(bodies[0], []byte(`"subject":"A1"`)) || post.Delivered("event-record-order") != 0 {
		t.Errorf("published %q, delivered %d", bodies, post.Delivered("event-record-order"))
	}
	post.Answer(nil)
	post.Settle(10 * time.Minute)
}

func TestSleepPassesTimeInAHandler(t *testing.T) {
	post := pabaltest.New(t)
	order := post.Client("order")
	tries := 0
	consumer := order.Consumer("audit", &pabal.ConsumerOptions{Timeout: 10 * time.Second})
	pabal.Handle(consumer, orderPaid, func(ctx context.Context, _ pabaltest.Tx, _ pabal.Received[paid]) error {
		if tries++; tries > 1 {
			return nil
		}
		if err := post.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sleep answers %v", err)
		}
		return ctx.Err()
	})
	_ = pay(post, order, "A1")
	post.Settle(time.Minute)
	if tries != 2 {
		t.Errorf("tried %d times", tries)
	}
}
