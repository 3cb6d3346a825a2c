package pabal

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Limits on what describes an event. They leave room for the names that every broker takes (Amazon SQS: 80 characters)
// and for one row of an index in every database.
const (
	maxName        = 64 // bytes of a topic, consumer or source name
	maxType        = 128
	maxKey         = 255
	maxHeaders     = 20
	maxHeaderName  = 64
	maxHeaderValue = 1024
	maxRecord      = 1000 // events in a call of Record
)

// Type describes one type of event: its stable name, its topic, its key, and the Go type of its payload. It is a value
// that knows no store and no broker; make it once, with [Define], and share it. What is wrong with it is reported by
// the first Record or Handle that uses it.
type Type[T any] struct {
	name    string
	topic   string
	version string
	key     func(T) string
	bare    bool
	err     error
}

// TypeOption is an option of [Define].
type TypeOption[T any] func(*Type[T])

// Define describes events of the given name with payloads of type T. The name is written into every message and read by
// programs in any language: choose it as carefully as a URL, and never rename it (1 to 128 letters, digits, '-', '_',
// '.' and '/'). The topic is of the same name unless [Type.On] says otherwise.
//
// A payload is encoded as JSON; a T of []byte goes as it is, a T of json.RawMessage must hold JSON already.
func Define[T any](name string, options ...TypeOption[T]) Type[T] {
	t := Type[T]{name: name, topic: name}
	for _, option := range options {
		option(&t)
	}
	t.err = t.check()
	return t
}

// Key makes the events of a type ordered: those of one key reach each consumer in the order in which their transactions
// committed (P5). The key is the aggregate that an event is about, such as an order number: 1 to 255 bytes of valid
// UTF-8 without U+0000. Transactions that record the same key wait for each other until COMMIT.
func Key[T any](of func(T) string) TypeOption[T] {
	return func(t *Type[T]) { t.key = of }
}

// On returns the type on another topic than the one of its own name. Types that must keep order among each other share a
// topic. A topic's name has 1 to 64 letters, digits, '-' and '_'.
func (t Type[T]) On(topic string) Type[T] {
	t.topic = topic
	t.err = t.check()
	return t
}

// Version returns the type with a version of its payload's schema, at most 64 bytes, which consumers may read.
func (t Type[T]) Version(v string) Type[T] {
	t.version = v
	t.err = t.check()
	return t
}

// Bare returns the type with messages whose body is the payload alone, for consumers that expect just that: a legacy
// system that is moved one service at a time. What Pabal needs to know goes beside it, in four attributes: id, source, type
// and times. There is no place for a position, headers, a version or a trace, so a bare type can have no key, and
// Record refuses its events with headers. Its payload must be text that the broker carries.
func (t Type[T]) Bare() Type[T] {
	t.bare = true
	t.err = t.check()
	return t
}

// Name returns the type's name.
func (t Type[T]) Name() string { return t.name }

// Topic returns the topic's name.
func (t Type[T]) Topic() string { return t.topic }

func (t Type[T]) topicSpec() driver.TopicSpec {
	return driver.TopicSpec{Name: t.topic, Ordered: t.key != nil}
}

func (t Type[T]) check() error {
	if err := checkType(t.name); err != nil {
		return err
	}
	if err := checkName("topic of "+t.name, t.topic); err != nil {
		return err
	}
	switch {
	case t.bare && t.key != nil:
		return fmt.Errorf("type %s is bare: its messages have no place for a position, so it can have no Key", t.name)
	case t.bare && t.version != "":
		return fmt.Errorf("type %s is bare: its messages have no place for a Version", t.name)
	}
	return within("version of "+t.name, "bytes", len(t.version), maxName, "")
}

// New makes an event of the type; [Client.Record] records it. A payload that does not encode, or a key that is empty or
// too long, is Record's error.
func (t Type[T]) New(data T) Event {
	e := Event{event: driver.Event{Type: t.name, Topic: t.topic, Version: t.version, Bare: t.bare}}
	if e.err = t.err; e.err != nil {
		return e
	}
	if t.name == "" {
		e.err = errors.New("event type is the zero Type: make it with Define")
		return e
	}
	if t.key != nil {
		e.event.Key = t.key(data)
		if e.err = checkKey(t.name, e.event.Key); e.err != nil {
			return e
		}
	}
	e.event.Payload, e.event.ContentType, e.err = encodePayload(data)
	if e.err != nil {
		e.err = fmt.Errorf("payload of %s does not encode: %w", t.name, e.err)
	}
	return e
}

// Decode reads a payload of the type, such as one that [Operator.Events] found.
func (t Type[T]) Decode(payload []byte) (data T, err error) {
	if err = decodePayload(payload, &data); err != nil {
		err = fmt.Errorf("payload of %s does not decode: %w", t.name, err)
	}
	return data, err
}

// Event is a fact that happened, ready to be recorded. It is immutable.
type Event struct {
	event   driver.Event
	headers map[string]string
	err     error
}

// With returns the event with a header, which consumers see in [Received]. At most 20 headers, names of 1 to 64 lower-case
// letters, digits and '-', values up to 1,024 bytes of valid UTF-8.
func (e Event) With(name, value string) Event {
	headers := maps.Clone(e.headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[name] = value
	e.headers = headers
	return e
}

// Received is an event as a handler gets it.
type Received[T any] struct {
	ID         uuid.UUID         // the same in every delivery: the idempotency key for calls to other systems
	Source     string            // the producing store's name
	Topic      string            //
	Type       string            //
	Version    string            // of the payload's schema
	Key        string            // "" for an event without key
	Position   int64             // its place among the events of its key; 0 without key
	RecordedAt time.Time         // by the producing database's clock
	Headers    map[string]string // nil without headers
	Attempt    int               // 1 at first, then one more after each failure of the handler
	Job        uuid.UUID         // not zero: handled again because of this redelivery
	Data       T
}

func encodePayload(data any) (payload []byte, contentType string, err error) {
	switch data := data.(type) {
	case []byte:
		return data, contentBinary, nil
	case json.RawMessage:
		if !json.Valid(data) {
			return nil, "", fmt.Errorf("json.RawMessage holds no valid JSON")
		}
		return data, contentJSON, nil
	default:
		payload, err = json.Marshal(data)
		return payload, contentJSON, err
	}
}

func decodePayload[T any](payload []byte, data *T) error {
	switch p := any(data).(type) {
	case *[]byte:
		*p = payload
	case *json.RawMessage:
		if !json.Valid(payload) {
			return errNotJSON
		}
		*p = payload
	default:
		return json.Unmarshal(payload, data)
	}
	return nil
}

// encodeHeaders makes the JSON object that the store keeps, with names in order.
func encodeHeaders(typ string, headers map[string]string) ([]byte, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	if err := within("headers of "+typ, "headers", len(headers), maxHeaders, ""); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if !spelled(name, "-") || strings.ToLower(name) != name {
			return nil, fmt.Errorf("header %q of %s: a name is lower-case letters, digits and '-'", name, typ)
		}
		if err := within(fmt.Sprintf("name of header %q of %s", name, typ), "bytes", len(name), maxHeaderName, ""); err != nil {
			return nil, err
		}
		value := headers[name]
		if err := within(fmt.Sprintf("header %q of %s", name, typ), "bytes", len(value), maxHeaderValue, ""); err != nil {
			return nil, err
		}
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("header %q of %s is not valid UTF-8", name, typ)
		}
	}
	return json.Marshal(headers) // sorts the names
}

func checkType(name string) error {
	if !spelled(name, "-_./") {
		return fmt.Errorf("event type %q: a name is letters, digits, '-', '_', '.' and '/', and not empty", name)
	}
	return within(fmt.Sprintf("event type %q", name), "bytes", len(name), maxType, "")
}

func checkName(what, name string) error {
	if !spelled(name, "-_") {
		return fmt.Errorf("%s %q: a name is letters, digits, '-' and '_', and not empty", what, name)
	}
	return within(fmt.Sprintf("%s %q", what, name), "bytes", len(name), maxName, "")
}

func checkKey(typ, key string) error {
	switch {
	case key == "":
		return fmt.Errorf("key of %s is empty: an ordered type needs one for each event", typ)
	case !utf8.ValidString(key) || strings.IndexByte(key, 0) >= 0:
		return fmt.Errorf("key of %s: %q is not valid UTF-8 without U+0000", typ, key)
	case len(key) <= maxKey:
		return nil
	}
	return within("key of "+typ, "bytes", len(key), maxKey, "use a digest of it")
}

// spelled reports whether name is not empty and holds ASCII letters, digits and the characters of also only.
func spelled(name, also string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(also, c) < 0 {
			return false
		}
	}
	return name != ""
}
