package pabalsns_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/brokertest"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

func send(t *testing.T, b *pabalsns.Broker, n int) {
	t.Helper()
	for from := 0; from < n; from += 10 {
		var texts []string
		for i := from; i < min(from+10, n); i++ {
			texts = append(texts, fmt.Sprint(i))
		}
		for _, v := range b.Publish(t.Context(), paid, messages(texts...)) {
			if v.Kind != driver.Accepted {
				t.Fatal(v.Err)
			}
		}
	}
}

// receive receives until n messages have come.
func receive(t *testing.T, b *pabalsns.Broker, n int) (all []driver.Delivery) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(all) < n; {
		got, err := b.Receive(t.Context(), "settlement", 10)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, got...); time.Now().After(deadline) {
			t.Fatalf("%d of %d messages came", len(all), n)
		}
	}
	return all
}

// Too many messages in flight, and too many calls, are waited for; they are no errors.
func TestBackpressureOfSQSIsWaitedFor(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	proxy.Script("ReceiveMessage", hostile.Refusal(false, http.StatusForbidden, "OverLimit"),
		hostile.Refusal(false, http.StatusBadRequest, "RequestThrottled"))
	send(t, b, 1)
	start := time.Now()
	receive(t, b, 1)
	if took, n := time.Since(start), proxy.Calls()["ReceiveMessage"]; took < 2*time.Second || n > 3 {
		t.Errorf("it came after %v and %d calls", took, n)
	}
}

// A message that came damaged is not handed on.
func TestDamagedMessageIsNotHandedOn(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	proxy.Script("ReceiveMessage", jsonAnswer(`{"Messages":[
		{"MessageId":"1","ReceiptHandle":"r","Body":"damaged","MD5OfBody":"0cc175b9c0f1b6a831c399e269772661"},
		{"MessageId":"2","ReceiptHandle":"s","Body":"a","MD5OfBody":"0cc175b9c0f1b6a831c399e269772661","Attributes":{"ApproximateReceiveCount":"7"}}]}`))
	got, err := b.Receive(t.Context(), "settlement", 10)
	if err != nil || len(got) != 1 || string(got[0].Body) != "a" || got[0].Attempt != 7 {
		t.Errorf("received %v, %v", got, err)
	}
}

// A receive that nobody waits for any more goes on, and gives back what it brings: it comes at once, not after Hold.
func TestReceiveInFlightIsNotCancelled(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{Hold: time.Hour, Wait: 20 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		got, err := b.Receive(ctx, "settlement", 10)
		if len(got) > 0 {
			err = fmt.Errorf("%d messages came from nowhere", len(got))
		}
		done <- err
	}()
	for proxy.Calls()["ReceiveMessage"] == 0 {
		<-time.After(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	send(t, b, 1) // to the dead call
	other := open(t, proxy.URL, pabalsns.Options{Wait: time.Second})
	start := time.Now()
	if got := receive(t, other, 1); got[0].Attempt != 2 {
		t.Errorf("attempt %d: nobody had it before", got[0].Attempt)
	}
	t.Logf("given back after %v", time.Since(start))
}

// What waits here when the broker closes is given back, and acknowledgements that wait are sent.
func TestCloseGivesBackAndAcknowledges(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{Hold: time.Hour})
	send(t, b, 10)
	got, err := b.Receive(t.Context(), "settlement", 4) // six wait here
	if err != nil || len(got) != 4 {
		t.Fatal(len(got), err)
	}
	if err := b.Ack(t.Context(), "settlement", got[:3]); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n := proxy.Calls()["DeleteMessageBatch"]; n != 1 {
		t.Errorf("%d calls acknowledged", n)
	}
	receive(t, open(t, proxy.URL, pabalsns.Options{}), 6)
}

// Acknowledgements go in tens, also when they come one by one.
func TestAcknowledgementsGoInTens(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{Hold: time.Hour})
	send(t, b, 100)
	for _, d := range receive(t, b, 100) {
		if err := b.Ack(t.Context(), "settlement", []driver.Delivery{d}); err != nil {
			t.Fatal(err)
		}
	}
	if n := proxy.Calls()["DeleteMessageBatch"]; n < 10 || n > 12 {
		t.Errorf("100 acknowledgements in %d calls", n)
	}
	if n := proxy.Calls()["ReceiveMessage"]; n > 13 {
		t.Errorf("100 messages in %d receives", n)
	}
}

// A call that names a receipt twice may be refused with all that it brings: whoever acknowledges twice is not told to SQS twice.
func TestAcknowledgedTwiceIsDeletedOnce(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{Hold: time.Hour})
	send(t, b, 6)
	got := receive(t, b, 6)
	for range 2 {
		if err := b.Ack(t.Context(), "settlement", got); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n := proxy.Calls()["DeleteMessageBatch"]; n != 1 {
		t.Errorf("6 messages in %d calls", n)
	}
}

// A delete that failed, or was lost, is tried again; one of a receipt that is not ours any more is not.
func TestFailedAcknowledgementsAreTriedAgain(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{Hold: 2 * time.Second})
	send(t, b, 10)
	got := receive(t, b, 10)
	proxy.Script("DeleteMessageBatch",
		jsonAnswer(`{"Successful":[],"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}`),
		hostile.Refusal(false, http.StatusServiceUnavailable, "ServiceUnavailable"))
	if err := b.Ack(t.Context(), "settlement", got); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	other := open(t, proxy.URL, pabalsns.Options{Hold: 2 * time.Second})
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if again, err := other.Receive(t.Context(), "settlement", 10); err != nil || len(again) > 0 {
			t.Fatalf("%d messages came again, %v", len(again), err)
		}
	}
	if n := proxy.Calls()["DeleteMessageBatch"]; n != 3 {
		t.Errorf("%d calls", n)
	}
}

// Extend tells what is no longer ours: receipts that SQS does not take, and whatever was received 12 hours ago.
func TestExtendTellsWhatIsLost(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	send(t, b, 6)
	got := receive(t, b, 6)
	failed := func(id, code string) string { return fmt.Sprintf(`{"Id":%q,"Code":%q,"SenderFault":true}`, id, code) }
	proxy.Script("ChangeMessageVisibilityBatch", jsonAnswer(`{"Successful":[{"Id":"0"}],"Failed":[`+
		failed("1", "ReceiptHandleIsInvalid")+","+failed("2", "MessageNotInflight")+","+failed("3", "InvalidParameterValue")+`,
		{"Id":"4","Code":"InternalError","SenderFault":false},`+failed("5", "RequestThrottled")+`]}`))
	lost, err := b.Extend(t.Context(), "settlement", got, time.Minute)
	if !slices.Equal(lost, []int{1, 2, 3}) || err == nil {
		t.Errorf("lost %v, %v", lost, err)
	}
	got[1] = pabalsns.ReceivedAt(got[1], time.Now().Add(-12*time.Hour))
	lost, err = b.Extend(t.Context(), "settlement", got, time.Minute)
	if !slices.Equal(lost, []int{1}) || err != nil {
		t.Errorf("after 12 hours: lost %v, %v", lost, err)
	}
	proxy.Script("ChangeMessageVisibilityBatch", jsonAnswer(`{"Successful":[],"Failed":[]}`))
	if lost, err = b.Extend(t.Context(), "settlement", got[2:], time.Minute); len(lost) > 0 || err == nil {
		t.Errorf("an answer without entries: lost %v, %v", lost, err)
	}
}

// Behind a proxy that misbehaves mildly the contract still holds where it can be checked: calls that are slow, and receives that are
// short and shuffled.
func TestConformanceOnHostileFauxqs(t *testing.T) {
	proxy := hostile.Start(t, servers.Fauxqs(t, false).URL, 7, hostile.Rates{
		Short: 0.2, Shuffled: 0.3, Delayed: 0.1, DelayMost: 50 * time.Millisecond,
	})
	brokertest.Run(t, harness(proxy.URL, pabalsns.Options{}))
}
