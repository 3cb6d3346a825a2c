package pabalnats_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

// publish publishes n messages and answers their bodies.
func publish(t *testing.T, b *pabalnats.Broker, n int) (bodies []string) {
	t.Helper()
	messages := make([]driver.Message, n)
	for i := range messages {
		messages[i] = message(uuid.New())
		bodies = append(bodies, string(messages[i].Body))
	}
	for _, v := range b.Publish(t.Context(), driver.Destination{Topic: "paid"}, messages) {
		if v.Kind != driver.Accepted {
			t.Fatalf("publish: %v", v.Err)
		}
	}
	return bodies
}

// receive receives until there are n, for 20 seconds at most.
func receive(t *testing.T, b *pabalnats.Broker, n int) (all []driver.Delivery) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(all) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages came", len(all), n)
		}
		deliveries, err := b.Receive(t.Context(), "settlement", n-len(all))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, deliveries...)
	}
	return all
}

// eachWay runs a test with the server in this process and elsewhere. open opens the broker again, after it was closed.
func eachWay(t *testing.T, hold time.Duration, test func(t *testing.T, open func() *pabalnats.Broker)) {
	o := &pabalnats.Options{Logger: quiet(), Hold: hold}
	checked := func(t *testing.T, b *pabalnats.Broker, err error) *pabalnats.Broker {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context(), village, true); err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("embedded", func(t *testing.T) {
		dir := t.TempDir()
		test(t, func() *pabalnats.Broker {
			b, err := pabalnats.Open(dir, o)
			return checked(t, b, err)
		})
	})
	t.Run("url", func(t *testing.T) {
		url := startServer(t)
		test(t, func() *pabalnats.Broker {
			b, err := pabalnats.Connect(t.Context(), url, o)
			return checked(t, b, err)
		})
	})
}

// What was fetched and not yet asked for is given back by Close, and comes to the next at once, not after Hold.
func TestFetchedMessagesComeAgainAtOnceAfterClose(t *testing.T) {
	eachWay(t, time.Hour, func(t *testing.T, open func() *pabalnats.Broker) {
		b := open()
		owed := map[string]bool{}
		for _, body := range publish(t, b, 100) {
			owed[body] = true
		}
		handled := receive(t, b, 10) // 90 more lie here, or are on their way
		if err := b.Ack(t.Context(), "settlement", handled); err != nil {
			t.Fatal(err)
		}
		for _, d := range handled {
			delete(owed, string(d.Body))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open()
		for _, d := range receive(t, b, len(owed)) {
			if !owed[string(d.Body)] {
				t.Errorf("message %s came again although it was acknowledged, or twice", d.Body)
			}
			delete(owed, string(d.Body))
		}
		if len(owed) > 0 {
			t.Errorf("%d messages did not come again", len(owed))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A message that the server was just sending when the pull ended is delivered to nobody. The server notes that in memory only:
// one in this process is stopped after it, and would keep the message for Hold.
func TestMessagesThatNobodyGotWhenTheServerStoppedComeAgainAtOnce(t *testing.T) {
	dir, o := t.TempDir(), &pabalnats.Options{Logger: quiet(), Hold: time.Hour, Relaxed: true}
	owed := 0
	for round := range 40 {
		b, err := pabalnats.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context(), village, true); err != nil {
			t.Fatal(err)
		}
		owed += len(publish(t, b, 50))
		if round%2 == 1 {
			all := receive(t, b, owed)
			if err := b.Ack(t.Context(), "settlement", all); err != nil {
				t.Fatal(err)
			}
			owed = 0
		} else {
			ended, end := context.WithCancel(t.Context())
			end()
			got, err := b.Receive(ended, "settlement", 1) // the pull begins, and ends amid what the server sends
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Ack(t.Context(), "settlement", got); err != nil { // one may have come already: that one somebody got
				t.Fatal(err)
			}
			owed -= len(got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What was received and not acknowledged comes again after Hold, with a higher attempt.
func TestReceivedMessagesComeAgainAfterClose(t *testing.T) {
	eachWay(t, time.Second, func(t *testing.T, open func() *pabalnats.Broker) {
		b := open()
		publish(t, b, 5)
		first := map[string]int{}
		for _, d := range receive(t, b, 5) {
			first[string(d.Body)] = d.Attempt
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open()
		for _, d := range receive(t, b, 5) {
			if was, known := first[string(d.Body)]; !known || d.Attempt <= was {
				t.Errorf("message %s: attempt %d, after attempt %d", d.Body, d.Attempt, was)
			}
			delete(first, string(d.Body))
		}
		if len(first) > 0 {
			t.Errorf("%d messages did not come again", len(first))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A server that goes away costs no acknowledged message: publishing says Again within the call's time, and goes on when it is
// back, by itself.
func TestServerThatRestartsLosesNothing(t *testing.T) {
	dir, port := t.TempDir(), server.RANDOM_PORT
	start := func() *server.Server {
		ns, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, SyncAlways: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		ns.Start()
		if !ns.ReadyForConnections(10 * time.Second) {
			t.Fatal("NATS is not ready")
		}
		return ns
	}
	ns := start()
	_, text, err := net.SplitHostPort(ns.Addr().String())
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := pabalnats.Connect(t.Context(), ns.ClientURL(), &pabalnats.Options{Logger: quiet(), Hold: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // of a test
	if err := b.Check(t.Context(), village, true); err != nil {
		t.Fatal(err)
	}
	owed := map[string]bool{}
	for _, body := range publish(t, b, 20) {
		owed[body] = true
	}
	receive(t, b, 1) // a queue is open while the server goes
	ns.Shutdown()
	ns.WaitForShutdown()

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	late := message(uuid.New())
	verdict := b.Publish(ctx, driver.Destination{Topic: "paid"}, []driver.Message{late})[0]
	if took := time.Since(began); verdict.Kind != driver.Again || verdict.Err == nil || took > 3*time.Second {
		t.Errorf("without a server a message is %v after %v: %v", verdict.Kind, took, verdict.Err)
	}

	ns = start()
	defer ns.WaitForShutdown()
	defer ns.Shutdown()
	again := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		v := b.Publish(ctx, driver.Destination{Topic: "paid"}, []driver.Message{late})[0]
		if v.Kind != driver.Accepted {
			return fmt.Errorf("%v: %w", v.Kind, v.Err)
		}
		return nil
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := again()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	owed[string(late.Body)] = true
	for deadline := time.Now().Add(20 * time.Second); len(owed) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d accepted messages did not come", len(owed))
		}
		deliveries, err := b.Receive(t.Context(), "settlement", 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deliveries {
			delete(owed, string(d.Body))
		}
	}
}

// A queue holds messages as long as the options say now, not as they said when it was made.
func TestHoldOfAQueueFollowsTheOptions(t *testing.T) {
	dir := t.TempDir()
	for _, hold := range []time.Duration{time.Hour, time.Second} {
		b, err := pabalnats.Open(dir, &pabalnats.Options{Logger: quiet(), Hold: hold})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context(), village, true); err != nil {
			t.Fatal(err)
		}
		if hold == time.Second {
			publish(t, b, 1)
			if attempts := []int{receive(t, b, 1)[0].Attempt, receive(t, b, 1)[0].Attempt}; attempts[0] != 1 || attempts[1] != 2 {
				t.Errorf("attempts %v", attempts)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
