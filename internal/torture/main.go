// Torture runs what takes too long for every change: new seeds of the simulation, its scenario on goroutines, real processes
// that are killed, faults of servers, brokers and stores that misbehave, in the shop and in their suites, SNS behind a hostile
// proxy, rolling deploys, mutants, fuzzing, and real stores beside the simulated one. It ends with a report of one page, also when
// it is interrupted, and leaves no process running. scripts/torture starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	lasting := flag.Duration("for", 0, "how long; at the end of this time nothing more is begun")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "scripts/torture --for 8h           all of it, round after round, for so long\n"+
			"scripts/torture [SEEDS] [ROUNDS]   so many seeds of the simulation and rounds of kill -9, and the rest in proportion")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *lasting, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

var errFailures = errors.New("there are failures")

func run(ctx context.Context, lasting time.Duration, args []string) error {
	counts, err := amounts(args)
	if err != nil {
		return err
	}
	all, err := works(".")
	if err != nil {
		return err
	}
	if err := adopt(); err != nil {
		return err
	}
	begin := time.Now()
	dir := filepath.Join(".tools", "torture", begin.Format("20060102-150405"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "pabal-torture-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := os.Chmod(scratch, 0o777|os.ModeSticky); err != nil { // servers have users of their own, who write here, too
		return err
	}
	t := &torture{works: all, logs: dir, scratch: scratch, first: uint64(begin.Unix()) % 1_000_000 * 1000}
	before, tree := load(), revision()
	if lasting > 0 {
		t.during(ctx, begin.Add(lasting))
	} else {
		t.once(ctx, counts)
	}
	text := t.report(ctx.Err() != nil, begin, before, tree)
	fmt.Print("\n", text)
	file := filepath.Join(dir, "report.txt")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Println("\nThis report is", file)
	for _, w := range t.works {
		if len(w.failures) > 0 {
			return errFailures
		}
	}
	return nil
}

// amounts are how many seeds and rounds are asked for.
func amounts(args []string) (counts [2]int, err error) {
	counts = [2]int{50_000, 50}
	if len(args) > len(counts) {
		return counts, fmt.Errorf("%q: want at most SEEDS and ROUNDS", args)
	}
	for i, arg := range args {
		if counts[i], err = strconv.Atoi(arg); err != nil || counts[i] < 1 {
			return counts, fmt.Errorf("%q is no number of seeds or rounds", arg)
		}
	}
	return counts, nil
}
