package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver/misbehave"
)

// work is one kind of what is run.
type work struct {
	name   string
	unit   string
	seeded bool                        // its units are seeds, or begin with one
	amount func(seeds, rounds int) int // units, when so many seeds and rounds are asked for
	share  float64                     // of the time, when a time is asked for
	least  time.Duration               // that one run of it takes: with less time left it is not begun
	guess  float64                     // units a second, before it was measured
	most   int                         // units in one run: what is under way when it is interrupted is not counted
	// commands are what has so many units run, from a seed.
	commands func(first uint64, amount int) []command
	// read finds in the output how many units were done, and what failed.
	read func(c command, out string, failed bool) (done int, failures []failure)

	done     int
	spent    time.Duration
	seeds    []string // ranges
	failures []failure
	omitted  string // why it did not run
}

// command is run in a directory; what repeats it is the same command.
type command struct {
	dir   string
	env   []string // beside that of this process
	args  []string
	first uint64
	units int
}

func (c command) String() string {
	text := strings.Join(append(slices.Clone(c.env), c.args...), " ")
	if c.dir != "." {
		text = "cd " + c.dir + " && " + text
	}
	return text
}

// failure is what failed, and the command that shows it again.
type failure struct{ what, again string }

// works returns all kinds, in the order in which they run.
func works(root string) ([]*work, error) {
	fuzzers, err := fuzzTargets(root)
	if err != nil {
		return nil, err
	}
	const scenario = "./internal/sim/scenario"
	all := []*work{
		{
			name: "simulation", unit: "seeds", seeded: true, read: readSimulation,
			share: 0.22, least: 20 * time.Second, guess: 5, most: 20_000,
			amount: func(seeds, _ int) int { return seeds },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", scenario, "-run=TestPromisesHoldUnderFaults", "-v", "-timeout=24h",
					"-sim.shrink=1m", "-sim.first="+strconv.FormatUint(first, 10), "-sim.seeds="+strconv.Itoa(n))
			},
		},
		{
			name: "goroutines, race detector", unit: "runs", seeded: true, read: readTests,
			share: 0.08, least: 45 * time.Second, guess: 0.25, most: 2_000,
			amount: func(seeds, _ int) int { return seeds / 50 },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", "-race", scenario, "-run=TestPromisesHoldOnGoroutines", "-v", "-timeout=24h",
					"-sim.first="+strconv.FormatUint(first, 10), "-sim.real="+strconv.Itoa(n))
			},
		},
		{
			name: "real stores beside the simulated one", unit: "seeds", seeded: true, read: readTests,
			share: 0.05, least: 40 * time.Second, guess: 0.1, most: 500,
			amount: func(seeds, _ int) int { return seeds / 500 },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", "./pabalsql", "./pabalpgx", "-run=TestStoresAnswerAsTheSimulatedOneDoes", "-v", "-timeout=24h",
					"-differential.first="+strconv.FormatUint(first, 10), "-differential.seeds="+strconv.Itoa(n))
			},
		},
		{
			name: "fuzzing", unit: "seconds", read: readFuzz,
			share: 0.12, least: 30 * time.Second, guess: 0.8, most: 1_200,
			amount: func(seeds, _ int) int { return seeds / 100 },
			commands: func(_ uint64, n int) (all []command) {
				each := max(1, n/len(fuzzers))
				for _, f := range fuzzers {
					all = append(all, command{dir: f.dir, units: each, args: []string{f.script, f.name, strconv.Itoa(each) + "s"}})
				}
				return all
			},
		},
		{
			name: "kill -9", unit: "rounds", seeded: true, read: readTests,
			share: 0.17, least: 75 * time.Second, guess: 1. / 40, most: 50,
			amount: func(_, rounds int) int { return rounds },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", "./internal/tests", "-run=^TestKilled", "-v", "-timeout=24h",
					"-kill.seed="+strconv.FormatUint(first, 10), "-kill.rounds="+strconv.Itoa(n))
			},
		},
	}
	return append(all, hostilities()...), nil
}

// hostilities are the kinds in which something else than a process goes wrong, or an older process is still there.
func hostilities() []*work {
	return []*work{
		{
			name: "misbehaving brokers and stores", unit: "seconds of traffic", seeded: true, read: readTests,
			share: 0.07, least: 2 * time.Minute, guess: 1. / 15, most: 60,
			amount: func(_, rounds int) int { return 8 * rounds },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", "./internal/tests", "-run=TestShopAmongMisbehaviour", "-v", "-timeout=1h",
					"-misbehave.seed="+strconv.FormatUint(first, 10), "-misbehave.for="+strconv.Itoa(n)+"s")
			},
		},
		{
			name: "suites on brokers and stores that misbehave", unit: "seeds", seeded: true, read: readTests,
			share: 0.05, least: 2 * time.Minute, guess: 1. / 90, most: 1,
			amount: func(_, rounds int) int { return max(1, rounds/10) },
			commands: func(first uint64, n int) (all []command) {
				for i := range uint64(n) {
					seed := misbehave.SeedVariable + "=" + strconv.FormatUint(first+i, 10)
					all = append(all, command{dir: ".", units: 1, env: []string{seed}, args: []string{"go", "test", "./internal/sim",
						"./pabalsql", "./pabalpgx", "./pabalnats", "./pabalsns", "-run=ConformanceMisbehaving", "-timeout=30m"}})
				}
				return all
			},
		},
		{
			name: "hostile SNS", unit: "thousands of events", seeded: true, read: readTests,
			share: 0.04, least: time.Minute, guess: 1. / 10, most: 20,
			amount: func(_, rounds int) int { return max(1, rounds/5) },
			commands: func(first uint64, n int) []command {
				return one(first, n, "go", "test", "./internal/tests", "-run=TestHostileSNS", "-v", "-timeout=1h",
					"-sns.seed="+strconv.FormatUint(first, 10), "-sns.events="+strconv.Itoa(n)+"000")
			},
		},
		{
			name: "rolling deploys", unit: "deploys", read: readTests,
			share: 0.03, least: 2 * time.Minute, guess: 1. / 90, most: 5,
			amount: func(_, rounds int) int { return max(1, rounds/25) },
			commands: func(_ uint64, n int) []command {
				return one(0, n, "go", "test", "./internal/tests", "-run=OldAndNewProcesses", "-v", "-timeout=1h", "-count="+strconv.Itoa(n))
			},
		},
		{
			// A mutant is found within 2,000 seeds from 1 on, by others perhaps later: ten times as many are a hole, and not chance.
			name: "mutants", unit: "times all", seeded: true, read: readMutants,
			share: 0.05, least: 10 * time.Minute, guess: 1. / 500, most: 1,
			amount: func(_, _ int) int { return 1 },
			commands: func(first uint64, _ int) []command {
				return []command{
					{dir: ".", args: []string{"go", "run", "./internal/mutants/try", "-tests"}},
					{dir: ".", args: []string{"go", "run", "./internal/mutants/try", "-databases"}},
					{dir: ".", units: 1, args: []string{
						"go", "run", "./internal/mutants/try", "-first=" + strconv.FormatUint(first, 10), "-seeds=20000"}},
				}
			},
		},
		{
			name: "faults of servers", unit: "minutes away", read: readTests,
			share: 0.12, least: 4 * time.Minute, guess: 1. / 110, most: 5,
			amount: func(_, _ int) int { return 5 },
			commands: func(_ uint64, n int) []command {
				broker, database := max(75*time.Second, time.Duration(n)*time.Minute), time.Duration(n)*12*time.Second
				return one(0, n, "go", "test", "./internal/tests", "-run=FaultsEnd", "-v", "-timeout=1h", "-count=1",
					"-fault.broker="+broker.String(), "-fault.database="+database.String(), "-fault.rounds="+strconv.Itoa(n),
					"-fault.mariadb="+strconv.FormatBool(os.Getuid() == 0))
			},
		},
	}
}

func one(first uint64, units int, args ...string) []command {
	return []command{{dir: ".", args: args, first: first, units: units}}
}

type fuzzTarget struct{ dir, name, script string } // scripts/fuzz, as seen from dir

var fuzzFunction = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// fuzzTargets finds all of the tree.
func fuzzTargets(root string) (all []fuzzTarget, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		script, err := filepath.Rel(dir, filepath.Join(root, "scripts", "fuzz"))
		for _, found := range fuzzFunction.FindAllSubmatch(source, -1) {
			all = append(all, fuzzTarget{dir, string(found[1]), script})
		}
		return err
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no fuzz test in %s: run it at the root of the tree", root)
	}
	return all, err
}

var (
	violation = regexp.MustCompile(`seed (\d+): (.*)`)
	replay    = regexp.MustCompile(`replay: (go test .*)`)
	failed    = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	survives  = regexp.MustCompile(`(?m)^\S+ +survives \S+`)
	fuzzFound = regexp.MustCompile(`(?m)^\s*(go test -run=\S+)`)
)

// readSimulation: seeds below the one that fails have passed.
func readSimulation(c command, out string, failed bool) (int, []failure) {
	at := violation.FindStringSubmatch(out)
	if at == nil {
		return readTests(c, out, failed)
	}
	seed, _ := strconv.ParseUint(at[1], 10, 64)
	again := c.String()
	if all := replay.FindAllStringSubmatch(out, -1); len(all) > 0 {
		again = all[len(all)-1][1] // the first is the seed's as it was, the last what it shrank to
	}
	return int(seed - c.first + 1), []failure{{"seed " + at[1] + ": " + at[2], again}}
}

// readTests: all or nothing.
func readTests(c command, out string, wrong bool) (int, []failure) {
	if !wrong {
		return c.units, nil
	}
	var names []string
	for _, found := range failed.FindAllStringSubmatch(out, -1) {
		if !slices.Contains(names, found[1]) {
			names = append(names, found[1])
		}
	}
	what := strings.Join(names, ", ")
	if what == "" {
		what = "ended: " + lastLine(out)
	}
	return 0, []failure{{what, c.String()}}
}

// readMutants: those that nobody found.
func readMutants(c command, out string, wrong bool) (int, []failure) {
	done, failures := readTests(c, out, wrong)
	if all := survives.FindAllString(out, -1); wrong && len(all) > 0 {
		failures[0].what = strings.Join(all, ", ")
	}
	return done, failures
}

// readFuzz: what is found lies in the tree as a new input.
func readFuzz(c command, out string, wrong bool) (int, []failure) {
	done, failures := readTests(c, out, wrong)
	if found := fuzzFound.FindStringSubmatch(out); wrong && found != nil {
		failures[0].again = command{dir: c.dir, args: []string{found[1]}}.String()
	}
	return done, failures
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
