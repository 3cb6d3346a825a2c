package tests

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

// street is the shop with a process for each role, on MariaDB, SNS and SQS: the engineering note's own stack.
type street struct {
	process                     // what clients see: one address for all, and the books
	houses  map[string]*process // by role
	queues  *servers.AWS
}

func openStreet(t *testing.T) *street {
	t.Helper()
	m, aws := servers.KillableMariaDB(t, nil), servers.Fauxqs(t, true)
	if aws.Process == nil {
		t.Fatal("PABAL_TEST_FAUXQS names a server, which this test cannot kill: unset it")
	}
	s := &street{queues: aws, houses: map[string]*process{}, process: process{
		t: t, binary: buildBinary(t), dir: t.TempDir(), db: m.URL("shop_{role}"), elsewhere: map[string]string{},
		heard: &heard{Transport: http.Transport{MaxIdleConnsPerHost: 32}, paid: map[string]bool{}},
	}}
	// What a killed process has received comes again after the hold.
	const broker = "sns:shop-?hold=5s&wait=2s"
	env := []string{"AWS_ENDPOINT_URL=" + aws.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"}
	for _, role := range shop.Roles() {
		m.Admin(t, "create database shop_"+role)
		p := &process{t: t, binary: s.binary, dir: s.dir, address: freeAddress(t), role: role, db: s.db, broker: broker, env: env}
		s.houses[role], s.elsewhere[role+"s"] = p, p.address
	}
	for _, role := range shop.Roles() {
		s.houses[role].start()
	}
	return s
}

// RoundTrip leads a request to the process that has its role.
func (s *street) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = strings.TrimSuffix(strings.TrimPrefix(s.url(r.URL.Path), "http://"), r.URL.Path)
	return s.heard.RoundTrip(r)
}

func (s *street) stop() {
	for _, role := range shop.Roles() {
		s.houses[role].stop()
	}
}

// round makes traffic and kills, in its midst, each role and the server of SNS and SQS, in any order, at any moment.
func (s *street) round(random *rand.Rand, seed uint64) *shop.Traffic {
	s.t.Helper()
	before := len(s.heard.orders())
	var traffic *shop.Traffic
	var loading sync.WaitGroup
	loading.Go(func() {
		load := shop.Load{
			URL: "http://shop", For: 9 * time.Second, Rate: 40, Seed: seed, Patience: time.Minute,
			Client: &http.Client{Transport: s, Timeout: 10 * time.Second},
		}
		var err error
		if traffic, err = load.Run(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	})
	const server = "server of SNS and SQS"
	victims := append(shop.Roles(), server)
	random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	until(s.t, "an order is paid", func() bool { return len(s.heard.orders()) > before }) // the catalogue is there
	for _, victim := range victims {
		pause(s.t.Context(), time.Duration(random.Int64N(int64(800*time.Millisecond))))
		away := time.Duration(random.Int64N(int64(400 * time.Millisecond)))
		s.t.Logf("%s killed for %v, %d orders answered as paid", victim, away.Round(time.Millisecond), len(s.heard.orders()))
		if victim == server {
			s.queues.Kill()
			pause(s.t.Context(), away)
			s.queues.Start()
			continue
		}
		s.houses[victim].kill()
		pause(s.t.Context(), away)
		s.houses[victim].start()
	}
	loading.Wait()
	if traffic == nil {
		s.t.FailNow()
	}
	return traffic
}

// TestKilledRolesLoseNothingAndDoubleNothing runs each role of the shop in a process of its own, on MariaDB, SNS and SQS, under
// load, and kills all but the databases as a power switch would, one after the other. In the end all books must agree.
func TestKilledRolesLoseNothingAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run %s -kill.rounds %d -kill.seed %d", seed, t.Name(), *killRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := openStreet(t)
	defer s.heard.CloseIdleConnections()
	var total shop.Progress
	for round := range *killRounds {
		start := time.Now()
		traffic := s.round(random, seed+uint64(round))
		t.Logf("round %d took %v: %d paid, %d requests repeated", round, time.Since(start).Round(time.Millisecond), traffic.Paid, traffic.Repeated)
		for _, complaint := range traffic.Complaints {
			t.Errorf("round %d: %s", round, complaint)
		}
		total.Paid += traffic.Paid
		total.Cancelled += traffic.Cancelled
	}
	s.books(total, s.stop)
}

// until waits for something that has to happen.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); !is(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
