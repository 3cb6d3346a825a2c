package mutants

import (
	"bytes"
	"errors"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	sizes    = regexp.MustCompile(`(\d+) steps, (\d+) faults, (\d+) processes, (\d+) events`)
	replay   = regexp.MustCompile(`replay: go (test .*)`)
	happened = regexp.MustCompile(`\d+\.\d{3} s +\S+ .*`) // a line of a trace
	broken   = regexp.MustCompile(`P\d [a-z ]+:`)
)

// TestAFailingSeedShrinks disables what keeps a promise. The seed that finds it shrinks to a case of a few steps in which the
// same promise is broken, that its trace shows and its command repeats, and that is no failure of Pabal as it is.
func TestAFailingSeedShrinks(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the simulation twice")
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(m Mutant) bool { return m.Name == "void-is-published" })
	overlay, err := all[i].Overlay("../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := runGo(t, "test", "-overlay", overlay, "./internal/sim/scenario", "-run=TestPromisesHoldUnderFaults", "-v",
		"-sim.seeds=500", "-sim.first=24", "-sim.shrink=20s")
	promise := broken.FindString(out)
	is, commands := sizes.FindAllStringSubmatch(out, -1), replay.FindAllStringSubmatch(out, -1)
	if promise == "" || len(is) != 2 || len(commands) != 2 {
		t.Fatalf("no promise is broken, or the seed does not shrink:\n%s", out[:min(len(out), 4000)])
	}
	t.Logf("%s from %s to %s", promise, is[0][0], is[1][0])
	for n, what := range []string{"steps", "faults", "processes", "events"} {
		before, _ := strconv.Atoi(is[0][n+1])
		after, _ := strconv.Atoi(is[1][n+1])
		if most := []int{before / 5, before / 10, before - 2, before / 4}[n]; after > most {
			t.Errorf("%d %s are left of %d, more than %d", after, what, before, most)
		}
	}
	trace := happened.FindAllString(out[strings.LastIndex(out, commands[1][0]):], -1)
	if len(trace) < 10 {
		t.Fatalf("of the smaller case no trace is shown:\n%s", out[max(0, len(out)-4000):])
	}
	command := strings.Fields(commands[1][1])
	if again := runGo(t, slices.Insert(slices.Clone(command), 1, "-overlay", overlay)...); broken.FindString(again) != promise ||
		!strings.Contains(again, "--- FAIL") {
		t.Errorf("the smaller case does not break %s when it is repeated:\n%s", promise, again[:min(len(again), 4000)])
	} else if last := happened.FindAllString(again, -1); len(last) == 0 || last[len(last)-1] != trace[len(trace)-1] {
		t.Errorf("the trace ends with %q, and not so when it is repeated:\n%s", trace[len(trace)-1], again[max(0, len(again)-4000):])
	}
	if whole := runGo(t, command...); !strings.Contains(whole, "--- PASS") {
		t.Errorf("the smaller case fails without the mutant, too:\n%s", whole[max(0, len(whole)-4000):])
	}
}

// runGo runs the go command at the root and returns what it says. Tests may fail.
func runGo(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	run := exec.CommandContext(t.Context(), "go", args...)
	run.Dir, run.Stdout, run.Stderr = "../..", &out, &out
	if err := run.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String()
}
