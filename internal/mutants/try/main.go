// Try runs the mutants and says how each was found.
//
//	go run ./internal/mutants/try                 # all that the simulation finds
//	go run ./internal/mutants/try -seeds 50 never # those whose names match
//	go run ./internal/mutants/try -write          # and notes the seeds, beside the mutants and in docs/promises.md
//	go run ./internal/mutants/try -first 70001    # by other seeds than those from 1 on
//	go run ./internal/mutants/try -tests          # those that their tests find, by them
//	go run ./internal/mutants/try -databases      # those of the databases, by the cases of driver/storetest; -write: docs/promises.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/pabal-go/pabal/internal/mutants"
)

func main() {
	var o options
	flag.IntVar(&o.first, "first", 1, "the first seed")
	flag.IntVar(&o.seeds, "seeds", 2000, "how many seeds a mutant may survive")
	flag.BoolVar(&o.write, "write", false, "note the seeds that found them")
	tests := flag.Bool("tests", false, "run the tests of those that no seed finds")
	ofDatabases := flag.Bool("databases", false, "run the cases that find those of the databases")
	flag.Parse()
	o.names = regexp.MustCompile(flag.Arg(0))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := try
	switch {
	case *tests && *ofDatabases:
		do = func(context.Context, options) error { return errors.New("either -tests or -databases") }
	case *tests:
		do = test
	case *ofDatabases:
		do = databases
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct {
	first, seeds int
	write        bool
	names        *regexp.Regexp // of mutants
}

func try(ctx context.Context, o options) error {
	if o.write && o.first != 1 {
		return errors.New("-write notes the first seed of all, from 1 on: leave out -first")
	}
	all, err := mutants.All()
	if err != nil {
		return err
	}
	program, err := mutants.Build(ctx, ".", all)
	if err != nil {
		return err
	}
	defer program.Close()
	survivors, found := 0, map[string]int{}
	for i := range all {
		m := &all[i]
		if !o.names.MatchString(m.Name) || m.Test != "" {
			continue
		}
		f, err := program.Simulate(ctx, i, o.first, o.seeds)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			fmt.Printf("%-40s %v\n", m.Name, err)
			survivors++
		case f.Seed == 0:
			fmt.Printf("%-40s survives %d seeds (%v)\n", m.Name, o.seeds, f.Took.Round(time.Millisecond))
			survivors++
		default:
			fmt.Printf("%-40s %4d  %v  %.150s\n", m.Name, f.Seed, f.Took.Round(time.Millisecond), f.What)
			found[m.Name] = f.Seed
		}
	}
	if o.write {
		err = mutants.Note(".", all, found)
	}
	if survivors > 0 {
		return errors.Join(err, fmt.Errorf("%d mutants survive", survivors))
	}
	return err
}

// test demands that each test is red with its mutant, and green without.
func test(ctx context.Context, o options) error {
	all, err := mutants.All()
	if err != nil {
		return err
	}
	program, err := mutants.BuildTests(ctx, ".", all)
	if err != nil {
		return err
	}
	defer program.Close()
	if passed, said, err := program.Test(ctx, -1); err != nil || !passed {
		return errors.Join(err, fmt.Errorf("a test is red without its mutant:\n%s", said))
	}
	survivors := 0
	for i := range all {
		m := &all[i]
		if !o.names.MatchString(m.Name) || m.Test == "" {
			continue
		}
		passed, said, err := program.Test(ctx, i)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			fmt.Printf("%-40s %v\n%s\n", m.Name, err, said)
			survivors++
		case passed:
			fmt.Printf("%-40s survives %s\n", m.Name, m.Test)
			survivors++
		default:
			fmt.Printf("%-40s %s\n", m.Name, m.Test)
		}
	}
	if survivors > 0 {
		return fmt.Errorf("%d mutants survive their tests", survivors)
	}
	return nil
}

// databases demands that each case is red with its mutant. That they are green without is what the suites are run for.
func databases(ctx context.Context, o options) error {
	all, err := mutants.Databases()
	if err != nil {
		return err
	}
	survivors := 0
	for i := range all {
		m := &all[i]
		if !o.names.MatchString(m.Name) {
			continue
		}
		start := time.Now()
		red, said, err := m.Suite(ctx, ".")
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			fmt.Printf("%-34s %-34s %v\n%s\n", m.Name, m.File, err, said)
			survivors++
		case !red:
			fmt.Printf("%-34s %-34s survives %s\n", m.Name, m.File, m.Test)
			survivors++
		default:
			fmt.Printf("%-34s %-34s %s, %v\n", m.Name, m.File, m.Test, time.Since(start).Round(time.Millisecond))
		}
	}
	if o.write {
		err = mutants.NoteDatabases(".", all)
	}
	if survivors > 0 {
		err = errors.Join(err, fmt.Errorf("%d mutants survive their cases", survivors))
	}
	return err
}
