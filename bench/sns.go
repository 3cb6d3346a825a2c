package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
)

const (
	snsEvents   = 6000
	snsAhead    = 4000 // committed and not confirmed, at full rate
	naiveEvents = 600  // it takes about as long with a tenth of them
	snsTime     = time.Minute
)

// snsRates are events a second at which latency is measured: idle, and half of what one receiver by hand can do.
var snsRates = []int{60, 200}

var snsServices = []string{"settlement", "notification", "ledger"}

// snsRows measures Pabal over SNS and SQS, on a quick server of both, beside what is done without it: one Publish after each
// commit, one message for each receive and delete. Stores are in memory on both sides: only what goes to the broker
// is compared. One part counts requests, at a proxy that does nothing else; the others go to the server itself.
func snsRows(ctx context.Context, b *bench) ([]row, error) {
	return withServers(func(t testing.TB) ([]row, error) {
		server := servers.Fauxqs(t, false)
		proxy := hostile.Start(t, server.URL, 1, hostile.Rates{})
		s := &snsPart{url: server.URL, server: server.PID(), proxy: proxy}
		var rows []row
		for _, part := range []func(context.Context, *bench) ([]row, error){s.requests, s.rates, s.latencies, s.adapter} {
			r, err := part(ctx, b)
			if rows = append(rows, r...); err != nil {
				return rows, err
			}
		}
		return rows, nil
	})
}

type snsPart struct {
	url    string
	server int // its process
	proxy  *hostile.Proxy
	runs   int
}

// prefix is of names that no other run uses.
func (s *snsPart) prefix() string {
	s.runs++
	return fmt.Sprintf("r%d-", s.runs)
}

// requests counts calls: at full rate, with many events ahead of what is confirmed or with few, and at the rate of the example in
// docs/operations.md, at which batches hardly form by themselves.
func (s *snsPart) requests(ctx context.Context, b *bench) (rows []row, err error) {
	for _, c := range []struct {
		how, target string
		traffic     traffic
	}{
		{"full rate, 4,000 ahead", "≤ 1.05 (0.90 is all tens, 9 one by one)", fullRate(snsEvents, snsAhead)},
		{"full rate, 1,000 ahead", "", fullRate(snsEvents, snsAhead/4)},
		{"100/s", "", traffic{events: max(int(b.each.Seconds()*100), 100), rate: 100}},
	} {
		r, err := s.count(ctx, b, c.traffic, c.how, c.target)
		if rows = append(rows, r...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (s *snsPart) count(ctx context.Context, b *bench, t traffic, how, target string) ([]row, error) {
	var each []float64
	batches := map[string][]float64{}
	for range b.rounds {
		run := pabalRun{prefix: s.prefix(), url: s.proxy.URL, traffic: t}
		var before map[string]int
		run.ready = func() { before = s.proxy.Calls() }
		if _, err := run.do(ctx); err != nil {
			return nil, err
		}
		sum := 0
		for action, n := range s.proxy.Calls() {
			n -= before[action]
			sum += n
			copies := t.events
			if strings.HasPrefix(action, "Receive") || strings.HasPrefix(action, "Delete") {
				copies *= len(snsServices) + 1
			}
			if n > copies/100 { // others are of no batches, such as GetQueueUrl
				batches[action] = append(batches[action], float64(copies)/float64(n))
			}
		}
		each = append(each, float64(sum)/float64(t.events))
	}
	rows := []row{{
		fmt.Sprintf("SNS and SQS: API requests an event, published, handled by three, confirmed; counted at a proxy, %s", how),
		spread(each, "%.3f"), target,
	}}
	var list []string
	for action, sizes := range batches {
		list = append(list, fmt.Sprintf("%s %.2f", action, median(sizes)))
	}
	slices.Sort(list)
	return append(rows, row{"messages in a call", strings.Join(list, ", "), ""}), nil
}

func fullRate(events, ahead int) traffic { return traffic{events: events, writers: 8, ahead: ahead} }

// rates compares events a second, and the processor time that both sides take: on a machine that they fill, the ratio of
// their times bounds that of their rates.
func (s *snsPart) rates(ctx context.Context, b *bench) ([]row, error) {
	var pabal, ownCPU, serverCPU []float64
	var naive, ratio, bound [2][]float64
	receivers := [...]int{1, 8} // of a queue
	for range b.rounds {
		p, err := s.timed(snsEvents, func() (snsResult, error) {
			return pabalRun{prefix: s.prefix(), url: s.url, traffic: fullRate(snsEvents, snsAhead)}.do(ctx)
		})
		if err != nil {
			return nil, err
		}
		pabal, ownCPU, serverCPU = append(pabal, p.rate), append(ownCPU, p.own), append(serverCPU, p.server)
		for i, loops := range receivers {
			n, err := s.timed(naiveEvents, func() (snsResult, error) {
				return naiveRun{prefix: s.prefix(), url: s.url, loops: loops, traffic: fullRate(naiveEvents, snsAhead)}.do(ctx)
			})
			if err != nil {
				return nil, fmt.Errorf("naive: %w", err)
			}
			naive[i], ratio[i] = append(naive[i], n.rate), append(ratio[i], p.rate/n.rate)
			bound[i] = append(bound[i], (n.own+n.server)/(p.own+p.server))
		}
	}
	return []row{
		{"SNS and SQS: events/s, from the first commit until all are handled by three and confirmed", spread(pabal, "%.0f"), ""},
		{"the same by hand: a call for each message, 8 publishers, one receiver a queue", spread(naive[0], "%.0f"), ""},
		{"ratio of the two", spread(ratio[0], "%.1f"), "≥ 5"},
		{"by hand with 8 receivers a queue", spread(naive[1], "%.0f"), ""},
		{"ratio to that", spread(ratio[1], "%.1f"), ""},
		{"processor time an event: Pabal with the SDK, and the server", spread(ownCPU, "%.0f") + " µs, " + spread(serverCPU, "%.0f") + " µs", ""},
		{"what by hand takes over that, both sides: no two cores allow a larger ratio of rates",
			spread(bound[0], "%.1f") + ", with 8 receivers " + spread(bound[1], "%.1f"), ""},
	}, nil
}

// timedRun is what a run did a second, and the µs of processor time that it took an event, here and at the server.
type timedRun struct{ rate, own, server float64 }

func (s *snsPart) timed(events int, run func() (snsResult, error)) (timedRun, error) {
	used := func() (own, server time.Duration, err error) {
		server, err = cpuTimeOf(s.server)
		return cpuTime(), server, err
	}
	own, server, err := used()
	if err != nil {
		return timedRun{}, err
	}
	result, err := run()
	if err != nil {
		return timedRun{}, err
	}
	ownAfter, serverAfter, err := used()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(events) }
	return timedRun{float64(events) / result.took.Seconds(), each(ownAfter - own), each(serverAfter - server)}, err
}

// latencies compares commit → handler, at rates that both can do.
func (s *snsPart) latencies(ctx context.Context, b *bench) (rows []row, err error) {
	for _, rate := range snsRates {
		r, err := s.latency(ctx, b, rate)
		if rows = append(rows, r...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (s *snsPart) latency(ctx context.Context, b *bench, rate int) ([]row, error) {
	var p50, p99, n50, n99, r50, r99 []float64
	t := traffic{events: max(int(b.each.Seconds()*float64(rate)), rate), rate: rate}
	for range b.rounds {
		p, err := pabalRun{prefix: s.prefix(), url: s.url, traffic: t}.do(ctx)
		if err != nil {
			return nil, err
		}
		n, err := naiveRun{prefix: s.prefix(), url: s.url, loops: 1, traffic: t}.do(ctx)
		if err != nil {
			return nil, fmt.Errorf("naive: %w", err)
		}
		p50, p99 = append(p50, quantile(p.ms, 0.5)), append(p99, quantile(p.ms, 0.99))
		n50, n99 = append(n50, quantile(n.ms, 0.5)), append(n99, quantile(n.ms, 0.99))
		r50 = append(r50, quantile(p.ms, 0.5)/quantile(n.ms, 0.5))
		r99 = append(r99, quantile(p.ms, 0.99)/quantile(n.ms, 0.99))
	}
	return []row{
		{fmt.Sprintf("SNS and SQS: commit → handler starts, each of three consumers, %d/s", rate),
			"p50 " + spread(p50, "%.2f") + " ms, p99 " + spread(p99, "%.2f") + " ms", ""},
		{"the same by hand, one receiver a queue", "p50 " + spread(n50, "%.2f") + " ms, p99 " + spread(n99, "%.2f") + " ms", ""},
		{"ratio of the two", "p50 " + spread(r50, "%.2f") + ", p99 " + spread(r99, "%.2f"), "≤ 1 (never worse)"},
	}, nil
}

// snsResult is what came of a run.
type snsResult struct {
	took time.Duration
	ms   []float64 // commit → handler
}

// awsConfig speaks to the server as pabalsns does when it is left to itself, and counts calls where that is asked for.
func awsConfig(url string, calls *atomic.Int64) aws.Config {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 256, 128
	})
	cfg := aws.Config{
		Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
		HTTPClient: client,
	}
	if calls != nil {
		cfg.HTTPClient = countingClient{client, calls}
	}
	return cfg
}

type countingClient struct {
	aws.HTTPClient
	n *atomic.Int64
}

func (c countingClient) Do(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.HTTPClient.Do(r)
}

// readOnly spares what is compared with pabalsns the race that pabalsns/transport.go describes: without it the SDK
// alone would look much worse than it has to.
type readOnly struct{ aws.HTTPClient }

func (c readOnly) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}

var errLate = errors.New("it took longer than " + snsTime.String())
