package pabal

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// Bare messages: the body is the payload alone, and what the core needs lies in four attributes. They are for types that a
// legacy system reads; everything else has an envelope (wire.go).

const timesAttribute = "times" // recorded_at, sentat and the topic, separated by spaces

// bareMessage makes the message of a bare event.
func (e *envelope) bareMessage(dedup string) driver.Message {
	times := string(append(e.SentAt.UTC().AppendFormat(append(e.RecordedAt.UTC().AppendFormat(nil, timeFormat), ' '), timeFormat), ' '))
	return driver.Message{
		ID: e.ID, Dedup: dedup, Body: e.Payload,
		Attributes: []driver.Attribute{
			{Name: "id", Value: dedup[:uuidLength]}, {Name: "source", Value: e.Source}, {Name: "type", Value: e.Type},
			{Name: timesAttribute, Value: times + e.Topic},
		},
	}
}

// read decodes a delivery, with envelope or bare, into e.
func (e *envelope) read(d *driver.Delivery, known *names) error {
	var times string
	for _, a := range d.Attributes {
		if a.Name == timesAttribute && strings.Count(a.Value, " ") == 2 { // others may have an attribute of this name
			times = a.Value
		}
	}
	if times == "" {
		return e.decode(d.Body, known)
	}
	return e.readBare(d, times)
}

func (e *envelope) readBare(d *driver.Delivery, times string) (err error) {
	for _, a := range d.Attributes {
		switch a.Name {
		case "id":
			e.ID, err = uuid.Parse(a.Value)
		case "source":
			e.Source = a.Value
		case "type":
			e.Type = a.Value
		}
		if err != nil {
			return fmt.Errorf("%w: attribute %s: %w", errUnreadable, a.Name, err)
		}
	}
	parts := strings.Split(times, " ")
	if len(parts) != 3 || e.ID == uuid.Nil || e.Source == "" || e.Type == "" || parts[2] == "" {
		return fmt.Errorf("%w: attributes id, source, type and times are not all there", errUnreadable)
	}
	for i, to := range []*time.Time{&e.RecordedAt, &e.SentAt} {
		if *to, err = time.Parse(time.RFC3339Nano, parts[i]); err != nil {
			return fmt.Errorf("%w: attribute times: %w", errUnreadable, err)
		}
	}
	e.Topic, e.Payload, e.ContentType, e.Bare = parts[2], d.Body, contentJSON, true
	if err := e.tooLong(); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return nil
}

// carried reports whether every broker takes a text as a message's body: Amazon SQS takes the characters of XML 1.0 only
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
func carried(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	for _, r := range string(text) {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return false
		}
	}
	return true
}
