// Try runs the mutants and says how each was found.
//
//	go run ./internal/mutants/try                 # all
//	go run ./internal/mutants/try -seeds 50 never # those whose names match
//	go run ./internal/mutants/try -write          # and notes the seeds, beside the mutants and in docs/promises.md
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
	seeds := flag.Int("seeds", 2000, "how many seeds a mutant may survive")
	write := flag.Bool("write", false, "note the seeds that found them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := try(ctx, *seeds, *write, regexp.MustCompile(flag.Arg(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func try(ctx context.Context, seeds int, write bool, names *regexp.Regexp) error {
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
		if !names.MatchString(m.Name) || m.Test != "" {
			continue
		}
		f, err := program.Simulate(ctx, i, 1, seeds)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			fmt.Printf("%-40s %v\n", m.Name, err)
			survivors++
		case f.Seed == 0:
			fmt.Printf("%-40s survives %d seeds (%v)\n", m.Name, seeds, f.Took.Round(time.Millisecond))
			survivors++
		default:
			fmt.Printf("%-40s %4d  %v  %.150s\n", m.Name, f.Seed, f.Took.Round(time.Millisecond), f.What)
			found[m.Name] = f.Seed
		}
	}
	if write {
		err = mutants.Note(".", found)
	}
	if survivors > 0 {
		return errors.Join(err, fmt.Errorf("%d mutants survive", survivors))
	}
	return err
}
