package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// NATSServer is a NATS server with JetStream. It keeps streams in files of its Dir, which survive Kill and Start.
type NATSServer struct {
	*Process
	Name string // as a stream's information names its leader
	URL  string // for clients; with TLS in the settings a test writes its own

	monitor int // port of the server's monitoring, where it is asked how it is
	store   string
	sync    bool
	routes  []string
}

// NATSOptions say how a server is started.
type NATSOptions struct {
	// SyncAlways syncs each message to disk before it is acknowledged, which a test that only kills a process does not notice.
	SyncAlways bool
	// Store is the directory of the streams, that of another file system perhaps; default one in Dir.
	Store string
	// Settings are further lines of the configuration file, such as "max_payload: 65536".
	Settings []string
}

// NATS starts a server by itself.
func NATS(t testing.TB, o *NATSOptions) *NATSServer {
	t.Helper()
	if o == nil {
		o = &NATSOptions{}
	}
	n := newNATS(t, "nats", o)
	n.Configure(o.Settings...)
	n.run()
	return n
}

func newNATS(t testing.TB, name string, o *NATSOptions) *NATSServer {
	t.Helper()
	p := newProcess(t)
	n := &NATSServer{Process: p, Name: name, URL: fmt.Sprintf("nats://127.0.0.1:%d", p.Port), monitor: FreePort(t),
		store: o.Store, sync: o.SyncAlways}
	if n.store == "" {
		n.store = filepath.Join(p.Dir, "data")
	}
	return n
}

func (n *NATSServer) file() string { return filepath.Join(n.Dir, "nats.conf") }

// Configure replaces the further settings, from the next Start on.
func (n *NATSServer) Configure(settings ...string) {
	n.t.Helper()
	interval := `"2m"` // the server's own default; without quotes it is two million seconds
	if n.sync {
		interval = "always"
	}
	lines := []string{
		fmt.Sprintf("listen: 127.0.0.1:%d", n.Port), fmt.Sprintf("http: 127.0.0.1:%d", n.monitor), "server_name: " + n.Name,
		fmt.Sprintf("jetstream { store_dir: %q, sync_interval: %s }", n.store, interval),
	}
	lines = append(append(lines, n.routes...), settings...)
	if err := os.WriteFile(n.file(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *NATSServer) run() {
	n.t.Helper()
	n.start(spec{name: "NATS", args: []string{tool(n.t, "nats/nats-server"), "-c", n.file()}, ready: n.enabled})
}

// enabled is ready when JetStream runs in this server, whatever its cluster does.
func (n *NATSServer) enabled(ctx context.Context) error {
	return n.ask(ctx, "healthz?js-enabled-only=true", nil)
}

// ask gets a page of the server's monitoring, soon: a server that stands still answers nothing.
func (n *NATSServer) ask(ctx context.Context, page string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", n.monitor, page), nil)
	if err != nil {
		return err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s %s: %w", n.Name, a.Status, text, err)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// NATSCluster is three servers that replicate streams among themselves.
type NATSCluster struct {
	Nodes []*NATSServer
	URL   string // of all, with commas between
}

// StartNATSCluster starts three servers, and waits until they can make streams.
func StartNATSCluster(t testing.TB, o *NATSOptions) *NATSCluster {
	t.Helper()
	if o == nil {
		o = &NATSOptions{}
	}
	if o.Store != "" {
		t.Fatal("NATSOptions.Store is of one server: the three of a cluster each have their own")
	}
	c := &NATSCluster{}
	var ports, urls, routes []string
	for i := range 3 {
		n := newNATS(t, fmt.Sprintf("nats-%d", i+1), o)
		port := FreePort(t)
		c.Nodes = append(c.Nodes, n)
		ports, urls = append(ports, fmt.Sprintf("127.0.0.1:%d", port)), append(urls, n.URL)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	c.URL = strings.Join(urls, ",")
	for i, n := range c.Nodes {
		n.routes = []string{fmt.Sprintf("cluster { name: test, listen: %q, routes: [%s] }", ports[i], strings.Join(routes, ", "))}
		n.Configure(o.Settings...)
		n.run()
	}
	for _, n := range c.Nodes {
		n.until(n.led)
	}
	return c
}

// led tells whether a server knows the leader of its cluster, which makes streams. Its health says yes before that.
func (n *NATSServer) led(ctx context.Context) error {
	var page struct {
		Meta struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	if err := n.ask(ctx, "jsz", &page); err != nil {
		return err
	}
	if page.Meta.Leader == "" {
		return fmt.Errorf("%s knows no leader of the cluster", n.Name)
	}
	return nil
}

// until waits for what the server says about itself.
func (n *NATSServer) until(f func(context.Context) error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			n.t.Fatalf("NATS is not as it should be within %v: %v\n%s", startTime, err, n.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Leader waits until a stream has a leader that runs, and returns it.
func (c *NATSCluster) Leader(stream string) (leader *NATSServer) {
	c.Nodes[0].t.Helper()
	c.Nodes[0].until(func(ctx context.Context) error {
		var failed error
		for _, n := range c.Nodes {
			name, err := n.leader(ctx, stream)
			if err == nil && name == n.Name { // it says so of itself
				leader = n
				return nil
			}
			failed = errors.Join(failed, err)
		}
		return fmt.Errorf("stream %s has no leader: %w", stream, failed)
	})
	return leader
}

// Current waits until every server that runs has all of its streams, as they are.
func (c *NATSCluster) Current() {
	c.Nodes[0].t.Helper()
	for _, n := range c.Nodes {
		if n.child != nil {
			n.until(func(ctx context.Context) error { return n.ask(ctx, "healthz", nil) })
		}
	}
}

// Messages is how many messages of a stream each server keeps.
func (c *NATSCluster) Messages(stream string) (counts []int) {
	c.Nodes[0].t.Helper()
	for _, n := range c.Nodes {
		s, err := n.stream(context.Background(), stream)
		if err != nil {
			n.t.Fatal(err)
		}
		counts = append(counts, s.State.Messages)
	}
	return counts
}

// leader is the name of the server that this one takes for a stream's leader.
func (n *NATSServer) leader(ctx context.Context, stream string) (string, error) {
	s, err := n.stream(ctx, stream)
	return s.Cluster.Leader, err
}

// streamDetail is what a server knows of a stream, by itself.
type streamDetail struct {
	Name    string `json:"name"`
	Cluster struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
	State struct {
		Messages int `json:"messages"`
	} `json:"state"`
}

func (n *NATSServer) stream(ctx context.Context, name string) (streamDetail, error) {
	var page struct {
		Accounts []struct {
			Streams []streamDetail `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := n.ask(ctx, "jsz?accounts=true&streams=true", &page); err != nil {
		return streamDetail{}, err
	}
	for _, a := range page.Accounts {
		for _, s := range a.Streams {
			if s.Name == name {
				return s, nil
			}
		}
	}
	return streamDetail{}, nil
}
