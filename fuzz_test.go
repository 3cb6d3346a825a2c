package pabal

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/pabal-go/pabal/driver"
)

// FuzzWire: whatever lies in a queue is read or called unreadable, and what was read is written so that it reads the same.
//
//	go test -fuzz FuzzWire -fuzztime 10s .
func FuzzWire(f *testing.F) {
	full := wireEvent([]byte(`{"a":[1,"\u00e9\"",{}]}`), contentJSON)
	binary := wireEvent([]byte{0, 0xff}, contentBinary)
	for _, body := range [][]byte{
		full.append(nil), binary.append(nil), nil, []byte(`{}`), []byte(`[]`),
		[]byte(`{"specversion":"1.0","id":"A-1","source":"/legacy","type":"com.example.x","data":{"a":1},"position":"7"}`),
		[]byte(`{"specversion":"1.0","id":"` + full.ID.String() + `","source":"order","type":"a","topic":"a","data_base64":"!"}`),
	} {
		f.Add(body, "", "")
	}
	f.Add([]byte(`{"a":1}`), "times", "2026-11-25T00:00:00Z 2026-11-25T00:00:01Z order-pay-done")
	f.Fuzz(func(t *testing.T, body []byte, name, value string) {
		d := &driver.Delivery{Body: body, Attributes: []driver.Attribute{
			{Name: "id", Value: full.ID.String()}, {Name: "source", Value: "order"}, {Name: "type", Value: "a"}, {Name: name, Value: value},
		}}
		var e envelope
		if err := e.read(d, nil); err != nil {
			if !errors.Is(err, errUnreadable) {
				t.Fatalf("%q is neither read nor unreadable: %v", body, err)
			}
			return
		}
		if e.foreign || e.Bare {
			return // nobody writes those again
		}
		again, err := decode(e.append(nil))
		if err != nil {
			t.Fatalf("%q was read as %+v, and not again: %v", body, e, err)
		}
		if again.ID != e.ID || again.Source != e.Source || again.Type != e.Type || again.Topic != e.Topic || again.Key != e.Key ||
			again.Position != e.Position || again.Prev.ID != e.Prev.ID || again.Skipped != e.Skipped || again.Job != e.Job {
			t.Fatalf("%+v came back as %+v", e, again)
		}
		if utf8.Valid(e.Payload) == utf8.Valid(again.Payload) && !e.Skipped && e.ContentType != contentJSON && !bytes.Equal(e.Payload, again.Payload) {
			t.Fatalf("payload %q came back as %q", e.Payload, again.Payload)
		}
	})
}

// FuzzTraceparent: what a header holds is carried only if it is one.
func FuzzTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if validTraceparent(text) && !plain(text) {
			t.Fatalf("%q is carried", text)
		}
	})
}

// FuzzRedelivery: a selection is refused, or what the store keeps of it is what was asked for.
func FuzzRedelivery(f *testing.F) {
	f.Add([]byte(`{"topic":"order-pay-done","key":"A1","from":"2026-11-25T00:00:00Z","rate":7,"why":"lost"}`))
	f.Add([]byte(`{"ids":["0192f5d4-0000-7000-8000-000000000000"],"consumer":"settlement","again":true}`))
	f.Add([]byte(`{"rate":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r, kept Redelivery
		if json.Unmarshal(text, &r) != nil || r.check() != nil {
			return
		}
		if r.Topic == "" && len(r.IDs) == 0 || r.Rate < 1 || r.Rate > 10_000 || len(r.IDs) > maxRecord || len(r.Why) > 500 {
			t.Fatalf("%s is taken as %+v", text, r)
		}
		if !utf8.ValidString(r.Topic + r.Key + r.Consumer + r.Why) {
			return // JSON has no place for it; no event has such a key
		}
		if err := json.Unmarshal(r.encode(), &kept); err != nil {
			t.Fatalf("%s is kept as %s: %v", text, r.encode(), err)
		}
		if len(r.IDs) == 0 {
			r.IDs = nil
		}
		if !r.From.Equal(kept.From) || !r.Until.Equal(kept.Until) {
			t.Fatalf("%v to %v is kept as %v to %v", r.From, r.Until, kept.From, kept.Until)
		}
		kept.From, kept.Until = r.From, r.Until
		if !reflect.DeepEqual(r, kept) {
			t.Fatalf("%+v is kept as %+v", r, kept)
		}
	})
}
