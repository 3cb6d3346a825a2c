package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestGuideNamesCommandsThatAreThere: each `pabal …` in the text of docs/guide names a command that this program has, and flags
// of it. Words in capitals stand for values.
func TestGuideNamesCommandsThatAreThere(t *testing.T) {
	parser, err := kong.New(&commands{}, kong.Vars{"log": "warn", "brokers": "", "databases": ""}, kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`pabal\\s([^`]*)`").FindAllStringSubmatch(string(text), -1) {
			n++
			if wrong := unknownWord(parser.Model.Node, strings.Fields(m[1])); wrong != "" {
				t.Errorf("%s shows `pabal %s`: there is no %s", filepath.Base(page), m[1], wrong)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d commands found", n)
	}
}

// unknownWord is the first of words that is neither a command nor a flag of the command before it.
func unknownWord(node *kong.Node, words []string) string {
	for _, word := range words {
		if flag, ok := strings.CutPrefix(word, "--"); ok {
			for in := node; ; in = in.Parent {
				if in == nil {
					return word
				}
				if slices.ContainsFunc(in.Flags, func(f *kong.Flag) bool { return f.Name == flag }) {
					break
				}
			}
			continue
		}
		if len(node.Children) == 0 {
			continue // a value
		}
		i := slices.IndexFunc(node.Children, func(c *kong.Node) bool { return c.Name == word })
		if i < 0 {
			return word
		}
		node = node.Children[i]
	}
	return ""
}
