package pabalsns

import (
	"context"
	"crypto/md5" //nolint:gosec // SQS's own checksum, against errors and not against people
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pabal-go/pabal/driver"
)

// attributesMost bounds a message's attributes: what has more than ten is accepted by SNS and then discarded on its way to
// a queue (raw delivery, "Amazon SNS message attributes" in the developer guide); tools that trace need one or two.
const attributesMost = 8

// batch is a Publish that is under way.
type batch struct {
	b        *Broker
	to       driver.Destination
	address  string // ARN or URL
	fifo     bool
	messages []driver.Message
	verdicts []driver.Verdict
	broken   map[string]bool // groups of which a message was not stored; nil: the destination has no groups
}

// Publish implements driver.Broker: one PublishBatch or SendMessageBatch, or several in a row where the sum of their bytes
// asks for it.
func (b *Broker) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	p := &batch{b: b, to: to, messages: messages, verdicts: make([]driver.Verdict, len(messages))}
	var err error
	if to.Queue != "" {
		p.address, err = b.queueURL(ctx, to.Queue)
	} else {
		p.address, err = b.topicARN(ctx, to.Topic)
	}
	if err != nil {
		for i := range p.verdicts {
			p.verdicts[i] = verdictOf(err, false)
		}
		return p.verdicts
	}
	if p.fifo = isFIFO(p.address); p.fifo {
		p.broken = map[string]bool{}
	}
	var call []int
	bytes := 0
	for i := range messages {
		size := sizeOf(&messages[i])
		if err := legal(&messages[i], size); err != nil {
			p.note(i, driver.Verdict{Kind: driver.Never, Err: err})
			continue
		}
		if len(call) == batchEntries || len(call) > 0 && bytes+size > messageBytes {
			p.send(ctx, call)
			call, bytes = nil, 0
		}
		call, bytes = append(call, i), bytes+size
	}
	p.send(ctx, call)
	return p.verdicts
}

// sizeOf is what a message counts: its body, and of each attribute the name, the type and the value ("Amazon SQS message
// metadata" in the developer guide).
func sizeOf(m *driver.Message) int {
	size := len(m.Body)
	for _, a := range m.Attributes {
		size += len(a.Name) + len("String") + len(a.Value)
	}
	return size
}

// legal finds what would be refused for ever, or be accepted by SNS and never reach a queue.
func legal(m *driver.Message, size int) error {
	switch {
	case size > messageBytes:
		return fmt.Errorf("%d bytes with attributes, at most %d", size, messageBytes)
	case len(m.Body) == 0:
		return errors.New("an empty message")
	case len(m.Attributes) > attributesMost:
		return fmt.Errorf("%d attributes, at most %d", len(m.Attributes), attributesMost)
	}
	for i, r := range string(m.Body) {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRune(m.Body[i:]); size == 1 {
				return fmt.Errorf("byte %d of the body is not UTF-8", i)
			}
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("character U+%04X at byte %d of the body, which SQS does not take", r, i)
		}
	}
	return nil
}

// send makes one call with the messages of these indexes. A call that was refused as a whole for its content is taken apart:
// nothing of it was stored, and one message must not keep its neighbours back.
func (p *batch) send(ctx context.Context, call []int) {
	var going []int
	for _, i := range call {
		if p.broken[p.messages[i].Group] {
			p.verdicts[i] = driver.Verdict{Err: errors.New("an earlier message of its group was not stored")}
			continue
		}
		going = append(going, i)
	}
	if len(going) == 0 {
		return
	}
	var err error
	var answers map[string]driver.Verdict
	if p.to.Queue != "" {
		answers, err = p.sendMessages(ctx, going)
	} else {
		answers, err = p.publish(ctx, going)
	}
	if err != nil && len(going) > 1 && faultOf(err) == refused {
		for _, i := range going {
			p.send(ctx, []int{i})
		}
		return
	}
	for at, i := range going {
		v, mentioned := answers[strconv.Itoa(at)]
		switch {
		case err != nil:
			v = verdictOf(err, len(going) == 1)
		case !mentioned:
			v.Err = errors.New("the answer does not mention it")
		}
		p.note(i, v)
	}
}

// note takes down what became of a message, and of its group at a FIFO destination: what follows there in this call and
// is not stored is Again, for it may only have been refused because of the one before.
func (p *batch) note(i int, v driver.Verdict) {
	group := p.messages[i].Group
	if v.Kind != driver.Accepted {
		p.b.forget(p.to, v.Err)
		if p.broken[group] {
			v.Kind = driver.Again
		}
		if p.broken != nil && group != "" {
			p.broken[group] = true
		}
	}
	p.verdicts[i] = v
}

// publish calls PublishBatch. Entry ids are the places in the call.
func (p *batch) publish(ctx context.Context, call []int) (map[string]driver.Verdict, error) {
	in := &sns.PublishBatchInput{TopicArn: &p.address}
	for at, i := range call {
		m := &p.messages[i]
		e := snstypes.PublishBatchRequestEntry{
			Id: aws.String(strconv.Itoa(at)), Message: aws.String(string(m.Body)),
			MessageAttributes: map[string]snstypes.MessageAttributeValue{},
		}
		for _, a := range m.Attributes {
			if a.Value != "" { // SNS refuses empty ones
				e.MessageAttributes[a.Name] = snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(a.Value)}
			}
		}
		if p.fifo {
			e.MessageGroupId, e.MessageDeduplicationId = aws.String(groupOf(m)), aws.String(dedupOf(m))
		}
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries, e)
	}
	out, err := p.b.sns.PublishBatch(ctx, in)
	if err != nil {
		return nil, err
	}
	answers := map[string]driver.Verdict{}
	for _, f := range out.Failed {
		answers[aws.ToString(f.Id)] = verdictOfEntry(aws.ToString(f.Code), aws.ToString(f.Message), f.SenderFault)
	}
	for _, s := range out.Successful {
		answers[aws.ToString(s.Id)] = driver.Verdict{Kind: driver.Accepted}
	}
	return answers, nil
}

// sendMessages calls SendMessageBatch. A message whose checksum in the answer is not ours may be stored or not.
func (p *batch) sendMessages(ctx context.Context, call []int) (map[string]driver.Verdict, error) {
	in := &sqs.SendMessageBatchInput{QueueUrl: &p.address}
	for at, i := range call {
		m := &p.messages[i]
		e := sqstypes.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(at)), MessageBody: aws.String(string(m.Body)),
			MessageAttributes: map[string]sqstypes.MessageAttributeValue{},
		}
		for _, a := range m.Attributes {
			if a.Value != "" {
				e.MessageAttributes[a.Name] = sqstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(a.Value)}
			}
		}
		if p.fifo {
			e.MessageGroupId, e.MessageDeduplicationId = aws.String(groupOf(m)), aws.String(dedupOf(m))
		}
		in.Entries = append(in.Entries, e)
	}
	out, err := p.b.sqs.SendMessageBatch(ctx, in)
	if err != nil {
		return nil, err
	}
	answers := map[string]driver.Verdict{}
	for _, f := range out.Failed {
		answers[aws.ToString(f.Id)] = verdictOfEntry(aws.ToString(f.Code), aws.ToString(f.Message), f.SenderFault)
	}
	for _, s := range out.Successful {
		at, err := strconv.Atoi(aws.ToString(s.Id))
		if err != nil || at < 0 || at >= len(call) {
			continue
		}
		v := driver.Verdict{Kind: driver.Accepted}
		if sum := checksum(p.messages[call[at]].Body); s.MD5OfMessageBody != nil && *s.MD5OfMessageBody != sum {
			v = driver.Verdict{Err: fmt.Errorf("SQS answers checksum %s instead of %s", *s.MD5OfMessageBody, sum)}
		}
		answers[*s.Id] = v
	}
	return answers, nil
}

func checksum(body []byte) string {
	sum := md5.Sum(body) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// groupOf is the group id of a message at a FIFO topic or queue: the key where it is legal there, which is up to 128 letters,
// digits and punctuation characters (PublishBatchRequestEntry in the API reference), or else its hash. A message without
// key is a group of its own, for it has no order.
func groupOf(m *driver.Message) string {
	if m.Group == "" {
		return m.ID.String()
	}
	return legalID(m.Group)
}

// dedupOf is the deduplication id, of the same characters.
func dedupOf(m *driver.Message) string {
	if m.Dedup == "" {
		return m.ID.String()
	}
	return legalID(m.Dedup)
}

func legalID(text string) string {
	ok := len(text) <= 128
	for i := 0; ok && i < len(text); i++ {
		ok = text[i] > ' ' && text[i] < 0x7f
	}
	if ok {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
