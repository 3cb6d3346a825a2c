package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatFailedIsReadFromTheOutput(t *testing.T) {
	c := command{dir: ".", args: []string{"go", "test", "./x"}, first: 100, units: 50}
	for name, x := range map[string]struct {
		read        func(command, string, bool) (int, []failure)
		out         string
		failed      bool
		done        int
		what, again string
	}{
		"all went well":       {readSimulation, "50 seeds in 3s\nPASS", false, 50, "", ""},
		"a seed that shrinks": {readSimulation, simulated, true, 12, "seed 111: P2 no ghost: 019b is published and not committed", "go test ./s -v -sim.seed=1071 -sim.with=Orders=1"},
		"a seed that is not":  {readSimulation, "x: seed 100: no end: 3 steps\n replay: go test ./s -v -sim.seed=100", true, 1, "seed 100: no end: 3 steps", "go test ./s -v -sim.seed=100"},
		"a panic":             {readSimulation, "panic: oh\nFAIL\tx", true, 0, "ended: FAIL\tx", "go test ./x"},
		"a test":              {readTests, "--- FAIL: TestA (1s)\n    --- FAIL: TestA/b (1s)\nFAIL", true, 0, "TestA, TestA/b", "go test ./x"},
		"a mutant":            {readMutants, "a   3  1s  seed 3: x\nb-c   survives TestB\n1 mutants survive their tests\nexit status 1", true, 0, "b-c   survives TestB", "go test ./x"},
		"an input":            {readFuzz, "--- FAIL: FuzzWire (1s)\n    To re-run:\n    go test -run=FuzzWire/ab12\nFAIL", true, 0, "FuzzWire", "go test -run=FuzzWire/ab12"},
	} {
		done, failures := x.read(c, x.out, x.failed)
		got := failure{}
		if len(failures) > 0 {
			got = failures[0]
		}
		if done != x.done || len(failures) > 1 || got.what != x.what || got.again != x.again {
			t.Errorf("%s: %d, %q", name, done, failures)
		}
	}
}

const simulated = `--- FAIL: TestPromisesHoldUnderFaults (2.00s)
    scenario_test.go:85: seed 111: P2 no ghost: 019b is published and not committed
          after 1m0s, 500 steps; replay: go test ./s -v -sim.seed=111
    shrink_test.go:50: shrunk in 90 runs from 30000 steps
          replay: go test ./s -v -sim.seed=1071 -sim.with=Orders=1
FAIL`

func TestEveryKindNamesRunnableCommands(t *testing.T) {
	all, err := works("../..")
	if err != nil {
		t.Fatal(err)
	}
	share := 0.0
	for _, w := range all {
		share += w.share
		seeds := false
		for _, c := range w.commands(7, 60) {
			runs := c.args[0] == "go" && (c.args[1] == "test" || c.args[1] == "run")
			if _, err := os.Stat(filepath.Join(c.dir, c.args[0])); !runs && err != nil {
				t.Errorf("%s: %s", w.name, c)
			}
			seeds = seeds || strings.Contains(c.String(), "=7 ")
			if _, err := os.Stat(filepath.Join("../..", c.dir)); c.dir != "." && !strings.HasPrefix(c.dir, "../..") && err != nil {
				t.Error(err)
			}
		}
		if seeds != w.seeded {
			t.Errorf("%s begins with seed 7: %v", w.name, seeds)
		}
		if w.amount(50_000, 50) < 1 {
			t.Errorf("%s has nothing to do", w.name)
		}
	}
	if share < 0.99 || share > 1.01 {
		t.Errorf("the shares of time add up to %v", share)
	}
}

func TestFuzzTargetsAreFound(t *testing.T) {
	found, err := fuzzTargets("../..")
	if err != nil || !slices.Contains(found, fuzzTarget{"../..", "FuzzWire", "scripts/fuzz"}) || !slices.Contains(found, fuzzTarget{"../../pabalsql", "FuzzTablePrefix", "../scripts/fuzz"}) {
		t.Errorf("%v: %v", found, err)
	}
}

// TestOnlyWhatFuzzingFoundFails: not that its time was over, which the toolchain tells as a failure now and then.
func TestOnlyWhatFuzzingFoundFails(t *testing.T) {
	script, err := filepath.Abs("../../scripts/fuzz")
	if err != nil {
		t.Fatal(err)
	}
	const over = "--- FAIL: FuzzX (1.05s)\n    context deadline exceeded\nFAIL"
	for name, c := range map[string]struct {
		says   string
		ends   int
		passes bool
	}{
		"nothing found":            {"PASS", 0, true},
		"its time was over":        {over, 1, true},
		"found, as time was over":  {over + "\n    Failing input written to testdata/fuzz/FuzzX/1", 1, false},
		"found":                    {"--- FAIL: FuzzX (0.02s)\n    x_test.go:1: wrong", 1, false},
		"its target says the same": {"--- FAIL: FuzzX (0.02s)\n    x_test.go:1: context deadline exceeded", 1, false},
		"does not compile":         {"./x.go:1:1: syntax error", 2, false},
	} {
		dir := t.TempDir() // with a go that says so
		text := fmt.Sprintf("#!/bin/sh\ncat <<'E'\n%s\nE\nexit %d\n", c.says, c.ends)
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		run := exec.CommandContext(t.Context(), script, "FuzzX", "1s")
		run.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := run.CombinedOutput()
		if (err == nil) != c.passes || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}

// TestNothingRunsAfterAnInterrupt: not even what has left its parent and its group, as servers of tests do.
func TestNothingRunsAfterAnInterrupt(t *testing.T) {
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	pids := filepath.Join(t.TempDir(), "pids")
	begun := "setsid sh -c 'echo $$ >>" + pids + "; sleep 1000' & (sleep 1000 & sleep 1000) & echo $$ >>" + pids + "; sleep 1000"
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		defer interrupt()
		for t.Context().Err() == nil {
			if text, _ := os.ReadFile(pids); strings.Count(string(text), "\n") == 2 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	w := &work{name: "sleep", read: readTests}
	x := &torture{scratch: t.TempDir(), logs: t.TempDir()}
	x.command(ctx, w, command{dir: ".", args: []string{"sh", "-c", begun}, units: 1})
	if left := childrenOf(os.Getpid()); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	text, _ := os.ReadFile(pids)
	for _, pid := range strings.Fields(string(text)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("still there: %s", pid)
		}
	}
	if w.done != 0 || w.spent != 0 || len(w.failures) != 0 {
		t.Errorf("what was cut short counts: %d in %v, %v", w.done, w.spent, w.failures)
	}
}

// ticks is a kind of work whose commands end at once.
func ticks(name string, share float64, least time.Duration, script string) *work {
	return &work{
		name: name, unit: "ticks", seeded: true, share: share, least: least, guess: 1, most: 10, read: readTests,
		amount: func(seeds, _ int) int { return seeds },
		commands: func(first uint64, n int) []command {
			return one(first, n, "sh", "-c", script)
		},
	}
}

func TestReportSaysWhatRanAndWhatDidNot(t *testing.T) {
	x := &torture{scratch: t.TempDir(), logs: t.TempDir(), works: []*work{
		ticks("good", 0.5, 0, "true"), ticks("bad", 0.1, 0, "echo '--- FAIL: TestA'; exit 1"), ticks("long", 0.4, time.Hour, "true"),
	}}
	later := time.Now().Add(time.Hour)
	x.turn(t.Context(), x.works[0], later, 5)
	x.turn(t.Context(), x.works[1], later, 100)
	x.during(t.Context(), time.Now()) // nothing more
	text := x.report(true, time.Now(), "1 1 1", "abc of old")
	for _, want := range []string{
		"good ", "bad   0 ticks", "bad: not run again after 3 failures", "FAILED  bad: TestA (", "again: sh -c echo", "long: not run", "1h0m0s",
		"go1.", "machine ", "load ", "INTERRUPTED", "abc of old, which was changed meanwhile; now ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if x.works[0].done != 5 || strings.Count(text, "\n") > 60 {
		t.Errorf("not one page, or nothing done:\n%s", text)
	}
}

func TestKindsRunInTurnsUntilTheEnd(t *testing.T) {
	x := &torture{scratch: t.TempDir(), logs: t.TempDir(), works: []*work{
		ticks("one", 0.5, 0, "true"), ticks("bad", 0.1, 0, "exit 1"), ticks("other", 0.4, 0, "true"), ticks("long", 0, time.Hour, "true"),
	}}
	x.during(t.Context(), time.Now().Add(500*time.Millisecond))
	if one, bad := x.works[0], x.works[1]; one.done == 0 || len(bad.failures) > failuresMost { // others get what time is left
		t.Errorf("%d done, %d failures", one.done, len(bad.failures))
	}
	if long := x.works[3]; long.done > 0 || long.omitted == "" {
		t.Errorf("an hour's work is begun half a second before the end: %+v", long)
	}
}

func TestOnceRunsTheAmountsThatAreAskedFor(t *testing.T) {
	x := &torture{scratch: t.TempDir(), logs: t.TempDir(), first: 1000, works: []*work{ticks("good", 1, 0, "true")}}
	x.once(t.Context(), [2]int{25, 1})
	if w := x.works[0]; w.done != 25 || !slices.Equal(w.seeds, []string{"1000–1009", "1010–1019", "1020–1024"}) {
		t.Errorf("%d, %v", w.done, w.seeds)
	}
	for _, wrong := range [][]string{{"x"}, {"0"}, {"1", "2", "3"}} {
		if _, err := amounts(wrong); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
