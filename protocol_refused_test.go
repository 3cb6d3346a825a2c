package pabal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabaltest"
)

// TestWhatIsWrongAboutConsumersIsSaidByRun: registering has no error to return.
func TestWhatIsWrongAboutConsumersIsSaidByRun(t *testing.T) {
	for want, register := range map[string]func(c *pabaltest.Client){
		"type order-pay-done has two handlers": func(c *pabaltest.Client) {
			consumer := c.Consumer("settlement", nil)
			pabal.Handle(consumer, OrderPaid, nil)
			pabal.Handle(consumer, OrderPaid, nil)
		},
		"consumer settlement is made twice": func(c *pabaltest.Client) {
			pabal.Handle(c.Consumer("settlement", nil), OrderPaid, nil)
			pabal.Handle(c.Consumer("settlement", nil), OrderPaid, nil)
		},
		"consumer settlement has no handler": func(c *pabaltest.Client) { c.Consumer("settlement", nil) },
	} {
		client := newProtocol(t).Client("settlement")
		register(client)
		if err := client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run answers %v, want %s", err, want)
		}
	}
}

func TestRunIsCalledOnce(t *testing.T) {
	p := newProtocol(t)
	client := p.Client("settlement")
	p.Pass(time.Second) // a Post runs its clients
	if err := client.Run(t.Context()); err == nil || err.Error() != "Run was called before" {
		t.Errorf("Run answers %v", err)
	}
}

// TestTypesOfATopicShareItsOrder: at a consumer, too, one of them that has a key makes the topic an ordered one.
func TestTypesOfATopicShareItsOrder(t *testing.T) {
	client := newProtocol(t).Client("settlement")
	consumer := client.Consumer("settlement", nil)
	pabal.Handle(consumer, pabal.Define[Paid]("order-seen").On("order-pay-done"), nil)
	pabal.Handle(consumer, OrderPaid, nil)
	topology := client.Topology()
	if len(topology.Topics) != 1 || !topology.Topics[0].Ordered {
		t.Errorf("%+v", topology.Topics)
	}
}

// TestPayloadThatDoesNotDecodeIsAFailureOfTheHandler: the type was defined in another way by who sent it.
func TestPayloadThatDoesNotDecodeIsAFailureOfTheHandler(t *testing.T) {
	for name, register := range map[string]func(c *pabal.Consumer[pabaltest.Tx]){
		"one": func(c *pabal.Consumer[pabaltest.Tx]) {
			pabal.Handle(c, pabal.Define[[]int]("order-viewed"), func(context.Context, pabaltest.Tx, pabal.Received[[]int]) error { return nil })
		},
		"batch": func(c *pabal.Consumer[pabaltest.Tx]) {
			pabal.HandleBatch(c, pabal.Define[[]int]("order-viewed"),
				func(context.Context, pabaltest.Tx, []pabal.Received[[]int]) error { return nil })
		},
	} {
		p := newProtocol(t)
		client := p.Client("settlement")
		register(client.Consumer("settlement", &pabal.ConsumerOptions{Tries: 1}))
		p.record(view(1))
		p.Settle(time.Minute)
		rows := p.received(client)
		if len(rows) != 1 || rows[0].State != driver.Parked || !strings.Contains(rows[0].LastError, "payload of order-viewed does not decode") {
			t.Errorf("%s: kept %+v", name, rows)
		}
	}
}

// TestRawPayloadsArriveAsTheyAre: binary ones to the byte, JSON ones as they were written.
func TestRawPayloadsArriveAsTheyAre(t *testing.T) {
	binary, text := pabal.Define[[]byte]("order-scanned"), pabal.Define[json.RawMessage]("order-noted")
	p := newProtocol(t)
	client := p.Client("archive")
	var gotBinary, gotText []byte
	consumer := client.Consumer("archive", nil)
	pabal.Handle(consumer, binary, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[[]byte]) error {
		gotBinary = e.Data
		return nil
	})
	pabal.Handle(consumer, text, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[json.RawMessage]) error {
		gotText = e.Data
		return nil
	})
	p.record(binary.New([]byte("\x00\xff\n")), text.New(json.RawMessage(`{"a": 1.0}`)))
	p.Settle(time.Minute)
	if !bytes.Equal(gotBinary, []byte("\x00\xff\n")) || string(gotText) != `{"a": 1.0}` {
		t.Errorf("%q, %q", gotBinary, gotText)
	}
}
