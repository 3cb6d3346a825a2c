package pabal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The wire is CloudEvents 1.0, structured JSON, over every broker: https://github.com/cloudevents/spec. This file is its
// only encoder, decode.go the only decoder. Fields are added, never changed; a reader ignores what it does not know.
//
// Extensions: topic, position, previd, prevposition, prevtime, sentat, traceparent, headers (a JSON object in a string,
// for CloudEvents has no nested values), skipped, job, replyto (canary.go). Numbers are strings: a CloudEvents integer has 32 bits.

const (
	contentJSON   = "application/json"
	contentBinary = "application/octet-stream"
	timeFormat    = "2006-01-02T15:04:05.000000Z"

	// envelopeRoom is kept free below the broker's limit for the fields whose size is bounded: ids, times, positions,
	// field names, attributes. A test builds the largest one.
	envelopeRoom = 1024
)

// envelope is an event on the wire.
type envelope struct {
	driver.Event
	Source  string
	SentAt  time.Time
	Job     uuid.UUID // with a job, Prev is the previous event within job and key
	ReplyTo string    // of a canary: the queue that waits for its answer
	foreign bool      // not from Pabal: no order, no confirmation
}

// append encodes e. Every character of the result is legal in every broker (Amazon SQS takes those of XML 1.0 only):
// JSON escapes control characters, and we escape U+FFFE and U+FFFF.
func (e *envelope) append(b []byte) []byte {
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = appendUUID(b, e.ID)
	b = appendField(b, `","source":`, e.Source)
	b = appendField(b, `,"type":`, e.Type)
	b = appendField(b, `,"topic":`, e.Topic)
	if e.Key != "" {
		b = appendField(b, `,"subject":`, e.Key)
	}
	b = appendTime(b, `,"time":"`, e.RecordedAt)
	if e.Position != 0 {
		b = append(b, `,"position":"`...)
		b = append(strconv.AppendInt(b, e.Position, 10), '"')
	}
	if !e.Prev.IsZero() {
		b = append(b, `,"previd":"`...)
		b = append(appendUUID(b, e.Prev.ID), `","prevposition":"`...)
		b = append(strconv.AppendInt(b, e.Prev.Position, 10), '"')
		b = appendTime(b, `,"prevtime":"`, e.Prev.RecordedAt)
	}
	b = appendTime(b, `,"sentat":"`, e.SentAt)
	if e.Job != uuid.Nil {
		b = append(b, `,"job":"`...)
		b = append(appendUUID(b, e.Job), '"')
	}
	if e.ReplyTo != "" {
		b = appendField(b, `,"replyto":`, e.ReplyTo)
	}
	if e.Version != "" {
		b = appendField(b, `,"dataversion":`, e.Version)
	}
	if validTraceparent(e.Traceparent) {
		b = appendField(b, `,"traceparent":`, e.Traceparent)
	}
	if len(e.Headers) > 0 {
		b = appendField(b, `,"headers":`, string(e.Headers))
	}
	if e.Skipped { // a skip carries no data: nobody shall handle it
		return append(b, `,"skipped":true}`...)
	}
	return append(e.appendData(b), '}')
}

func (e *envelope) appendData(b []byte) []byte {
	b = appendField(b, `,"datacontenttype":`, e.ContentType)
	if e.ContentType == contentJSON && utf8.Valid(e.Payload) && json.Valid(e.Payload) {
		b = append(b, `,"data":`...)
		return appendLegal(b, e.Payload)
	}
	b = append(b, `,"data_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, e.Payload), '"')
}

// appendLegal appends JSON text with U+FFFE and U+FFFF escaped; both can stand inside strings only.
func appendLegal(b, text []byte) []byte {
	for {
		i := bytes.Index(text, []byte("\xef\xbf"))
		if i < 0 {
			return append(b, text...)
		}
		b = append(b, text[:i]...)
		switch rest := text[i:]; rest[2] { // valid UTF-8: a third byte follows
		case 0xbe:
			b = append(b, `\ufffe`...)
		case 0xbf:
			b = append(b, `\uffff`...)
		default:
			b = append(b, rest[:3]...)
		}
		text = text[i+3:]
	}
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !plain(value) {
		quoted, _ := json.Marshal(value) // a string always encodes
		return appendLegal(b, quoted)
	}
	b = append(b, '"')
	b = append(b, value...)
	return append(b, '"')
}

// plain reports whether a text stands in JSON as it is.
func plain(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	text, _ := id.MarshalText() // never fails
	return append(b, text...)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	b = append(b, name...)
	return append(t.UTC().AppendFormat(b, timeFormat), '"')
}

// sizeOnWire bounds what an event takes beside the fields that envelopeRoom is for.
func sizeOnWire(e *driver.Event) int {
	size := len(e.Payload)
	if e.ContentType != contentJSON {
		size = base64.StdEncoding.EncodedLen(size)
	} else {
		size += 3 * bytes.Count(e.Payload, []byte("\xef\xbf"))
	}
	return size + 2*(len(e.Type)+len(e.Topic)) + len(e.Version) + sizeOfField(e.Key) + sizeOfField(string(e.Headers))
}

// sizeOfField is the length of a JSON string, to which appendField makes it.
func sizeOfField(value string) int {
	if plain(value) {
		return len(value) + 2
	}
	return len(appendField(nil, "", value))
}

const uuidLength = 36

// message encodes an envelope for the broker. dedup begins with its id: see [dedup].
func (e *envelope) message(dedup string) driver.Message {
	if e.Bare {
		return e.bareMessage(dedup)
	}
	return driver.Message{
		ID: e.ID, Dedup: dedup, Group: e.Key, Body: e.append(make([]byte, 0, 640+len(e.Payload)+len(e.Key))),
		Attributes: []driver.Attribute{
			{Name: "id", Value: dedup[:uuidLength]}, {Name: "source", Value: e.Source}, {Name: "type", Value: e.Type},
		},
	}
}
