package pabal

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

func wireEvent(payload []byte, contentType string) envelope {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC)
	return envelope{
		Event: driver.Event{
			ID: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Topic: "order-pay-done", Type: "order-pay-done", Key: "주문-1\"",
			ContentType: contentType, Version: "2", Payload: payload, Headers: []byte(`{"a":"b\n"}`), RecordedAt: at,
			Position: 1767225600001, Prev: driver.Ref{ID: uuid.UUID{1}, Position: 1767225600000, RecordedAt: at.Add(-time.Second)},
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		},
		Source: "order", SentAt: at.Add(time.Millisecond), Job: uuid.UUID{2},
	}
}

// legal is the character set of Amazon SQS (Message characters, SendMessage API reference).
func legal(body []byte) bool {
	if !utf8.Valid(body) {
		return false
	}
	for _, r := range string(body) {
		ok := r == 9 || r == 10 || r == 13 || r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
		if !ok {
			return false
		}
	}
	return true
}

var wirePayloads = map[string][]byte{
	"object":         []byte(`{"a": [1, {"b": "c}]\""}], "d": null, "id": "not this one"}`),
	"number":         []byte(`-12.5e3`),
	"string":         []byte(`"x"`),
	"null":           []byte(`null`),
	"empty object":   []byte(`{}`),
	"white space":    []byte(" {\n\t\"a\" : [ ] }\r\n"),
	"noncharacters":  []byte("{\"a\uffff\":\"\ufffe\ufffd\uffff\"}"),
	"escapes":        []byte(`{"a":"\u0000\ud800\\"}`),
	"emoji":          []byte(`"👍"`),
	"binary":         {0, 1, 0xff, 0xfe, '"'},
	"invalid UTF-8":  []byte("\"\xff\""),
	"nothing at all": {},
}

func TestWireCarriesEveryPayload(t *testing.T) {
	for name, payload := range wirePayloads {
		for _, contentType := range []string{contentJSON, contentBinary} {
			e := wireEvent(payload, contentType)
			body := e.append(nil)
			if !json.Valid(body) || !legal(body) {
				t.Errorf("%s as %s: illegal body %q", name, contentType, body)
			}
			got, err := decode(body)
			if err != nil {
				t.Errorf("%s as %s: %v in %s", name, contentType, err, body)
				continue
			}
			if same := bytes.Equal(got.Payload, payload) || sameJSON(got.Payload, payload); !same {
				t.Errorf("%s as %s: payload came back as %q", name, contentType, got.Payload)
			}
			got.Payload, e.Payload = nil, nil
			if a, b := mustJSON(t, got), mustJSON(t, &e); a != b {
				t.Errorf("%s: came back as\n%s, sent\n%s", name, a, b)
			}
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWireIsCloudEvents(t *testing.T) {
	e := wireEvent([]byte(`{"a":1}`), contentJSON)
	var fields map[string]any
	if err := json.Unmarshal(e.append(nil), &fields); err != nil {
		t.Fatal(err)
	}
	for name := range fields { // CloudEvents 1.0: lower-case letters and digits; data_base64 is the format's own
		if name != "data_base64" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("attribute %q is not named as CloudEvents allows", name)
		}
	}
	for _, name := range []string{"specversion", "id", "source", "type", "time", "subject", "datacontenttype"} {
		if fields[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestWireSkipCarriesNoData(t *testing.T) {
	e := wireEvent([]byte(`{"secret":1}`), contentJSON)
	e.Skipped = true
	body := e.append(nil)
	got, err := decode(body)
	if err != nil || !got.Skipped || len(got.Payload) != 0 || bytes.Contains(body, []byte("secret")) {
		t.Errorf("skip is sent as %s (%v)", body, err)
	}
}

func TestWireReadsForeignCloudEvents(t *testing.T) {
	got, err := decode([]byte(`{"specversion":"1.0","id":"A-1","source":"/legacy","type":"com.example.x","data":{"a":1},"position":"7"}`))
	if err != nil || !got.foreign || got.Position != 0 || got.ID != digest([]byte("A-1")) || string(got.Payload) != `{"a":1}` {
		t.Errorf("read as %+v (%v)", got, err)
	}
}

func TestWireRefusesTheUnreadable(t *testing.T) {
	good := wireEvent([]byte(`{}`), contentJSON)
	for _, body := range []string{
		"", "x", "[]", "null", "7", `"x"`, "{}", `{"specversion":"0.3","id":"1","source":"a","type":"b"}`,
		`{"specversion":"1.0","id":"1","source":"a"}`, `{"specversion":1,"id":"1","source":"a","type":"b"}`,
		"{\"specversion\":\"1.0\",\"id\":\"\xff\",\"source\":\"a\",\"type\":\"b\"}",
		strings.Replace(string(good.append(nil)), `"position":"`, `"position":"-`, 1),
		strings.Replace(string(good.append(nil)), `"sentat":"2026`, `"sentat":"year`, 1),
		strings.Replace(string(good.append(nil)), `"previd":"`, `"previd":"x`, 1),
		string(good.append(nil)) + "}", strings.TrimSuffix(string(good.append(nil)), "}"),
		strings.Replace(string(good.append(nil)), `,"type"`, `"type"`, 1),
		strings.Replace(string(good.append(nil)), `"type":`, `"type"`, 1),
		strings.Replace(string(good.append(nil)), `"order"`, "\"or\nder\"", 1),
		strings.Replace(string(good.append(nil)), `"order"`, `"order`, 1),
		strings.Replace(string(good.append(nil)), `"data":{}`, `"data":{`, 1),
		strings.Replace(string(good.append(nil)), `"data":{}`, `"data":}`, 1),
		strings.Replace(string(good.append(nil)), `"data":{}`, `"data":`, 1),
	} {
		if e, err := decode([]byte(body)); !errors.Is(err, errUnreadable) {
			t.Errorf("%q was read as %+v, %v", body, e, err)
		}
	}
}

func TestEnvelopeRoomIsEnough(t *testing.T) {
	long := strings.Repeat("x", 200)
	e := wireEvent([]byte(`"`+strings.Repeat("\ufffe", 100)+`"`), contentJSON)
	e.Type, e.Topic, e.Source, e.Version = long[:maxType], long[:maxName], long[:maxName], long[:maxName]
	e.Key = strings.Repeat("\x01", maxKey)
	e.Headers = []byte(`{"a":"` + strings.Repeat(`\"`, 400) + `"}`)
	for _, contentType := range []string{contentJSON, contentBinary} {
		e.ContentType = contentType
		m := e.message(dedup(e.ID, 1_000_000))
		size := len(m.Body)
		for _, a := range m.Attributes {
			size += len(a.Name) + len(a.Value) + len("String")
		}
		if bound := sizeOnWire(&e.Event) + envelopeRoom; size > bound {
			t.Errorf("%s: %d bytes on the wire, %d were reckoned with", contentType, size, bound)
		}
	}
}

// TestNamesThatNoInboxHasRoomForAreUnreadableOrBrief: a database that refuses a row would look as if it were away, for ever.
func TestNamesThatNoInboxHasRoomForAreUnreadableOrBrief(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, lengthen := range []func(*envelope){
		func(e *envelope) { e.Source = long }, func(e *envelope) { e.Topic = long },
		func(e *envelope) { e.Type = long }, func(e *envelope) { e.Key = long },
	} {
		e := wireEvent([]byte(`{}`), contentJSON)
		lengthen(&e)
		if _, err := decode(e.append(nil)); !errors.Is(err, errUnreadable) || !strings.Contains(err.Error(), "300 bytes") {
			t.Errorf("read: %v", err)
		}
	}
	foreign, err := decode([]byte(`{"specversion":"1.0","id":"1","source":"` + long + `","type":"` + long + `","subject":"` + long + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	row := foreign.row(nil, time.Now())
	if len(row.Source) > maxName || len(row.Type) > maxType || len(row.Key) > maxKey || foreign.Source != long {
		t.Errorf("row is %+v", row)
	}
}

// TestWireReadsEveryPrefixWithoutPanic: what was cut off on its way is unreadable.
func TestWireReadsEveryPrefixWithoutPanic(t *testing.T) {
	e := wireEvent([]byte(`{"a":[1,"\u00e9\"",{}]}`), contentJSON)
	body := e.append(nil)
	for n := range len(body) {
		if _, err := decode(body[:n]); !errors.Is(err, errUnreadable) {
			t.Errorf("%q was read: %v", body[:n], err)
		}
	}
}

// TestPayloadThatIsNoJSONFailsItsHandler: the envelope's reader leaves the inside of a payload to whoever decodes it.
func TestPayloadThatIsNoJSONFailsItsHandler(t *testing.T) {
	var raw json.RawMessage
	var parsed struct{ A int }
	if err := decodePayload([]byte(`{"a":]}`), &raw); err == nil {
		t.Error("json.RawMessage took what is no JSON")
	}
	if err := decodePayload([]byte(`{"a":]}`), &parsed); err == nil {
		t.Error("a struct took what is no JSON")
	}
}

func FuzzDecode(f *testing.F) {
	for _, payload := range wirePayloads {
		e := wireEvent(payload, contentJSON)
		f.Add(e.append(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := decode(body)
		if err != nil {
			return
		}
		if again, err := decode(e.append(nil)); !e.foreign && (err != nil || again.ID != e.ID || again.Key != e.Key) {
			t.Errorf("%q came back as %+v, %v", body, again, err)
		}
	})
}

func TestBareMessageIsThePayloadWithFourAttributes(t *testing.T) {
	e := wireEvent([]byte(`{"a":1}`), contentJSON)
	e.Key, e.Position, e.Prev, e.Bare = "", 0, driver.Ref{}, true
	m := e.message(dedup(e.ID, 3))
	if string(m.Body) != `{"a":1}` || m.Group != "" || len(m.Attributes) != 4 {
		t.Fatalf("message is %+v", m)
	}
	var got envelope
	if err := got.read(&driver.Delivery{Body: m.Body, Attributes: m.Attributes}, nil); err != nil {
		t.Fatal(err)
	}
	if got.ID != e.ID || got.Source != e.Source || got.Type != e.Type || got.Topic != e.Topic || got.RecordedAt != e.RecordedAt ||
		got.SentAt != e.SentAt || string(got.Payload) != string(e.Payload) || got.foreign {
		t.Errorf("came back as %+v", got)
	}
	for i := range 3 {
		without := append(append([]driver.Attribute(nil), m.Attributes[:i]...), m.Attributes[i+1:]...)
		if err := (&envelope{}).read(&driver.Delivery{Body: m.Body, Attributes: without}, nil); !errors.Is(err, errUnreadable) {
			t.Errorf("read without attribute %s: %v", m.Attributes[i].Name, err)
		}
	}
}

func TestAttributeCalledTimesOfOthersMakesNoMessageBare(t *testing.T) {
	foreign := driver.Delivery{
		Body:       []byte(`{"specversion":"1.0","id":"A-1","source":"/legacy","type":"com.example.x","data":{"a":1}}`),
		Attributes: []driver.Attribute{{Name: timesAttribute, Value: "twice"}},
	}
	var got envelope
	if err := got.read(&foreign, nil); err != nil || !got.foreign || got.Source != "/legacy" {
		t.Errorf("read as %+v (%v)", got, err)
	}
}

// TestReferencesThatAreNoneAreUnreadable: an event of an order that it names by halves could never be placed.
func TestReferencesThatAreNoneAreUnreadable(t *testing.T) {
	for what, change := range map[string]func(*envelope){
		"a position without a key":              func(e *envelope) { e.Key = "" },
		"a predecessor without a position":      func(e *envelope) { e.Prev.Position = 0 },
		"a predecessor without its time":        func(e *envelope) { e.Prev.RecordedAt = time.Time{} },
		"a predecessor of what has no position": func(e *envelope) { e.Position = 0 },
	} {
		e := wireEvent([]byte(`{}`), contentJSON)
		change(&e)
		if read, err := decode(e.append(nil)); !errors.Is(err, errUnreadable) {
			t.Errorf("%s was read as %+v, %v", what, read, err)
		}
	}
}
