package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestMain lets the test's binary stand for the command, whose child it has to be.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "dies" {
		die(os.Args[2])
	}
	os.Exit(m.Run())
}

// TestPageShowsWhatTheCommandsPrint: every block of docs/tutorial-order-payment.md that begins with a command of this package
// goes on with what it prints.
func TestPageShowsWhatTheCommandsPrint(t *testing.T) {
	page, err := os.ReadFile("../docs/tutorial-order-payment.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```text\n\\$ go run ./tutorial (\\w+)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		shown[m[1]] = m[2]
	}
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			var out bytes.Buffer
			if err := run(way, &out); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != shown[way] {
				t.Errorf("it prints\n%s\nthe page shows\n%s", got, strings.TrimSpace(shown[way]))
			}
		})
	}
}
