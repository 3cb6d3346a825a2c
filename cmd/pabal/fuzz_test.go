package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalsns"
)

// leaks reports whether what is said of an address has its password, "secret".
func leaks(address, said string) bool {
	before, after, found := strings.Cut(address, "secret@")
	return found && !strings.Contains(before+after, "secret") && strings.HasSuffix(before, ":") && !strings.Contains(before, "?") &&
		strings.Contains(said, "secret")
}

// FuzzRedacted: what is printed of an address never has its password.
func FuzzRedacted(f *testing.F) {
	for _, address := range []string{
		"nats://u:secret@h:4222", "nats://u:secret@h:1,nats://h:2", "nats://h:1,nats://u:secret@h:2", "mysql://u:secret@h/db", "u:secret@tcp(h:1)/db",
		"nats://u:/secret@h", "nats://u:%zsecret@h", "embedded:d", "sns:shop-?hold=5s", "", "smtp://u:secret@h:xx?from=a@b",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if said := redacted(address); leaks(address, said) {
			t.Fatalf("of %q is said %q", address, said)
		}
	})
}

// FuzzNATSAddress: an address is refused, or what it sets is what NATS is opened with; nothing else of it is.
func FuzzNATSAddress(f *testing.F) {
	for _, address := range []string{
		"nats://h:4222", "nats://u:secret@h:1,nats://h:2?stream=S&replicas=3&hold=5s&retention=240h", "tls://h?ca=a.pem&cert=c&key=k", "nats://h?cert=c",
		"nats://h?replicas=-1", "nats://h?hold=1", "nats://h?%zz", "nats://h?creds=x&creds=y&nkey=none", "nats://h?stream=a;b", "nats://?",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		servers, o, err := natsOptions(address)
		if err != nil {
			if leaks(address, err.Error()) {
				t.Fatalf("the error of %q is %q", address, err)
			}
			return
		}
		if strings.Contains(servers, "?") || !strings.HasPrefix(address, servers) {
			t.Fatalf("the servers of %q are %q", address, servers)
		}
		if servers == address && (len(o.NATS) > 0 || o.Stream != "" || o.Replicas != 0 || o.Hold != 0 || o.Retention != 0) {
			t.Fatalf("%q sets %+v", address, o)
		}
	})
}

// FuzzSNSAddress: an address is refused, or its prefix and the names in it make topics and queues that AWS knows.
func FuzzSNSAddress(f *testing.F) {
	for _, rest := range []string{
		"", "shop-", "//shop-?hold=5s&wait=2s", "?fifo=true&fifo_queues=a,b&retention=240h&topic_key=k&queue_key=k", "a b", "?hold=1500ms", "?wait=1h",
		"?topic.paid=arn:aws:sns:us-east-1:123456789012:paid&queue.settlement=https://sqs.us-east-1.amazonaws.com/123456789012/settlement",
		"?topic.paid=arn", "?topic.=x", "?queue.q=", "?fifo=2", "?%zz", "?a;b",
	} {
		f.Add(rest)
	}
	cfg, err := config.LoadDefaultConfig(f.Context(), config.WithRegion("us-east-1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		o, err := snsOptions(rest)
		if err != nil {
			return
		}
		o.Logger = slog.New(slog.DiscardHandler)
		b, err := pabalsns.Open(cfg, &o)
		if err != nil {
			return
		}
		limits := b.Limits()
		if len(o.Prefix) > 30 || !nameForm.MatchString("a"+o.Prefix) || limits.Hold < time.Second || limits.Wait < time.Second || limits.Name < 1 {
			t.Errorf("%q is taken as %+v, with limits %+v", rest, o, limits)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzTopology: a file is refused, or it comes back as it was read, and every document of it is one.
func FuzzTopology(f *testing.F) {
	f.Add([]byte(`{"topics":[{"name":"paid","ordered":true}],"queues":[{"name":"settlement","topics":["paid"]}]}`))
	f.Add([]byte(`{"topics":[{"name":"paid"},{"name":"paid"}],"queues":[{"name":"event-record-order","topics":["paid","paid"]}]}`))
	f.Add([]byte(`{"queues":[{"name":"settlement","topics":["paid"]}]}`))
	f.Add([]byte(`{"topics":[{"name":"${path.root}"},{"name":"a.>"},{"name":""}]}`))
	f.Add([]byte(`{"topics":null,"queues":[null]}`))
	f.Add([]byte(`[]`))
	cfg, err := config.LoadDefaultConfig(f.Context(), config.WithRegion("us-east-1"))
	if err != nil {
		f.Fatal(err)
	}
	broker, err := pabalsns.Open(cfg, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = broker.Close() })
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := parseTopology(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(read)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseTopology(written)
		if err != nil {
			t.Fatalf("%s was read, and not as %s: %v", text, written, err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(written, second) {
			t.Fatalf("%s came back as %s", written, second)
		}
		for _, format := range broker.Formats() {
			var out bytes.Buffer
			if err := broker.Print(&out, format, read); err == nil && !json.Valid(out.Bytes()) {
				t.Fatalf("%s of %s is %s", format, written, &out)
			}
		}
	})
}

// FuzzMoment: what is taken as a time can be kept as one.
func FuzzMoment(f *testing.F) {
	for _, text := range []string{
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789+09:00", "90m", "0s", "-1s", "2562047h47m16.854775807s", "1e9h", "now", "",
		"0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "2026-01-02t03:04:05z",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m moment
		before := time.Now()
		if m.UnmarshalText([]byte(text)) != nil {
			return
		}
		if _, err := time.ParseDuration(text); err == nil && m.After(before.Add(time.Minute)) {
			t.Fatalf("%q is %v, which is still to come", text, m)
		}
		var kept pabal.Redelivery
		written, err := json.Marshal(pabal.Redelivery{From: m.Time})
		if err == nil {
			err = json.Unmarshal(written, &kept)
		}
		if err != nil || !kept.From.Equal(m.Time) {
			t.Fatalf("%q is %v, and kept as %s: %v", text, m, written, err)
		}
	})
}

// FuzzDeliver: a way to deliver is refused, without repeating its password, or it is a whole one.
func FuzzDeliver(f *testing.F) {
	for _, way := range []string{
		"log", "", "https://h/hook?token=x", "http:///hook", "http:h", "http://:80", "smtp://u:secret@h:25?from=a@b", "smtp://h?from=a@b", "smtp://u:secret@h:25",
		"smtps://u:secret@h", "smtp://u:/secret@h:25", "smtp://h:25?from=a%0d%0aTo:b@c", "smtp://u:secret@h:x", "LOG", "https://[::1",
	} {
		f.Add(way)
	}
	a := &app{log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, way string) {
		delivery, err := (&shopCommand{Deliver: way}).delivery(a)
		if err != nil && leaks(way, err.Error()) {
			t.Fatalf("the error of %q is %q", way, err)
		}
		if (err == nil) != (delivery != nil) {
			t.Fatalf("%q: %v", way, err)
		}
		if err == nil && way != "log" && !strings.Contains(way, "//") {
			t.Fatalf("%q is taken, and has no host", way)
		}
	})
}

// The passwords that lists of servers and addresses which are no URLs once gave away, and a token, which stands where a user does.
func TestAddressesAreShownWithoutSecrets(t *testing.T) {
	for address, want := range map[string]string{
		"nats://u:secret@h:1":                     "nats://u:xxxxx@h:1",
		"nats://secret@h:1":                       "nats://xxxxx@h:1",
		"nats://u:secret@h:1,nats://v:secret@i:2": "nats://xxxxx@i:2",
		"nats://u:sec/ret@h:1":                    "nats://xxxxx@h:1",
		"u:secret@tcp(h:3306)/db":                 "u:xxxxx@tcp(h:3306)/db",
		"postgres://u@h/db":                       "postgres://u@h/db",
		"sns:shop-?hold=5s":                       "sns:shop-?hold=5s",
	} {
		if got := redacted(address); got != want {
			t.Errorf("%s is shown as %s, not %s", address, got, want)
		}
	}
}
