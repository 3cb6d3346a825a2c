package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestOperationsShowsCommandsThatAreThere: each pabal command line in a block of docs/operations.md is one that this program
// understands, flags and all.
func TestOperationsShowsCommandsThatAreThere(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PABAL_DB", "sqlite:order.db")
	n := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			command, _, _ := strings.Cut(line, " #")
			args := strings.Fields(regexp.MustCompile(`'[^']*'`).ReplaceAllString(command, "quoted"))
			if len(args) == 0 || args[0] != "pabal" {
				continue
			}
			n++
			parser, err := kong.New(&commands{}, kong.Vars{"log": "warn", "brokers": "", "databases": ""}, kong.Writers(io.Discard, io.Discard))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(args[1:]); err != nil {
				t.Errorf("docs/operations.md shows %q: %v", strings.TrimSpace(line), err)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d commands found", n)
	}
}
