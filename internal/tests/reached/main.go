// Reached says which code of package pabal no seed of the simulation reaches. Each such block stands in unreached.txt with the
// reason why it may; the command fails when one does not, and when one that does is reached by now or gone.
//
//	go run ./internal/tests/reached             # check
//	go run ./internal/tests/reached -drop       # take out of the list what is reached by now
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/tools/cover"
)

const module = "github.com/pabal-go/pabal"

func main() {
	seeds := flag.Int("seeds", 400, "how many seeds to run")
	first := flag.Uint64("first", 1, "the first seed")
	profile := flag.String("profile", "", "a cover profile to read, instead of running seeds")
	drops := flag.Bool("drop", false, "take out of the list what is reached by now, or no longer there")
	root := flag.String("root", ".", "the root of the tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *profile, *first, *seeds, *drops); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, profile string, first uint64, seeds int, drops bool) error {
	if profile == "" {
		dir, err := os.MkdirTemp("", "pabal-reached-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		profile = filepath.Join(dir, "profile")
		if err := simulate(ctx, root, profile, first, seeds); err != nil {
			return err
		}
	}
	profiles, err := cover.ParseProfiles(profile)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	found, err := blocks(root, profiles)
	if err != nil {
		return err
	}
	file := filepath.Join(root, filepath.FromSlash(listFile))
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	excused, err := parse(string(text))
	if err != nil {
		return err
	}
	c := compare(found, excused)
	if drops {
		if err := os.WriteFile(file, []byte(drop(string(text), c.over)), 0o644); err != nil {
			return err
		}
		c.over = nil
	}
	fmt.Printf("%d of %d blocks of package pabal are reached; the list excuses %d functions and blocks\n", c.reached, c.all, len(excused))
	return c.err()
}

// simulate runs seeds and has what they reach of package pabal written down.
func simulate(ctx context.Context, root, profile string, first uint64, seeds int) error {
	test := exec.CommandContext(ctx, "go", "test", "-vet=off", "-coverpkg="+module, "-covermode=set", "-coverprofile="+profile,
		"-run=TestPromisesHoldUnderFaults", "-timeout=1h", "./internal/sim/scenario",
		"-sim.first="+strconv.FormatUint(first, 10), "-sim.seeds="+strconv.Itoa(seeds), "-sim.shrink=0")
	test.Dir, test.Stdout, test.Stderr = root, os.Stderr, os.Stderr
	if err := test.Run(); err != nil {
		return fmt.Errorf("simulate %d seeds: %w", seeds, err)
	}
	return nil
}
