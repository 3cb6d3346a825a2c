// Package hostile has proxies for tests. One stands before PostgreSQL: see [Commits]. The other, [Proxy], stands before a server
// which speaks SNS (query protocol) and SQS (JSON protocol) and does, from a seed, what Amazon's documentation allows and no emulator shows: answers lost after the call was carried
// out, refusals in all spellings, half-failed and unanswered batches, calls carried out twice, short and shuffled receives,
// deletes that did nothing. Its rates may be changed while it runs, and it counts the calls that came.
package hostile

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Rates are probabilities, from 0 to 1, of what happens to a call of messages: PublishBatch, SendMessageBatch, ReceiveMessage,
// DeleteMessageBatch, ChangeMessageVisibilityBatch. All other calls go through.
type Rates struct {
	Lost        float64       // carried out, and its connection cut without an answer
	Unavailable float64       // not carried out: 500 or 503
	Throttled   float64       // not carried out: one of the spellings of "too many calls"
	HalfFailed  float64       // a batch: about half of its entries are not carried out and answered as failed,
	SenderFault float64       // and of these, this share by the sender's fault
	Empty       float64       // not carried out, and answered with 200 and two empty lists
	Unmentioned float64       // a batch: carried out, but one entry is in neither list of the answer
	Doubled     float64       // carried out twice; the second answer counts
	Short       float64       // a receive: asks for one to three messages only
	Shuffled    float64       // a receive: its messages in another order
	NotDeleted  float64       // a delete: answered as done, not carried out
	Delayed     float64       // waits before it is carried out, up to
	DelayMost   time.Duration // this
}

// Each is rates of the same size for everything but SenderFault and half-failed batches.
func Each(rate, halfFailed float64) Rates {
	return Rates{
		Lost: rate, Unavailable: rate, Throttled: rate, HalfFailed: halfFailed, Empty: rate, Unmentioned: rate, Doubled: rate,
		Short: rate, Shuffled: rate, NotDeleted: rate, Delayed: rate, DelayMost: 100 * time.Millisecond,
	}
}

// Proxy is a misbehaving proxy. Its methods are safe for concurrent use.
type Proxy struct {
	URL string

	target string
	client *http.Client

	mu     sync.Mutex
	random *rand.Rand
	rates  Rates
	script map[string][]Answer
	calls  map[string]int
	events map[string]int
}

// Answer is an answer that is given instead of the server's.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Start starts a proxy on the loopback interface in front of the server at target; it ends with the test.
func Start(t testing.TB, target string, seed uint64, rates Rates) *Proxy {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 128}
	p := &Proxy{
		target: target, client: &http.Client{Transport: transport}, random: rand.New(rand.NewPCG(seed, 0)), rates: rates,
		script: map[string][]Answer{}, calls: map[string]int{}, events: map[string]int{},
	}
	server := httptest.NewServer(p)
	p.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections() // of polls that nobody waits for
		server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Set changes the rates.
func (p *Proxy) Set(rates Rates) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rates = rates
}

// Script has the next calls of an action answered so, one after another, without being carried out.
func (p *Proxy) Script(action string, answers ...Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script[action] = append(p.script[action], answers...)
}

// Calls answers how many calls of each action came since the start.
func (p *Proxy) Calls() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls)
}

// Done answers how often each misbehaviour happened.
func (p *Proxy) Done() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.events)
}

// call is one call on its way.
type call struct {
	action string
	header http.Header
	path   string
	body   []byte
	sns    bool
}

// ServeHTTP does with one call what the seed says.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := &call{header: r.Header, path: r.URL.Path, body: body}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		c.action = strings.TrimPrefix(target, "AmazonSQS.")
	} else if form, err := url.ParseQuery(string(body)); err == nil {
		c.action, c.sns = form.Get("Action"), true
	}
	answer, lost := p.handle(c)
	if lost {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Header {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body) // whoever does not read it has gone
}

// scripted answers what the test has put down for the next call of an action.
func (p *Proxy) scripted(action string) (Answer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[action]++
	list := p.script[action]
	if len(list) == 0 {
		return Answer{}, false
	}
	p.script[action] = list[1:]
	return list[0], true
}

// draw decides whether something of this rate happens.
func (p *Proxy) draw(what string, rate func(Rates) float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.random.Float64() >= rate(p.rates) {
		return false
	}
	p.events[what]++
	return true
}

func (p *Proxy) number(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.random.IntN(n)
}

func (p *Proxy) handle(c *call) (answer Answer, lost bool) {
	if a, ok := p.scripted(c.action); ok {
		return a, false
	}
	b := batches[c.action]
	if b == nil && c.action != "ReceiveMessage" {
		return p.forward(c)
	}
	if p.draw("delayed", func(r Rates) float64 { return r.Delayed }) {
		p.delay()
	}
	switch {
	case p.draw("unavailable", func(r Rates) float64 { return r.Unavailable }):
		return unavailable[p.number(len(unavailable))], false
	case p.draw("throttled", func(r Rates) float64 { return r.Throttled }):
		return throttled(c.sns, Spellings[p.number(len(Spellings))]), false
	case p.draw("empty", func(r Rates) float64 { return r.Empty }):
		return empty(c), false
	}
	if p.draw("doubled", func(r Rates) float64 { return r.Doubled }) {
		_, _ = p.forward(c)
	}
	if b == nil {
		answer, lost = p.receive(c)
	} else {
		answer, lost = p.batch(c, b)
	}
	return answer, lost || p.draw("lost", func(r Rates) float64 { return r.Lost })
}

func (p *Proxy) delay() {
	p.mu.Lock()
	d := time.Duration(p.random.Int64N(int64(p.rates.DelayMost) + 1))
	p.mu.Unlock()
	<-time.After(d)
}

// forward carries a call out. It goes on when whoever called has gone: so does AWS.
func (p *Proxy) forward(c *call) (answer Answer, lost bool) {
	r, err := http.NewRequest(http.MethodPost, p.target+c.path, bytes.NewReader(c.body))
	if err != nil {
		return Answer{}, true
	}
	r.Header = c.header.Clone()
	r.Header.Del("Accept-Encoding")
	got, err := p.client.Do(r)
	if err != nil {
		return Answer{}, true // the server is down
	}
	defer got.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(got.Body)
	if err != nil {
		return Answer{}, true
	}
	return Answer{got.StatusCode, got.Header, string(body)}, false
}

// Spellings are the codes by which SNS and SQS say "too many calls".
var Spellings = []string{
	"Throttling", "ThrottlingException", "Throttled", "RequestThrottled", "TooManyRequestsException", "KMSThrottling",
	"KMS.ThrottlingException", "KmsThrottled", "OverLimit", "RequestLimitExceeded",
}

var unavailable = []Answer{
	{Status: http.StatusInternalServerError, Body: "internal error"},
	{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}, Body: "unavailable"},
	{Status: http.StatusBadGateway},
}

func throttled(sns bool, code string) Answer {
	status := http.StatusTooManyRequests
	if strings.HasPrefix(code, "K") || code == "OverLimit" || code == "Throttling" {
		status = http.StatusBadRequest
	}
	return Refusal(sns, status, code)
}

// Refusal is how SNS, or SQS, refuses a call.
func Refusal(sns bool, status int, code string) Answer {
	if sns {
		return Answer{status, http.Header{"Content-Type": {"text/xml"}}, fmt.Sprintf(
			"<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>on purpose</Message></Error></ErrorResponse>", code)}
	}
	return Answer{status, http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, fmt.Sprintf(
		`{"__type":"com.amazonaws.sqs#%s","message":"on purpose"}`, code)}
}
