package pabalsns

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Queue policies. Without a statement that lets SNS send, a queue gets nothing, and nobody is told ("Fanout to Amazon SQS
// queues" in the SNS developer guide). A policy can only be read and written as a whole: statements of others are kept
// byte for byte, and ours is the same whoever writes it, or processes that add a topic each would undo each other's.
// That is why it allows all topics of the installation, by prefix, and names only brought topics one by one.

const (
	snsService  = "sns.amazonaws.com"
	sendMessage = "sqs:SendMessage"
	ourSid      = "PabalTopics"
	ourTopicSid = "PabalTopic" // and a number
)

// statement is what we read of a policy's statement. Policies allow a string where a list has one element.
type statement struct {
	Sid          string
	Effect       string
	Principal    principal
	NotPrincipal json.RawMessage
	Action       texts
	NotAction    texts
	Resource     texts
	NotResource  texts
	Condition    map[string]map[string]texts
}

type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// principal is the services that a statement is about; "*" is everybody.
type principal texts

func (p *principal) UnmarshalJSON(b []byte) error {
	var all string
	if json.Unmarshal(b, &all) == nil {
		*p = principal{all}
		return nil
	}
	var kinds map[string]texts
	if err := json.Unmarshal(b, &kinds); err != nil {
		return err
	}
	*p = principal(kinds["Service"])
	if slices.Contains(kinds["AWS"], "*") {
		*p = append(*p, "*")
	}
	return nil
}

// policy is a queue's policy: its statements as they are, and as we read them.
type policy struct {
	raw        map[string]json.RawMessage
	statements []json.RawMessage
	read       []statement
}

func parsePolicy(text string) (*policy, error) {
	p := &policy{raw: map[string]json.RawMessage{"Version": json.RawMessage(`"2012-10-17"`)}}
	if text == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(text), &p.raw); err != nil {
		return nil, fmt.Errorf("read queue policy: %w", err)
	}
	if list := p.raw["Statement"]; len(list) > 0 {
		if json.Unmarshal(list, &p.statements) != nil {
			p.statements = []json.RawMessage{list} // a single one may stand without a list
		}
	}
	for _, raw := range p.statements {
		var s statement
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("read statement of queue policy: %w", err)
		}
		p.read = append(p.read, s)
	}
	return p, nil
}

// allows reports whether a topic may send to a queue, as far as can be told: a condition that we do not know is taken as not
// fulfilled.
func (p *policy) allows(queueARN, topicARN string) bool {
	allowed := false
	for i := range p.read {
		s := &p.read[i]
		if !s.about(queueARN) || !s.fulfilled(topicARN) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = allowed || s.Effect == "Allow"
	}
	return allowed
}

func (s *statement) about(queueARN string) bool {
	if len(s.NotPrincipal) > 0 || len(s.NotAction) > 0 || len(s.NotResource) > 0 {
		return false
	}
	return slices.ContainsFunc(s.Principal, func(p string) bool { return p == snsService || p == "*" }) &&
		slices.ContainsFunc(s.Action, func(a string) bool { return matches(strings.ToLower(a), strings.ToLower(sendMessage)) }) &&
		(len(s.Resource) == 0 || slices.ContainsFunc(s.Resource, func(r string) bool { return matches(r, queueARN) }))
}

func (s *statement) fulfilled(topicARN string) bool {
	account := strings.Split(topicARN, ":")[4]
	for operator, keys := range s.Condition {
		for key, values := range keys {
			var actual string
			switch strings.ToLower(key) {
			case "aws:sourcearn":
				actual = topicARN
			case "aws:sourceaccount":
				actual = account
			default:
				return false
			}
			switch operator {
			case "ArnEquals", "ArnLike", "StringLike":
				if !slices.ContainsFunc(values, func(v string) bool { return matches(v, actual) }) {
					return false
				}
			case "StringEquals":
				if !slices.Contains(values, actual) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// matches is IAM's pattern: '*' stands for any text, '?' for a character.
func matches(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := range len(text) + 1 {
				if matches(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "", pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
	return text == ""
}

// ourStatement lets topics send to a queue.
func ourStatement(sid, queueARN, topics string) map[string]any {
	return map[string]any{
		"Sid": sid, "Effect": "Allow", "Principal": map[string]any{"Service": snsService},
		"Action": sendMessage, "Resource": queueARN,
		"Condition": map[string]any{"ArnLike": map[string]any{"aws:SourceArn": topics}},
	}
}

// with returns the policy's text with what is missing so that all these topics may send. own is the pattern of the
// installation's own topics.
func (p *policy) with(queueARN, own string, topicARNs []string) (string, error) {
	now := &policy{raw: p.raw, statements: slices.Clone(p.statements), read: slices.Clone(p.read)}
	for _, topic := range topicARNs {
		if now.allows(queueARN, topic) {
			continue
		}
		sid, pattern := ourSid, own
		if !matches(own, topic) {
			sid, pattern = fmt.Sprintf("%s%d", ourTopicSid, len(now.statements)), topic
		}
		raw, err := json.Marshal(ourStatement(now.free(sid), queueARN, pattern))
		if err != nil {
			return "", err
		}
		var read statement
		if err := json.Unmarshal(raw, &read); err != nil {
			return "", err
		}
		now.statements, now.read = append(now.statements, raw), append(now.read, read)
		if !now.allows(queueARN, topic) {
			return "", fmt.Errorf("the policy of queue %s forbids what topic %s sends: remove the statement that denies it",
				nameOfARN(queueARN), nameOfARN(topic))
		}
	}
	raw := map[string]any{}
	for name, value := range p.raw {
		raw[name] = value
	}
	raw["Statement"] = now.statements
	text, err := json.Marshal(raw)
	return string(text), err
}

// free is a statement id that the policy does not have yet: a statement of ours may be there and no longer fit.
func (p *policy) free(sid string) string {
	for n := 2; slices.ContainsFunc(p.read, func(s statement) bool { return s.Sid == sid }); n++ {
		sid = fmt.Sprintf("%s%d", strings.TrimRight(sid, "0123456789"), n)
	}
	return sid
}
