package mutants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Found is how a mutant was found.
type Found struct {
	Seeds int    // until the first that fails; 0: it survived all of them
	What  string // the violation
	Build time.Duration
	Run   time.Duration
}

// program runs a mutant as a test binary of a package. A mutant may end the program in any way: by a failing test, a
// panic, a deadlock, a loop.
func (m *Mutant) program(ctx context.Context, root, pkg string, args ...string) (out string, build time.Duration, err error) {
	dir, err := os.MkdirTemp("", "pabal-mutant-")
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := m.Overlay(root, dir)
	if err != nil {
		return "", 0, err
	}
	start := time.Now()
	binary := filepath.Join(dir, "mutant.test")
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, pkg)
	compile.Dir = root
	if text, err := compile.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("mutant %s does not compile: %w\n%s", m.Name, err, text)
	}
	build = time.Since(start)
	var output bytes.Buffer
	run := exec.CommandContext(ctx, binary, args...)
	run.Dir, run.Stdout, run.Stderr = filepath.Join(root, pkg), &output, &output
	if err := run.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return "", build, fmt.Errorf("run mutant %s: %w", m.Name, err)
	}
	return output.String(), build, ctx.Err()
}

var violation = regexp.MustCompile(`seed (\d+): (.*)`)

// Simulate runs the simulation with the mutant, at most so many seeds.
func (m *Mutant) Simulate(ctx context.Context, root string, seeds int) (Found, error) {
	start := time.Now()
	out, build, err := m.program(ctx, root, "./internal/sim/scenario", "-test.run=UnderFaults", "-test.timeout=10m", "-sim.shrink=0",
		"-sim.seeds="+strconv.Itoa(seeds))
	if err != nil {
		return Found{}, err
	}
	f := Found{Build: build, Run: time.Since(start) - build}
	if at := violation.FindStringSubmatch(out); at != nil {
		f.Seeds, _ = strconv.Atoi(at[1])
		f.What = at[2]
	} else if !strings.Contains(out, "PASS") {
		return f, fmt.Errorf("mutant %s ended without naming a seed:\n%s", m.Name, out[max(0, len(out)-2000):])
	}
	return f, nil
}
