package pabal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// goldenWire is what the files of testdata/wire/v1 say. They are what processes of older releases send, lie in queues for weeks and in
// inboxes for longer: a file is added with a new field, none is ever changed.
func goldenWire() map[string]envelope {
	at := time.Date(2026, 3, 4, 5, 6, 7, 890123000, time.UTC)
	whole := envelope{
		Event: driver.Event{
			ID: uuid.MustParse("019cb6f2-1a2b-7c3d-8e4f-5a6b7c8d9e0f"), Topic: "order-pay-done", Type: "order.paid/v2", Key: "주문 \"7\"",
			ContentType: contentJSON, Version: "2", Payload: []byte(`{"orderNo":"7","total":{"amount":24000,"currency":"KRW"}}`),
			Headers: []byte(`{"tenant":"a \"b\""}`), RecordedAt: at, Position: 1772600767891,
			Prev:        driver.Ref{ID: uuid.MustParse("019cb6f2-0000-7000-8000-000000000001"), Position: 1772600767890, RecordedAt: at.Add(-time.Second)},
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		},
		Source: "order", SentAt: at.Add(1500 * time.Microsecond),
	}
	first, unordered, binary, skip, again, canary := whole, whole, whole, whole, whole, whole
	first.Prev = driver.Ref{}
	unordered.Key, unordered.Position, unordered.Prev = "", 0, driver.Ref{}
	unordered.Headers, unordered.Version, unordered.Traceparent = nil, "", ""
	binary.ContentType, binary.Payload = contentBinary, []byte{0, 1, 0xff, 0xfe, '"'}
	skip.Skipped, skip.ContentType, skip.Payload = true, "", nil
	again.Job = uuid.MustParse("019cb6f2-ffff-7000-8000-00000000000a")
	canary.Type, canary.Key, canary.Position, canary.Prev = driver.CanaryType, "", 0, driver.Ref{}
	canary.ReplyTo, canary.Payload = driver.ReplyPrefix+"1", []byte("null")
	return map[string]envelope{
		"whole": whole, "first": first, "unordered": unordered, "binary": binary, "skip": skip, "again": again, "canary": canary,
	}
}

func goldenFile(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", "wire", "v1", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// What an older release has sent is read for ever, and what a newer one adds is passed over.
func TestWireOfVersion1IsReadForEver(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/v1/*.json")
	if golden := goldenWire(); err != nil || len(files) != len(golden)+1 { // and bare.json
		t.Fatalf("there are %d files and %d expectations (%v)", len(files), len(golden), err)
	}
	for name, want := range goldenWire() {
		body := string(goldenFile(t, name))
		const unknown = `"future":{"id":[1,"}"],"position":"9"},"specversion2":null,"idx":"x","later":-1.5e3`
		for what, text := range map[string]string{
			"as it is": body, "with unknown fields before": "{" + unknown + "," + body[1:],
			"with unknown fields behind": strings.TrimSuffix(strings.TrimSpace(body), "}") + "," + unknown + "}",
		} {
			got, err := decode([]byte(text))
			if err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			} else if !reflect.DeepEqual(*got, want) {
				t.Errorf("%s, %s: read as\n%+v\nnot\n%+v", name, what, *got, want)
			}
		}
	}
}

// What we send has every field that an older release reads, as it was.
func TestWireOfVersion1IsStillWritten(t *testing.T) {
	for name, e := range goldenWire() {
		var was, is map[string]json.RawMessage
		if err := json.Unmarshal(goldenFile(t, name), &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(e.append(nil), &is); err != nil {
			t.Fatal(err)
		}
		for field, value := range was {
			if string(is[field]) != string(value) {
				t.Errorf("%s: %s is %s now, and was %s", name, field, is[field], value)
			}
		}
	}
}

// A bare message is its payload, with attributes that stay what they are.
func TestBareMessageOfVersion1IsReadForEver(t *testing.T) {
	body := goldenFile(t, "bare")
	attributes := []driver.Attribute{
		{Name: "id", Value: "019cb6f2-1a2b-7c3d-8e4f-5a6b7c8d9e0f"}, {Name: "source", Value: "order"}, {Name: "type", Value: "order.paid/v2"},
		{Name: "times", Value: "2026-03-04T05:06:07.890123Z 2026-03-04T05:06:07.891623Z order-pay-done"},
	}
	whole := goldenWire()["whole"]
	want := envelope{Source: whole.Source, SentAt: whole.SentAt, Event: driver.Event{ID: whole.ID, Topic: whole.Topic, Type: whole.Type,
		RecordedAt: whole.RecordedAt, ContentType: contentJSON, Payload: body, Bare: true}}
	var got envelope
	more := append([]driver.Attribute{{Name: "future", Value: "x"}}, attributes...)
	if err := got.read(&driver.Delivery{Body: body, Attributes: more}, nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as\n%+v\nnot\n%+v (%v)", got, want, err)
	}
	m := want.message(dedup(want.ID, 0))
	if string(m.Body) != string(body) || !reflect.DeepEqual(m.Attributes, attributes) {
		t.Errorf("written as %s with %v", m.Body, m.Attributes)
	}
}
