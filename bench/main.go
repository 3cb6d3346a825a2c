// Command bench measures Pabal: each row beside its target, what is compared interleaved in one run, medians with their
// ranges. Run it on a quiet machine, from the repository's root:
//
//	go run ./bench                      # all rows, about twenty minutes
//	go run ./bench -only core,sim
//	go run ./bench -only postgres -long 5m -confirmed 10000000
//	go run ./bench -o docs/benchmarks.md
//	go run ./bench -rounds 7 -for 10s
//
// It starts `pabal shop` from this tree and servers that scripts/install installs, ends them, and leaves nothing behind. A run whose books do not agree is an error, not
// a figure.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is one run of the command.
type bench struct {
	rounds int
	each   time.Duration
	dir    string // for databases; on the disk that is measured
	binary string // pabal
	out    io.Writer
	page   string   // the file that the table is written to; plots are made beside it
	plots  []string // lines of the page that show them

	long      time.Duration // how long the broker is away, and a snapshot is held
	backlog   int           // events that are drained
	rate      int           // at which they are redelivered; 0: redeliverRates
	confirmed int           // events that lie in the tables already
}

// row is a line of the table.
type row struct{ what, measured, target string }

var parts = []struct {
	name string
	run  func(context.Context, *bench) ([]row, error)
}{
	{"core", coreRows}, {"shop", shopRows}, {"latency", latencyRows}, {"sns", snsRows}, {"mariadb", mariadbRows},
	{"postgres-record", onPostgres((*stand).recording)}, {"postgres-rate", onPostgres((*stand).fullRate)},
	{"postgres-latency", onPostgres((*stand).latencies)}, {"postgres-drain", onPostgres((*stand).drains)},
	{"postgres-variants", onPostgres((*stand).variants)}, {"postgres-snapshot", onPostgres((*stand).heldSnapshot)},
	{"postgres-full", onPostgres((*stand).confirmedBefore)},
	{"postgres-outage", onPostgres((*stand).outage)}, {"outage", outageRows}, {"redeliver", redeliverRows},
	{"sim", simRows}, {"idle", idleRows},
}

func main() {
	b := bench{}
	var only string
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	flag.IntVar(&b.rounds, "rounds", 3, "how often each thing is measured")
	flag.DurationVar(&b.each, "for", 5*time.Second, "how long traffic is made in a round")
	flag.StringVar(&b.dir, "dir", "", "where databases are made (default: a temporary directory)")
	flag.StringVar(&only, "only", "", "comma-separated parts: "+strings.Join(names, ", ")+"; postgres is all of its own (default: all)")
	flag.StringVar(&b.page, "o", "", "a file that the table is written to as well, with the machine it was measured on; plots go beside it")
	flag.DurationVar(&b.long, "long", 20*time.Second, "how long the broker is away, and a snapshot is held open (targets: 5m, 10m)")
	flag.IntVar(&b.rate, "rate", 0, "events redelivered a second (default: the default of a redelivery, and 250)")
	flag.IntVar(&b.backlog, "backlog", 200_000, "events that are drained, on PostgreSQL, or redelivered (targets: 200000 and 1000000)")
	flag.IntVar(&b.confirmed, "confirmed", 1_000_000, "postgres: confirmed events that lie in the tables (target: 10000000)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b.out = os.Stdout
	var page bytes.Buffer
	if b.page != "" {
		b.out = io.MultiWriter(os.Stdout, &page)
	}
	err := b.run(ctx, only)
	if err == nil && b.page != "" {
		err = os.WriteFile(b.page, page.Bytes(), 0o644) //nolint:gosec // documentation, to be read by all
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// heading says where and when it was measured, and what else the machine did.
const heading = `# Benchmarks

Written by %s. Ratios of what was measured in turn, in one run, mean more than figures a second.

%s, %s, %d cores, %s; %d rounds of %v; load of the machine before the run: %s.

| what | measured, median (lowest – highest) | target |
| --- | --- | --- |
`

func (b *bench) run(ctx context.Context, only string) error {
	dir, err := os.MkdirTemp(b.dir, "pabal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	b.dir, b.binary = dir, filepath.Join(dir, "pabal")
	command := strings.Join(append([]string{"go run ./bench"}, os.Args[1:]...), " ")
	_, _ = fmt.Fprintf(b.out, heading, "`"+command+"`", time.Now().UTC().Format(time.DateOnly), runtime.Version(),
		runtime.GOMAXPROCS(0), processor(), b.rounds, b.each, load())
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/pabal-go/pabal/cmd/pabal").CombinedOutput(); err != nil {
		return fmt.Errorf("build pabal: %w\n%s", err, out)
	}
	var taken []string
	for _, p := range parts {
		if only != "" && !slices.ContainsFunc(strings.Split(only, ","), func(o string) bool {
			return o == p.name || strings.HasPrefix(p.name, o+"-")
		}) {
			continue
		}
		before := times()
		rows, err := p.run(ctx, b)
		taken = append(taken, fmt.Sprintf("%s %.0f %%", p.name, 100*times().stolenSince(before)))
		for _, r := range rows {
			_, _ = fmt.Fprintf(b.out, "| %s | %s | %s |\n", r.what, r.measured, r.target)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if len(taken) == 0 {
		return fmt.Errorf("-only %q names no part", only)
	}
	_, _ = fmt.Fprintf(b.out, "\nOf the processors' time meanwhile the host gave to other machines (steal in proc(5)): %s.\n", strings.Join(taken, ", "))
	for _, line := range b.plots {
		_, _ = fmt.Fprintf(b.out, "\n%s\n", line)
	}
	return nil
}

// load is the average number of processes that ran or wanted to in the last 1, 5 and 15 minutes.
func load() string {
	b, err := os.ReadFile("/proc/loadavg") // not there on other systems
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], ", ")
}

// processors is what the machine's processors have spent their time on, in ticks.
type processors struct{ stolen, all float64 }

// times reads the first line of /proc/stat; what other systems have instead it does not know.
func times() (t processors) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil || i > 8 { // the name; or what guests took, which is counted before
			continue
		}
		if t.all += n; i == 8 {
			t.stolen = n
		}
	}
	return t
}

// stolenSince is a share.
func (t processors) stolenSince(before processors) float64 {
	return (t.stolen - before.stolen) / max(1, t.all-before.all)
}

// path makes a fresh directory.
func (b *bench) path(name string) (string, error) { return os.MkdirTemp(b.dir, name+"-") }

// spread is the median of values, with the lowest and the highest.
func spread(values []float64, format string) string {
	return fmt.Sprintf(format+" ("+format+" – "+format+")", median(values), slices.Min(values), slices.Max(values))
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // not there on other systems
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}
