package hostile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// batchAction is a call with entries, and what its entries fail with: by nobody's fault, and by the sender's.
type batchAction struct{ fault, senderFault string }

var batches = map[string]*batchAction{
	"PublishBatch":                 {"InternalError", "InvalidParameter"},
	"SendMessageBatch":             {"InternalError", "InvalidParameterValue"},
	"DeleteMessageBatch":           {"InternalError", "ReceiptHandleIsInvalid"},
	"ChangeMessageVisibilityBatch": {"InternalError", "MessageNotInflight"},
}

const memberPrefix = "PublishBatchRequestEntries.member."

// failure is an entry that is not carried out.
type failure struct {
	id, code string
	sender   bool
}

// batch carries a call with entries out, or a part of it, or says so.
func (p *Proxy) batch(c *call, b *batchAction) (Answer, bool) {
	var failed []failure
	part := *c
	if p.draw("half-failed", func(r Rates) float64 { return r.HalfFailed }) {
		part.body, failed = p.split(c, b)
	}
	if c.action == "DeleteMessageBatch" && p.draw("not deleted", func(r Rates) float64 { return r.NotDeleted }) {
		return Answer{http.StatusOK, jsonHeader(), `{"Failed":[],"Successful":[` + strings.Join(succeeded(c.body), ",") + `]}`}, false
	}
	answer, lost := empty(c), false
	if len(failed) < c.entries() {
		answer, lost = p.forward(&part)
	}
	if answer.Status != http.StatusOK {
		return answer, lost
	}
	if len(failed) > 0 {
		answer.Body = withFailed(c.sns, answer.Body, failed)
	}
	if p.draw("unmentioned", func(r Rates) float64 { return r.Unmentioned }) {
		answer.Body = withoutFirst(c.sns, answer.Body)
	}
	return answer, lost
}

func jsonHeader() http.Header { return http.Header{"Content-Type": {"application/x-amz-json-1.0"}} }

// request is what we read of SQS's calls.
type request struct {
	Entries []map[string]any
}

func (c *call) entries() int {
	if !c.sns {
		var r request
		_ = json.Unmarshal(c.body, &r) // the server says what is wrong with it
		return len(r.Entries)
	}
	form, _ := url.ParseQuery(string(c.body))
	n := 0
	for form.Has(memberPrefix + strconv.Itoa(n+1) + ".Id") {
		n++
	}
	return n
}

// succeeded are the entries of a call as SQS lists them when all is well.
func succeeded(body []byte) (list []string) {
	var r request
	_ = json.Unmarshal(body, &r)
	for _, e := range r.Entries {
		list = append(list, fmt.Sprintf(`{"Id":%q}`, e["Id"]))
	}
	return list
}

// split takes about half of the entries out of a call.
func (p *Proxy) split(c *call, b *batchAction) (body []byte, failed []failure) {
	fail := func(id string) bool {
		if p.number(2) == 0 {
			return false
		}
		f := failure{id: id, code: b.fault}
		if p.draw("sender's fault", func(r Rates) float64 { return r.SenderFault }) {
			f.code, f.sender = b.senderFault, true
		}
		failed = append(failed, f)
		return true
	}
	if c.sns {
		return splitForm(c.body, fail), failed
	}
	var r map[string]any
	if json.Unmarshal(c.body, &r) != nil {
		return c.body, nil
	}
	entries, _ := r["Entries"].([]any)
	r["Entries"] = slices.DeleteFunc(entries, func(e any) bool {
		entry, _ := e.(map[string]any)
		id, _ := entry["Id"].(string)
		return fail(id)
	})
	body, err := json.Marshal(r)
	if err != nil {
		return c.body, nil
	}
	return body, failed
}

func splitForm(body []byte, fail func(id string) bool) []byte {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return body
	}
	kept := url.Values{}
	for name, values := range form {
		if !strings.HasPrefix(name, memberPrefix) {
			kept[name] = values
		}
	}
	to := 0
	for from := 1; form.Has(memberPrefix + strconv.Itoa(from) + ".Id"); from++ {
		prefix := memberPrefix + strconv.Itoa(from) + "."
		if fail(form.Get(prefix + "Id")) {
			continue
		}
		to++
		for name, values := range form {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				kept[memberPrefix+strconv.Itoa(to)+"."+rest] = values
			}
		}
	}
	return []byte(kept.Encode())
}

func withFailed(sns bool, body string, failed []failure) string {
	if sns {
		var members strings.Builder
		for _, f := range failed {
			fmt.Fprintf(&members, "<member><Id>%s</Id><Code>%s</Code><Message>on purpose</Message><SenderFault>%v</SenderFault></member>",
				f.id, f.code, f.sender)
		}
		return strings.Replace(body, "</Failed>", members.String()+"</Failed>", 1)
	}
	var answer map[string]any
	if json.Unmarshal([]byte(body), &answer) != nil {
		return body
	}
	list, _ := answer["Failed"].([]any)
	for _, f := range failed {
		list = append(list, map[string]any{"Id": f.id, "Code": f.code, "Message": "on purpose", "SenderFault": f.sender})
	}
	answer["Failed"] = list
	text, err := json.Marshal(answer)
	if err != nil {
		return body
	}
	return string(text)
}

var firstMember = regexp.MustCompile(`(?s)<Successful>\s*<member>.*?</member>`)

// withoutFirst takes the first entry out of the list Successful.
func withoutFirst(sns bool, body string) string {
	if sns {
		return firstMember.ReplaceAllString(body, "<Successful>")
	}
	var answer map[string]any
	if json.Unmarshal([]byte(body), &answer) != nil {
		return body
	}
	if list, _ := answer["Successful"].([]any); len(list) > 0 {
		answer["Successful"] = list[1:]
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return body
	}
	return string(text)
}

// empty is an answer that everything is well, and nothing done.
func empty(c *call) Answer {
	switch {
	case c.sns:
		return Answer{http.StatusOK, http.Header{"Content-Type": {"text/xml"}}, "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">" +
			"<PublishBatchResult><Successful></Successful><Failed></Failed></PublishBatchResult></PublishBatchResponse>"}
	case c.action == "ReceiveMessage":
		return Answer{http.StatusOK, jsonHeader(), "{}"}
	default:
		return Answer{http.StatusOK, jsonHeader(), `{"Successful":[],"Failed":[]}`}
	}
}

// receive carries a ReceiveMessage out.
func (p *Proxy) receive(c *call) (Answer, bool) {
	part := *c
	if p.draw("short", func(r Rates) float64 { return r.Short }) {
		var r map[string]any
		if json.Unmarshal(c.body, &r) == nil {
			r["MaxNumberOfMessages"] = 1 + p.number(3)
			if body, err := json.Marshal(r); err == nil {
				part.body = body
			}
		}
	}
	answer, lost := p.forward(&part)
	if answer.Status == http.StatusOK && p.draw("shuffled", func(r Rates) float64 { return r.Shuffled }) {
		var got map[string]any
		if json.Unmarshal([]byte(answer.Body), &got) == nil {
			list, _ := got["Messages"].([]any)
			for i := range list {
				j := p.number(i + 1)
				list[i], list[j] = list[j], list[i]
			}
			if body, err := json.Marshal(got); err == nil {
				answer.Body = string(body)
			}
		}
	}
	return answer, lost
}
