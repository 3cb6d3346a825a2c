package tests

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-go/pabal/shop"
)

// street is the shop with a process for each role, and perhaps a relay for the order service's events.
type street struct {
	process                     // what clients see: one address for all, and the books
	houses  map[string]*process // by role; "relay"
	rows    []string            // the houses' names in the order in which they start
	prices  *prices             // that change beside each load; nil: nobody would see in which order
}

// stack is what a street stands on.
type stack struct {
	db     string // with {role} in it
	broker string
	env    []string
	relay  string // the order service's database for a relay; "": none
}

// openStreet makes a street whose databases are there, and starts nothing.
func openStreet(t *testing.T, on stack) *street {
	t.Helper()
	s := &street{houses: map[string]*process{}, rows: shop.Roles(), process: process{
		t: t, binary: buildBinary(t), dir: t.TempDir(), db: on.db,
		heard: &heard{Transport: http.Transport{MaxIdleConnsPerHost: 32}, paid: map[string]bool{}},
	}}
	t.Cleanup(s.heard.CloseIdleConnections)
	for _, role := range shop.Roles() {
		p := &process{
			t: t, binary: s.binary, dir: s.dir, address: freeAddress(t), role: role, db: s.db, broker: on.broker, env: on.env,
		}
		s.houses[role] = p
		s.elsewhere.Store(role+"s", p.address)
	}
	if on.relay != "" {
		s.houses["relay"] = &process{t: t, binary: s.binary, role: "relay", env: on.env,
			line: []string{"relay", "--db", on.relay, "--source", "order", "--broker", on.broker}}
		s.rows = append(s.rows, "relay") // after the service that makes the tables
	}
	return s
}

// database is the address of a role's.
func (p *process) database(role string) string {
	return strings.ReplaceAll(cmp.Or(p.db, "sqlite:"+filepath.Join(p.dir, "{role}.db")), "{role}", role)
}

func (s *street) start() {
	s.t.Helper()
	for _, name := range s.rows {
		s.houses[name].start()
	}
}

func (s *street) stop() {
	for _, name := range s.rows {
		s.houses[name].stop()
	}
}

// RoundTrip leads a request to the process that has its role.
func (s *street) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = strings.TrimSuffix(strings.TrimPrefix(s.url(r.URL.Path), "http://"), r.URL.Path)
	return s.heard.RoundTrip(r)
}

// during makes traffic for a while, and for as long as what is done in its midst takes, and answers what the traffic was.
func (s *street) during(load shop.Load, do func()) *shop.Traffic {
	s.t.Helper()
	before := len(s.heard.orders())
	load.URL, load.Client = "http://shop", &http.Client{Transport: s, Timeout: 10 * time.Second}
	least, enough := time.Now().Add(load.For), make(chan struct{})
	load.For, load.Enough = time.Hour, enough
	var traffic *shop.Traffic
	var loading sync.WaitGroup
	loading.Go(func() {
		var err error
		if traffic, err = load.Run(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	})
	until(s.t, "an order is paid", func() bool { return len(s.heard.orders()) > before }) // the catalogue is there
	stop := func() {}
	if s.prices != nil {
		stop = s.prices.change()
	}
	do()
	pause(s.t.Context(), time.Until(least))
	close(enough)
	loading.Wait()
	stop()
	if traffic == nil {
		s.t.FailNow()
	}
	for _, complaint := range traffic.Complaints {
		s.t.Error(complaint)
	}
	s.t.Logf("%d paid, %d requests repeated, payment p99 %v", traffic.Paid, traffic.Repeated, traffic.PayP99)
	return traffic
}

// victim is what a round kills, and starts again a moment later.
type victim struct {
	name       string
	kill, back func()
}

// inhabitants are the street's own victims.
func (s *street) inhabitants() (all []victim) {
	for _, name := range s.rows {
		all = append(all, victim{name, s.houses[name].kill, s.houses[name].start})
	}
	return all
}

// rounds makes traffic n times and kills, in its midst, each victim, in any order, at any moment. In the end all books must agree.
func (s *street) rounds(n int, victims []victim) {
	t := s.t
	t.Helper()
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run %s -kill.rounds %d -kill.seed %d", seed, t.Name(), *killRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var total shop.Progress
	for round := range n {
		start := time.Now()
		load := shop.Load{For: 9 * time.Second, Rate: 40, Seed: seed + uint64(round), Patience: time.Minute}
		traffic := s.during(load, func() {
			random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
			for _, victim := range victims {
				pause(t.Context(), time.Duration(random.Int64N(int64(800*time.Millisecond))))
				away := time.Duration(random.Int64N(int64(400 * time.Millisecond)))
				t.Logf("%s killed for %v, %d orders answered as paid", victim.name, away.Round(time.Millisecond), len(s.heard.orders()))
				victim.kill()
				pause(t.Context(), away)
				victim.back()
			}
		})
		t.Logf("round %d took %v", round, time.Since(start).Round(time.Millisecond))
		total.Paid += traffic.Paid
		total.Cancelled += traffic.Cancelled
	}
	s.reconciled(total)
}

// reconciled has the street's books closed, and looks at the order in which it was told of prices.
func (s *street) reconciled(total shop.Progress) {
	s.t.Helper()
	s.books(total, s.stop)
	if s.prices != nil {
		s.prices.inOrder(s.t)
	}
}

// status is what the command says of a role's store, and its exit code.
func (p *process) status(role string) (said string, code int) {
	p.t.Helper()
	command := exec.CommandContext(p.t.Context(), p.binary, "status", "--db", p.database(role))
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(out), command.ProcessState.ExitCode()
}

// names waits until the status of a role's store names a trouble in such words, with its exit code.
func (s *street) names(within time.Duration, role, words string, code int) {
	s.t.Helper()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(within); ; <-ticker.C {
		said, is := s.status(role)
		if is == code && strings.Contains(said, words) {
			s.t.Logf("pabal status, exit code %d:\n%s", code, said[:min(len(said), 1500)])
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("pabal status did not name %q with exit code %d within %v, but ended with %d:\n%s", words, code, within, is, said)
		}
	}
}

// halt has a process stand still until goOn.
func (p *process) halt() { p.signal(syscall.SIGSTOP) }
func (p *process) goOn() { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.child.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// longest is how long something that has to happen may take, with many shops side by side on two processors; most of it takes seconds.
const longest = 90 * time.Second

// until waits for something that has to happen.
func until(t *testing.T, what string, is func() bool) { t.Helper(); untilWithin(t, longest, what, is) }

func untilWithin(t *testing.T, most time.Duration, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(most); !is(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}
