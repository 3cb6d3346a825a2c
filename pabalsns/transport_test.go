package pabalsns_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsns"
)

// probe is a client that notes whether net/http would see an io.WriterTo in a request's body.
type probe struct{ writerTo bool }

func (p *probe) Do(r *http.Request) (*http.Response, error) {
	_, p.writerTo = r.Body.(io.WriterTo)
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_, _ = w.WriteString("{}")
	return w.Result(), nil
}

// net/http probes a body that is an io.WriterTo while the SDK closes it, and then closes the connection under the answer.
// The first case shows that the SDK still gives it one: when it does not, readOnlyBodies may go.
func TestTransportSeesNothingButReadOfABody(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(aws.HTTPClient) aws.HTTPClient
		want bool
	}{
		{"the SDK as it is", func(c aws.HTTPClient) aws.HTTPClient { return c }, true},
		{"as Open has it", pabalsns.ReadOnlyBodies, false},
	} {
		p := &probe{}
		cfg := configuration("http://127.0.0.1:1")
		cfg.HTTPClient = c.wrap(p)
		_, err := sqs.NewFromConfig(cfg).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String("http://127.0.0.1:1/0/q")})
		if err != nil || p.writerTo != c.want {
			t.Errorf("%s: the body is an io.WriterTo: %v, %v", c.name, p.writerTo, err)
		}
	}
}

// A caller's own client is used, through Open.
func TestOpenKeepsTheConfiguredClient(t *testing.T) {
	p := &probe{}
	cfg := configuration("http://127.0.0.1:1")
	cfg.HTTPClient = p
	p.writerTo = true
	b, err := pabalsns.Open(cfg, &pabalsns.Options{Logger: quiet(), Queues: map[string]string{"q": "http://127.0.0.1:1/0/q"}})
	if err != nil {
		t.Fatal(err)
	}
	got := b.Publish(t.Context(), driver.Destination{Queue: "q"}, messages("a"))
	if v := verdicts(got); v != "again" || p.writerTo {
		t.Errorf("answered %s, the body is an io.WriterTo: %v", v, p.writerTo)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsAreCheckedByName(t *testing.T) {
	for _, c := range []struct {
		o    pabalsns.Options
		want string
	}{
		{pabalsns.Options{Prefix: "a.b"}, `Options.Prefix is "a.b"`},
		{pabalsns.Options{Prefix: strings.Repeat("x", 31)}, "Options.Prefix is"},
		{pabalsns.Options{Hold: 1}, "Options.Hold is 1ns"},
		{pabalsns.Options{Hold: 1500e6}, "Options.Hold is 1.5s"},
		{pabalsns.Options{Wait: 21e9}, "Options.Wait is 21s"},
		{pabalsns.Options{MaxReceives: 19}, "Options.MaxReceives is 19: from 20 to 1000"},
		{pabalsns.Options{Retention: 14 * 24 * 3600e9}, "Options.Retention is 336h0m0s"},
		{pabalsns.Options{Retention: 48 * 3600e9, DeadRetention: 48 * 3600e9}, "Options.DeadRetention is 48h0m0s"},
		{pabalsns.Options{Topics: map[string]string{"paid": "paid"}}, `Options.Topics["paid"] is "paid"`},
		{pabalsns.Options{Topics: map[string]string{"paid": "arn:aws:sns:eu-west-1:123456789012:paid"}}, `Options.Topics["paid"] lies in eu-west-1`},
		{pabalsns.Options{Queues: map[string]string{"q": "q"}}, `Options.Queues["q"] is "q"`},
		{pabalsns.Options{FIFOQueues: []string{"event-record-order"}}, `Options.FIFOQueues names "event-record-order"`},
	} {
		if _, err := pabalsns.Open(configuration("http://127.0.0.1:1"), &c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open of %+v answers %v", c.o, err)
		}
	}
	if _, err := pabalsns.Open(aws.Config{}, nil); err == nil || !strings.Contains(err.Error(), "no region") {
		t.Errorf("without region: %v", err)
	}
}
