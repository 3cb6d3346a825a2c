package mutants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where the tests are that find mutants, from the root of the module.
const (
	scenario = "./internal/sim/scenario" // the simulation
	beside   = "."                       // small tests, beside the code
)

// Found is how a mutant was found.
type Found struct {
	Seed int    // the first that fails; 0: it survived all of them
	What string // the violation
	Took time.Duration
}

// Program is the simulation, or the small tests, with every one of some mutants in it.
type Program struct {
	root     string
	tests    string // scenario or beside
	dir      string
	mutants  []Mutant
	binary   string
	binaries map[int]string // of those that are built apart
	apart    []int
}

// Build builds the simulation with mutants, about as long as a test of it. Close removes it.
func Build(ctx context.Context, root string, mutants []Mutant) (*Program, error) {
	return build(ctx, root, scenario, mutants)
}

// BuildTests is Build for the small tests, of which [Program.Test] runs one.
func BuildTests(ctx context.Context, root string, mutants []Mutant) (*Program, error) {
	return build(ctx, root, beside, mutants)
}

func build(ctx context.Context, root, tests string, mutants []Mutant) (p *Program, err error) {
	dir, err := os.MkdirTemp("", "pabal-mutants-")
	if err != nil {
		return nil, err
	}
	p = &Program{root: root, tests: tests, dir: dir, mutants: mutants, binary: filepath.Join(dir, "all.test"), binaries: map[int]string{}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	overlay, apart, err := Together(mutants, root, dir)
	if err != nil {
		return p, err
	}
	p.apart = apart
	return p, p.compile(ctx, overlay, p.binary)
}

// Close removes what was built.
func (p *Program) Close() { _ = os.RemoveAll(p.dir) }

func (p *Program) compile(ctx context.Context, overlay, binary string) error {
	c := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, p.tests)
	c.Dir = p.root
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("mutants do not compile: %w\n%s", err, text)
	}
	return nil
}

// binaryOf returns the program in which a mutant is, and builds that of one that is apart.
func (p *Program) binaryOf(ctx context.Context, n int) (string, error) {
	for _, apart := range p.apart {
		if apart == n && p.binaries[n] == "" {
			dir, err := os.MkdirTemp(p.dir, "apart-")
			if err != nil {
				return "", err
			}
			overlay, err := p.mutants[n].Overlay(p.root, dir)
			if err != nil {
				return "", err
			}
			if err := p.compile(ctx, overlay, filepath.Join(dir, "mutant.test")); err != nil {
				return "", err
			}
			p.binaries[n] = filepath.Join(dir, "mutant.test")
		}
	}
	if apart := p.binaries[n]; apart != "" {
		return apart, nil
	}
	return p.binary, nil
}

var violation = regexp.MustCompile(`seed (\d+): (.*)`)

// Simulate runs the simulation with the n-th mutant, at most so many seeds from first on. A mutant may end the program in any
// way: by a failing test, a panic, a deadlock, a loop.
func (p *Program) Simulate(ctx context.Context, n, first, seeds int) (Found, error) {
	m := &p.mutants[n]
	binary, err := p.binaryOf(ctx, n)
	if err != nil {
		return Found{}, fmt.Errorf("build mutant %s: %w", m.Name, err)
	}
	start := time.Now()
	var output bytes.Buffer
	run := exec.CommandContext(ctx, binary, "-test.run=UnderFaults", "-test.timeout=1h", "-sim.shrink=0",
		"-sim.first="+strconv.Itoa(first), "-sim.seeds="+strconv.Itoa(seeds))
	run.Dir, run.Stdout, run.Stderr = filepath.Join(p.root, scenario), &output, &output
	run.Env = append(os.Environ(), selected+"="+strconv.Itoa(n+1))
	if err := run.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return Found{}, fmt.Errorf("run mutant %s: %w", m.Name, err)
	}
	f, out := Found{Took: time.Since(start)}, output.String()
	if at := violation.FindStringSubmatch(out); at != nil {
		f.Seed, _ = strconv.Atoi(at[1])
		f.What = at[2]
	} else if !strings.Contains(out, "PASS") && ctx.Err() == nil {
		return f, fmt.Errorf("mutant %s ended without naming a seed:\n%s", m.Name, out[max(0, len(out)-2000):])
	}
	return f, ctx.Err()
}

// Test runs the small test that finds the n-th mutant; with n below zero those of all mutants, on the code as it is. It reports
// whether all went well, and what was said.
func (p *Program) Test(ctx context.Context, n int) (passed bool, said string, err error) {
	binary, names := p.binary, map[string]bool{}
	if n >= 0 {
		if binary, err = p.binaryOf(ctx, n); err != nil {
			return false, "", fmt.Errorf("build mutant %s: %w", p.mutants[n].Name, err)
		}
		names[p.mutants[n].Test] = true
	}
	for i := range p.mutants {
		if n < 0 && p.mutants[i].Test != "" {
			names[p.mutants[i].Test] = true
		}
	}
	pattern := "^(" + strings.Join(slices.Sorted(maps.Keys(names)), "|") + ")$"
	run := exec.CommandContext(ctx, binary, "-test.v", "-test.timeout=2m", "-test.run="+pattern)
	run.Dir = filepath.Join(p.root, p.tests)
	run.Env = append(os.Environ(), selected+"="+strconv.Itoa(max(n+1, 0)))
	out, err := run.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return false, "", fmt.Errorf("run %s: %w", pattern, err)
	}
	for name := range names {
		if !strings.Contains(string(out), "=== RUN   "+name+"\n") {
			return false, string(out), fmt.Errorf("%s did not run", name)
		}
	}
	return err == nil, string(out), ctx.Err()
}
