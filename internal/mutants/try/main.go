// Try runs the mutants and says how each was found.
//
//	go run ./internal/mutants/try                 # all: half an hour on two cores
//	go run ./internal/mutants/try -seeds 50 never # those whose names match
package main

import (
	"context"
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
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := try(ctx, *seeds, regexp.MustCompile(flag.Arg(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func try(ctx context.Context, seeds int, names *regexp.Regexp) error {
	all, err := mutants.All()
	if err != nil {
		return err
	}
	survivors := 0
	for i := range all {
		m := &all[i]
		if !names.MatchString(m.Name) {
			continue
		}
		f, err := m.Simulate(ctx, ".", seeds)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			fmt.Printf("%-40s %v\n", m.Name, err)
			survivors++
		case f.Seeds == 0:
			fmt.Printf("%-40s survives %d seeds (%v)\n", m.Name, seeds, f.Run.Round(time.Millisecond))
			survivors++
		default:
			fmt.Printf("%-40s %4d  %v  %.150s\n", m.Name, f.Seeds, f.Run.Round(time.Millisecond), f.What)
		}
	}
	if survivors > 0 {
		return fmt.Errorf("%d mutants survive", survivors)
	}
	return nil
}
