package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

type orderOf struct {
	OrderNo string `json:"orderNo"`
	Note    string `json:"note"`
}

// What Pabal puts on the wire is read, found valid and written again by the CloudEvents SDK, and Pabal then takes that
// for the same event: whatever the payload, key and headers.
func TestCloudEventsSDKReadsWhatPabalWritesAndPabalReadsWhatItMakesOfThat(t *testing.T) {
	typed := pabal.Define("order-pay-done", pabal.Key(func(o orderOf) string { return o.OrderNo })).Version("2")
	binary := pabal.Define[[]byte]("order-receipt")
	data := orderOf{OrderNo: "주문 \"1\"", Note: "a\u0000b\ufffe\U0001F600 </script>"}
	scan := []byte{0, 1, 2, 0xff, 0xfe}

	post := pabaltest.New(t)
	order, reader := post.Client("order"), post.Client("reader")
	consumer := reader.Consumer("reader", nil)
	var got []pabal.Received[orderOf]
	pabal.Handle(consumer, typed, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[orderOf]) error {
		got = append(got, e)
		return nil
	})
	var files [][]byte
	pabal.Handle(consumer, binary, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[[]byte]) error {
		files = append(files, e.Data)
		return nil
	})
	var written [][]byte
	post.Answer(func(m pabaltest.Message) pabaltest.Answer { // what the SDK makes of it arrives instead
		written = append(written, m.Body)
		return pabaltest.Forget
	})
	err := post.InTx(order, func(tx pabaltest.Tx) error {
		return order.Record(t.Context(), tx, typed.New(data).With("tenant", "kr"), typed.New(data), binary.New(scan))
	})
	if err != nil {
		t.Fatal(err)
	}
	post.Pass(time.Second)
	if len(written) != 3 {
		t.Fatalf("%d messages were published", len(written))
	}
	for _, body := range written { // with key and without, in any order
		var e cloudevents.Event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("the SDK cannot read %s: %v", body, err)
		}
		if err := e.Validate(); err != nil {
			t.Errorf("the SDK finds %s invalid: %v", body, err)
		}
		if e.Source() != "order" || e.SpecVersion() != "1.0" || e.Time().IsZero() || e.Extensions()["sentat"] == nil {
			t.Errorf("the SDK reads %v", e)
		}
		if _, err := uuid.Parse(e.ID()); err != nil {
			t.Errorf("the id is %q: %v", e.ID(), err)
		}
		if e.Type() == "order-receipt" {
			if !bytes.Equal(e.Data(), scan) {
				t.Errorf("the SDK reads %x of type %s", e.Data(), e.Type())
			}
		} else {
			var as orderOf
			if err := e.DataAs(&as); err != nil || as != data || e.Subject() != data.OrderNo || e.Extensions()["dataversion"] != "2" {
				t.Errorf("the SDK reads %+v with subject %q and extensions %v (%v)", as, e.Subject(), e.Extensions(), err)
			}
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		post.Send("reader", again)
	}
	post.Pass(time.Second)
	if len(got) != 2 || len(files) != 1 || !bytes.Equal(files[0], scan) {
		t.Fatalf("Pabal took %d and %d of the SDK's", len(got), len(files))
	}
	first, second := got[0], got[1]
	if first.Data != data || first.Source != "order" || first.Key != data.OrderNo || first.Version != "2" || first.Headers["tenant"] != "kr" ||
		first.RecordedAt.IsZero() || second.Position != first.Position+1 {
		t.Errorf("Pabal took %+v, then %+v", first, second)
	}
}

// What another program makes with the SDK is handled once for each (source, id), in any order.
func TestPabalHandlesWhatTheCloudEventsSDKWrites(t *testing.T) {
	legacy := pabal.Define[orderOf]("com.example.order.shipped").On("order-shipped")
	post := pabaltest.New(t)
	reader := post.Client("reader")
	var got []pabal.Received[orderOf]
	pabal.Handle(reader.Consumer("reader", nil), legacy, func(_ context.Context, _ pabaltest.Tx, e pabal.Received[orderOf]) error {
		got = append(got, e)
		return nil
	})
	event := func(id, source string) []byte {
		e := cloudevents.NewEvent()
		e.SetID(id)
		e.SetSource(source)
		e.SetType("com.example.order.shipped")
		e.SetSubject("A1")
		e.SetTime(post.Now())
		e.SetExtension("comexampleothernumber", 7)
		if err := e.SetData(cloudevents.ApplicationJSON, orderOf{OrderNo: "A1"}); err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	for _, body := range [][]byte{
		event("A-1", "https://erp.example.com/orders"), event("A-2", "https://erp.example.com/orders"),
		event("A-1", "https://erp.example.com/orders"), event("A-1", "/other"),
	} {
		post.Send("reader", body)
	}
	post.Pass(time.Second)
	if len(got) != 3 {
		t.Fatalf("%d of 3 different events were handled", len(got))
	}
	if e := got[0]; e.Source != "https://erp.example.com/orders" || e.Data.OrderNo != "A1" || e.Position != 0 {
		t.Errorf("received %+v", e)
	}
}
