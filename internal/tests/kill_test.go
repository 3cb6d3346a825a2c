package tests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

var (
	killRounds = flag.Int("kill.rounds", 3, "how often the shop is killed")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of the moments at which the shop is killed; 0: another one each time")
)

// TestKilledShopLosesNothingAndDoublesNothing kills the shop as a power switch would, under load and now and then while it is
// starting, and starts it again. What it answered must be there when it is back, and in the end all books must agree.
func TestKilledShopLosesNothingAndDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run %s -kill.rounds %d -kill.seed %d", seed, t.Name(), *killRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	p := &process{
		t: t, binary: buildBinary(t), dir: t.TempDir(), address: freeAddress(t),
		heard: &heard{Transport: http.Transport{MaxIdleConnsPerHost: 32}, paid: map[string]bool{}},
	}
	defer p.heard.CloseIdleConnections()
	p.start()
	var total shop.Progress
	for round := range *killRounds {
		traffic := p.round(random, seed, round)
		total.Paid += traffic.Paid
		total.Cancelled += traffic.Cancelled
		for _, complaint := range traffic.Complaints {
			t.Errorf("round %d: %s", round, complaint)
		}
	}
	p.books(total, p.stop)
}

// buildBinary answers cmd/pabal, built once for all tests, without the race detector: a killed process reports no races, and
// kills want speed.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// built leaves a directory, which TestMain removes.
var built = sync.OnceValues(func() (string, error) {
	var err error
	if binaryDir, err = os.MkdirTemp("", "pabal-tests-"); err != nil {
		return "", err
	}
	binary := filepath.Join(binaryDir, "pabal")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join("..", "..", "cmd", "pabal")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
})

var binaryDir string // "": no test needed one

func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t))
}

// process is a shop in a process of its own, or one role of it.
type process struct {
	t                    *testing.T
	binary, dir, address string
	role                 string   // "": all of them
	line                 []string // its command line, if it is not the shop's; it is open when it says something
	elsewhere            sync.Map // addresses of roles that other processes have, by the first part of their paths
	db                   string   // of the roles; "": files in dir
	broker               string   // "": an embedded one in dir
	env                  []string
	heard                *heard
	child                *exec.Cmd
	said                 speech // of the child that runs now
}

// speech is what a child has said so far.
type speech struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *speech) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *speech) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *speech) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

// shop is a command line.
func (p *process) shop(args ...string) []string {
	args = append([]string{"shop", "--data", p.dir}, args...)
	if p.db != "" {
		args = append(args, "--db", p.db)
	}
	if p.broker != "" {
		args = append(args, "--broker", p.broker)
	}
	if p.role != "" {
		args = append(args, p.role)
	}
	return args
}

// launch starts a child; it is not yet open.
func (p *process) launch() {
	p.t.Helper()
	p.said.Reset()
	line := p.line
	if line == nil {
		line = p.shop("--listen", p.address)
	}
	child := exec.Command(p.binary, line...)
	child.Stdout, child.Stderr = &p.said, &p.said
	child.Env = append(os.Environ(), p.env...)
	if err := child.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.child = child
	p.t.Cleanup(func() { // a child that has been waited for is not killed
		if child.ProcessState == nil {
			_ = child.Process.Kill()
			_ = child.Wait()
		}
	})
}

// start starts a child and waits until it is open.
func (p *process) start() {
	p.t.Helper()
	p.launch()
	p.opens(30 * time.Second)
}

// opens waits until the child that was launched is open.
func (p *process) opens(within time.Duration) {
	p.t.Helper()
	began := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for time.Since(began) < within {
		if p.isOpen() {
			p.t.Logf("%s open after %v", cmp.Or(p.role, "all"), time.Since(began).Round(time.Millisecond))
			return
		}
		<-ticker.C
	}
	p.kill()
	p.t.Fatalf("%s not open after %v; it said:\n%s", p.role, within, &p.said)
}

func (p *process) isOpen() bool {
	if p.line != nil {
		return p.said.String() != ""
	}
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get(p.url("/orders?limit=1"))
	if err != nil {
		return false
	}
	_ = answer.Body.Close() // only its being there counts
	return true
}

func (p *process) url(path string) string {
	part, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if address, is := p.elsewhere.Load(part); is {
		return "http://" + address.(string) + path
	}
	return "http://" + p.address + path
}

// kill ends the child without a word, and waits until it is gone.
func (p *process) kill() {
	p.t.Helper()
	if err := p.child.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.child.Wait(); p.child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		p.t.Fatalf("it ended by itself: %v; it said:\n%s", err, &p.said)
	}
}

// stop ends the child as an operator does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.child.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.child.Wait(); err != nil {
		p.t.Errorf("after SIGTERM: %v; it said:\n%s", err, &p.said)
	}
}

// round makes traffic, kills the shop in its midst, and once in three also while it starts, and has it back before the
// traffic's patience is over.
func (p *process) round(random *rand.Rand, seed uint64, round int) *shop.Traffic {
	p.t.Helper()
	before := 300*time.Millisecond + time.Duration(random.Int64N(int64(2*time.Second)))
	var traffic *shop.Traffic
	var loading sync.WaitGroup
	loading.Go(func() {
		load := shop.Load{
			URL: p.url(""), For: before + 1500*time.Millisecond, Seed: seed + uint64(round), Patience: time.Minute,
			Client: &http.Client{Transport: p.heard, Timeout: 10 * time.Second},
		}
		var err error
		if traffic, err = load.Run(p.t.Context()); err != nil {
			p.t.Errorf("round %d: %v", round, err)
		}
	})
	pause(p.t.Context(), before)
	p.kill()
	p.t.Logf("round %d: killed after %v, %d orders answered as paid", round, before.Round(time.Millisecond), len(p.heard.orders()))
	for random.IntN(3) == 0 {
		p.launch()
		early := time.Duration(random.Int64N(int64(300 * time.Millisecond)))
		pause(p.t.Context(), early)
		p.kill()
		p.t.Logf("round %d: killed %v after its start", round, early.Round(time.Millisecond))
	}
	acknowledged := p.heard.orders()
	p.start()
	for _, no := range acknowledged {
		var o shop.Order
		if p.get("/orders/"+no, &o); o.PaidAt == nil {
			p.t.Errorf("round %d: order %s was answered as paid before the kill, and is %q after it", round, no, o.Status)
		}
	}
	loading.Wait()
	if traffic == nil {
		p.t.FailNow()
	}
	return traffic
}

// pause lets a real process run for a while.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *process) get(path string, into any) {
	p.t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(p.url(path))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // it has been read
	if answer.StatusCode != http.StatusOK {
		p.t.Errorf("GET %s: %s", path, answer.Status)
		return
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		p.t.Errorf("GET %s: %v", path, err)
	}
}

var reconciliation = regexp.MustCompile(
	`reconciliation: (\d+) orders paid, (\d+) events confirmed, (\d+) ledger entries, (\d+) notifications; (\d+) cancelled`)

// books has everything come to its end (a killed process leaves events for the republisher), looks at the ledger of each order
// that was answered as paid, has the shop stopped and reconciles.
func (p *process) books(total shop.Progress, stop func()) {
	p.t.Helper()
	p.check()
	for _, no := range p.heard.orders() {
		payments := 0
		var ledger struct {
			Items []shop.Entry `json:"items"`
		}
		p.get("/settlements/ledger/"+no, &ledger)
		for _, e := range ledger.Items {
			if e.Kind == "payment" {
				payments++
			}
		}
		if payments != 1 {
			p.t.Errorf("order %s was answered as paid, and has %d payments in the ledger", no, payments)
		}
	}
	stop()
	found := p.check()
	if total.Paid == 0 {
		p.t.Error("a load without payments proves nothing")
	}
	want := fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d %[2]d", total.Paid, total.Cancelled)
	if found != want {
		p.t.Errorf("the books have %s, answered were %s (paid, confirmed, booked, notified, cancelled)", found, want)
	}
	if answered := len(p.heard.orders()); int64(answered) != total.Paid {
		p.t.Errorf("%d orders were answered as paid on the wire, the load counted %d", answered, total.Paid)
	}
}

// patience is how long the books may take to agree: an event that many publishes failed for is next tried after up to five
// minutes, and what was received by processes that were killed comes again one by one, each time after the broker's hold.
const patience = "6m"

// check reconciles, in a process of its own, and answers the numbers.
func (p *process) check() string {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), p.binary, p.shop("--check", "--wait", patience)...).CombinedOutput()
	found := reconciliation.FindSubmatch(out)
	if err != nil || len(found) == 0 || !bytes.Contains(out, []byte("\nreconciled: nothing lost, nothing twice\n")) {
		for _, role := range shop.Roles() {
			said, _ := p.status(role)
			p.t.Logf("%s: %s", role, said)
		}
		p.t.Fatalf("the books differ: %v\n%s", err, out)
	}
	p.t.Logf("%s", out)
	return string(bytes.Join(found[1:], []byte(" ")))
}

// heard is a client's ear: it notes which orders were answered as paid.
type heard struct {
	http.Transport
	mu   sync.Mutex
	paid map[string]bool
}

func (h *heard) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := h.Transport.RoundTrip(r)
	no, isPayment := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/orders/"), "/payment")
	if err == nil && isPayment && answer.StatusCode == http.StatusOK {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.paid[no] = true
	}
	return answer, err
}

func (h *heard) orders() (orders []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for no := range h.paid {
		orders = append(orders, no)
	}
	return orders
}
