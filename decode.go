package pabal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The reading half of wire.go.

// errUnreadable is wrapped by every error of decode.
var errUnreadable = errors.New("unreadable message")

// decode reads a message's body. The result shares memory with it.
func decode(body []byte) (*envelope, error) {
	e := &envelope{}
	return e, e.decode(body, nil)
}

// decode reads a message's body into e, which shares memory with it afterwards.
func (e *envelope) decode(body []byte, known *names) error {
	if !utf8.Valid(body) {
		return fmt.Errorf("%w: not UTF-8", errUnreadable)
	}
	d := decoder{envelope: e, known: known}
	d.object(body)
	switch {
	case d.err != nil:
		return fmt.Errorf("%w: %w", errUnreadable, d.err)
	case d.spec != "1.0":
		return fmt.Errorf("%w: CloudEvents specversion %q, not 1.0", errUnreadable, d.spec)
	case d.noID() || e.Source == "" || e.Type == "":
		return fmt.Errorf("%w: id, source or type is missing", errUnreadable)
	}
	e.foreign = d.id != "" || e.Topic == "" || e.RecordedAt.IsZero() || e.SentAt.IsZero()
	if e.foreign {
		if d.id == "" { // it was a UUID
			d.id = e.ID.String()
		}
		e.ID, e.Position, e.Prev, e.Job = digest([]byte(d.id)), 0, driver.Ref{}, uuid.Nil
		return nil
	}
	if err := e.tooLong(); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	switch prev := e.Prev; {
	case e.Position != 0 && e.Key == "":
		return fmt.Errorf("%w: a position without subject", errUnreadable)
	case prev != (driver.Ref{}) && (e.Position == 0 || prev.IsZero() || prev.Position == 0 || prev.RecordedAt.IsZero()):
		return fmt.Errorf("%w: half a reference to the event before", errUnreadable)
	}
	return nil
}

// tooLong refuses names that no Pabal would have recorded, and no inbox has room for.
func (e *envelope) tooLong() error {
	return cmp.Or(
		within("source", "bytes", len(e.Source), maxName, ""), within("topic", "bytes", len(e.Topic), maxName, ""),
		within("type", "bytes", len(e.Type), maxType, ""), within("subject", "bytes", len(e.Key), maxKey, ""),
	)
}

// brief is a text in as many bytes as an inbox has room for: itself, or a digest of it.
func brief(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return digest([]byte(text)).String()
}

// digest makes an id of bytes that have none of their own: the first half of their SHA-256, marked as a version 8 UUID.
func digest(b []byte) uuid.UUID {
	sum := sha256.Sum256(b)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// decoder collects the members of the outermost object.
type decoder struct {
	envelope *envelope
	known    *names
	spec     string
	id       string // where it is no UUID
	err      error
}

func (d *decoder) noID() bool { return d.id == "" && d.envelope.ID == uuid.Nil }

// names keeps one copy of each of the few names that come in every message. It is not safe for concurrent use.
type names struct{ known map[string]string }

const namesMax = 1000

func (n *names) of(b []byte) string {
	if n == nil {
		return string(b)
	}
	if name, ok := n.known[string(b)]; ok {
		return name
	}
	name := string(b)
	if n.known == nil {
		n.known = map[string]string{}
	}
	if len(n.known) < namesMax {
		n.known[name] = name
	}
	return name
}

var errNotJSON = errors.New("not JSON")

// object walks over the members of a JSON object. Inside of values it only looks for their ends: whether a payload is
// valid is found out by whoever decodes it.
func (d *decoder) object(b []byte) {
	b = afterSpace(b)
	if len(b) == 0 || b[0] != '{' {
		d.err = errors.New("not a JSON object")
		return
	}
	b = afterSpace(b[1:])
	for first := true; d.err == nil; first = false {
		if len(b) > 0 && b[0] == '}' {
			if len(afterSpace(b[1:])) > 0 {
				d.err = errNotJSON
			}
			return
		}
		if !first {
			if b = after(b, ','); b == nil {
				break
			}
		}
		n := valueEnd(b)
		if n < 2 || b[0] != '"' {
			break
		}
		name := b[1 : n-1]
		if b = after(b[n:], ':'); b == nil {
			break
		}
		if n = valueEnd(b); n <= 0 {
			break
		}
		d.member(name, b[:n])
		b = afterSpace(b[n:])
	}
	if d.err == nil {
		d.err = errNotJSON
	}
}

// afterSpace drops what JSON takes for space from the start of b.
func afterSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// after drops c, and the space around it, from the start of b; nil if b does not begin with c.
func after(b []byte, c byte) []byte {
	if b = afterSpace(b); len(b) == 0 || b[0] != c {
		return nil
	}
	return afterSpace(b[1:])
}

// valueEnd returns the length of the JSON value at the start of b; -1 if it does not end.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = stringEnd(b, i+1); i < 0 {
				return -1
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default: // a number, a word, or what stands between values in a nested one
			if depth > 0 {
				continue
			}
			for i+1 < len(b) && endsWord[b[i+1]] == 0 {
				i++
			}
		}
		if depth <= 0 {
			return i + 1 + depth // a bracket that closes nothing is no value
		}
	}
	return -1
}

var endsWord = [256]byte{',': 1, '}': 1, ']': 1, ':': 1, '"': 1, ' ': 1, '\n': 1, '\t': 1, '\r': 1}

// stringEnd returns where the quotation mark is that ends a string; -1 without one, or at a control character.
func stringEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i
		case c == '\\':
			i++
		case c < ' ':
			return -1
		}
	}
	return -1
}

func (d *decoder) member(name, value []byte) {
	e := d.envelope
	switch string(name) {
	case "specversion":
		d.spec = d.name(value)
	case "id":
		d.identify(value)
	case "source":
		e.Source = d.name(value)
	case "type":
		e.Type = d.name(value)
	case "topic":
		e.Topic = d.name(value)
	case "subject":
		e.Key = d.text(value)
	case "time":
		e.RecordedAt = d.time(value)
	case "position":
		e.Position = d.number(value)
	case "previd":
		e.Prev.ID = d.uuid(value)
	case "prevposition":
		e.Prev.Position = d.number(value)
	case "prevtime":
		e.Prev.RecordedAt = d.time(value)
	case "sentat":
		e.SentAt = d.time(value)
	case "job":
		e.Job = d.uuid(value)
	case "replyto":
		e.ReplyTo = d.text(value)
	case "traceparent":
		e.Traceparent = d.text(value)
	case "headers":
		e.Headers = []byte(d.text(value))
	case "skipped":
		e.Skipped = string(value) == "true"
	case "dataversion":
		e.Version = d.name(value)
	case "datacontenttype":
		e.ContentType = d.name(value)
	case "data":
		e.Payload = value
	case "data_base64":
		payload, err := base64.StdEncoding.DecodeString(d.text(value))
		if err != nil {
			d.err = fmt.Errorf("data_base64: %w", err)
		}
		e.Payload = payload
	}
}

func (d *decoder) text(value []byte) string {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		d.err = err
	}
	return s
}

// name reads one of the texts that come in every message.
func (d *decoder) name(value []byte) string {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return d.known.of(value[1 : len(value)-1])
	}
	return d.text(value)
}

// identify reads the id, which only programs other than Pabal write as anything but a UUID.
func (d *decoder) identify(value []byte) {
	d.envelope.ID, d.id = uuid.Nil, ""
	if id, err := uuid.ParseBytes(bytes.Trim(value, `"`)); err == nil && len(value) == len(`""`)+36 {
		d.envelope.ID = id
		return
	}
	d.id = d.text(value)
}

func (d *decoder) number(value []byte) int64 {
	n, err := strconv.ParseInt(string(bytes.Trim(value, `"`)), 10, 64)
	if err == nil && n < 1 {
		err = fmt.Errorf("position %d is below 1", n)
	}
	if err != nil {
		d.err = err
	}
	return n
}

func (d *decoder) uuid(value []byte) uuid.UUID {
	id, err := uuid.ParseBytes(bytes.Trim(value, `"`))
	if err != nil {
		d.err = err
	}
	return id
}

func (d *decoder) time(value []byte) time.Time {
	var t time.Time
	if err := t.UnmarshalText(bytes.Trim(value, `"`)); err != nil { // RFC 3339
		d.err = err
	}
	return t.UTC()
}
