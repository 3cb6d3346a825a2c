package pabalnats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// said is a log that a test reads while it is written.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// within waits until something is so.
func within(t *testing.T, most time.Duration, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(most); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}

func publishOne(t *testing.T, b *pabalnats.Broker) driver.Verdict {
	t.Helper()
	call, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	return b.Publish(call, driver.Destination{Topic: "paid"}, []driver.Message{message(uuid.New())})[0]
}

// A network that is cut, or that swallows everything, between us and the server, costs no message that was accepted; it is
// noticed, said, and mended without anybody's help.
func TestCutNetworkLosesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(*servers.Link)
	}{{"cut", (*servers.Link).Cut}, {"swallowed", (*servers.Link).Swallow}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := servers.NATS(t, nil)
			link, log := servers.NewLink(t, fmt.Sprintf("127.0.0.1:%d", server.Port)), &said{}
			o := &pabalnats.Options{Logger: log.logger(), Hold: 2 * time.Second}
			b := openVillage(t, "nats://"+link.Addr, o)
			most := b.Limits().Message
			ctx, stop := context.WithCancel(t.Context())
			done, collected := make(chan []string, 1), make(chan map[string]int, 1)
			again := 0
			go func() {
				var accepted []string
				accepted, again = load(ctx, b)
				done <- accepted
			}()
			go func() {
				defer close(collected)
				collected <- collect(t, b, done)
			}()
			for round := range 2 {
				for range 50 {
					within(t, 10*time.Second, "messages are accepted", func() bool { return publishOne(t, b).Kind == driver.Accepted })
				}
				c.cut(link)
				within(t, 40*time.Second, "the log says that the connection is lost", func() bool {
					return strings.Count(log.String(), "NATS connection lost, reconnecting") > round
				})
				if v := publishOne(t, b); v.Kind != driver.Again || v.Err == nil {
					t.Errorf("published into a network that is cut: %v", v)
				}
				if got := b.Limits().Message; got != most {
					t.Errorf("a message may have %d bytes now, not %d", got, most)
				}
				link.Mend()
				within(t, 40*time.Second, "the log says that the connection is back", func() bool {
					return strings.Count(log.String(), "NATS connection is back") > round
				})
			}
			within(t, 40*time.Second, "messages are accepted", func() bool { return publishOne(t, b).Kind == driver.Accepted })
			stop()
			came := <-collected
			t.Logf("%d messages came; %d tries were not accepted", len(came), again)
			if len(came) == 0 || again == 0 {
				t.Error("the network was not cut under load")
			}
		})
	}
}

// Close is no trouble that an operator hears of.
func TestCloseSaysNothing(t *testing.T) {
	log := &said{}
	b, err := pabalnats.Connect(t.Context(), startServer(t), &pabalnats.Options{Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if log.String() != "" {
		t.Errorf("it says %q", log)
	}
}

// P3: a service may start before its broker does.
func TestConnectWaitsForTheServerThatIsNotThere(t *testing.T) {
	port, log := servers.FreePort(t), &said{}
	b := open(t, fmt.Sprintf("nats://127.0.0.1:%d", port), &pabalnats.Options{Logger: log.logger()})
	if !strings.Contains(log.String(), "NATS is away") {
		t.Errorf("the log says %q", log)
	}
	if most := b.Limits().Message; most != 1<<20 {
		t.Errorf("a message may have %d bytes, as long as no server says how many", most)
	}
	if v := publishOne(t, b); v.Kind != driver.Again || v.Err == nil || !strings.Contains(v.Err.Error(), "not connected to NATS") {
		t.Errorf("published to nobody: %v", v)
	}
	call, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Check(call, village, false); !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "not connected to NATS") {
		t.Errorf("the topology of nobody: %v", err)
	}
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer ns.WaitForShutdown()
	defer ns.Shutdown()
	within(t, 30*time.Second, "the server is found", func() bool { return b.Check(t.Context(), village, true) == nil })
	if v := publishOne(t, b); v.Kind != driver.Accepted {
		t.Errorf("published to a server that came later: %v", v)
	}
	if !strings.Contains(log.String(), "NATS connection is there") {
		t.Errorf("the log says %q", log)
	}
}

// A server that stands still takes connections, and is away all the same.
func TestConnectWaitsForTheServerThatSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // of a test
	log := &said{}
	open(t, "nats://user:secret@"+l.Addr().String(), &pabalnats.Options{Logger: log.logger()})
	if text := log.String(); !strings.Contains(text, "NATS is away") || strings.Contains(text, "secret") {
		t.Errorf("the log says %q", text)
	}
}

func TestConnectNamesTheServerWithoutJetStream(t *testing.T) {
	plain, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	plain.Start()
	defer plain.WaitForShutdown()
	defer plain.Shutdown()
	if !plain.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS is not ready")
	}
	_, err = pabalnats.Connect(t.Context(), plain.ClientURL(), nil)
	if err == nil || !strings.Contains(err.Error(), "JetStream at "+plain.ClientURL()) {
		t.Errorf("a server without JetStream: %v", err)
	}
}

// A server whose credentials change refuses us, for a while; that is no reason to give up, though nats.go would.
func TestRefusedReconnectsGoOn(t *testing.T) {
	server, log := servers.NATS(t, &servers.NATSOptions{Settings: []string{"authorization { user: pabal, password: right }"}}), &said{}
	url := fmt.Sprintf("nats://pabal:right@127.0.0.1:%d", server.Port)
	b := openVillage(t, url, &pabalnats.Options{Logger: log.logger()})
	server.Configure("authorization { user: pabal, password: other }")
	server.Kill()
	server.Start()
	within(t, 30*time.Second, "it is refused", func() bool { return strings.Contains(strings.ToLower(log.String()), "authorization violation") })
	within(t, 30*time.Second, "it is refused three times: the second by the same server would have been the end", func() bool {
		return strings.Count(server.Log(), "authentication error") >= 3
	})
	server.Configure("authorization { user: pabal, password: right }")
	server.Kill()
	server.Start()
	within(t, 30*time.Second, "messages are accepted", func() bool { return publishOne(t, b).Kind == driver.Accepted })
	if text := log.String(); strings.Contains(text, "closed for good") || strings.Contains(text, "right") {
		t.Errorf("the log says %q", text)
	}
}

// A publish that meets a server in its restart waits for it: answered Again, the event would wait for 10 s, and the next time for 20.
func TestPublishBridgesARestartOfTheServer(t *testing.T) {
	server := servers.NATS(t, nil)
	b := openVillage(t, server.URL, nil)
	server.Kill()
	answered := make(chan driver.Verdict, 1)
	go func() {
		call, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		answered <- b.Publish(call, driver.Destination{Topic: "paid"}, []driver.Message{message(uuid.New())})[0]
	}()
	select {
	case v := <-answered:
		t.Errorf("answered %v without a server", v)
	case <-time.After(500 * time.Millisecond):
	}
	server.Start()
	if v := <-answered; v.Kind != driver.Accepted {
		t.Errorf("answered %v, the server is back", v)
	}
}
