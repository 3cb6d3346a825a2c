package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	docs    = "../../docs/guide"
	fewest  = 10 // chapters
	program = "$ go run ./examples/guide "
)

var blockForm = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```")

// pages are the chapters' texts by file name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(docs + "/*.md")
	if err != nil || len(paths) < fewest {
		t.Fatalf("%d pages, %v", len(paths), err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(text)
	}
	return texts
}

// TestProgramsPrintWhatTheirPagesShow: each program has a page that shows how it is run, and what it then prints.
func TestProgramsPrintWhatTheirPagesShow(t *testing.T) {
	shown := map[string]string{}
	for _, text := range pages(t) {
		for _, block := range blockForm.FindAllStringSubmatch(text, -1) {
			if command, output, _ := strings.Cut(block[2], "\n"); strings.HasPrefix(command, program) {
				shown[strings.TrimPrefix(command, program)] = output
			}
		}
	}
	for chapter := range chapters {
		t.Run(chapter, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := run(t.Context(), chapter, &out); err != nil {
				t.Fatal(err)
			}
			if out.String() != shown[chapter] {
				t.Errorf("it prints\n%s\nthe page shows\n%s", out.String(), shown[chapter])
			}
		})
	}
}

// TestPagesShowCodeOfTheirPrograms: a block of Go or SQL is an excerpt of one of the files that its page links to, line by line but
// for indentation. A line "…" stands for lines that were left out.
func TestPagesShowCodeOfTheirPrograms(t *testing.T) {
	link := regexp.MustCompile(`\]\(((?:\.\./)+[^)#]*\.go)\)`)
	for name, text := range pages(t) {
		var files []string
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			code, err := os.ReadFile(filepath.Join(docs, m[1]))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			files = append(files, flat(string(code)))
		}
		for _, block := range blockForm.FindAllStringSubmatch(text, -1) {
			if block[1] != "go" && block[1] != "sql" {
				continue
			}
			for piece := range strings.SplitSeq(flat(block[2]), "\n…\n") {
				if !excerpt(files, piece) {
					t.Errorf("%s shows what is in none of the files that it links to:\n%s", name, piece)
				}
			}
		}
	}
}

func excerpt(files []string, piece string) bool {
	for _, file := range files {
		if strings.Contains("\n"+file+"\n", "\n"+piece+"\n") {
			return true
		}
	}
	return false
}

// flat removes indentation and alignment.
func flat(code string) string {
	var lines []string
	for line := range strings.Lines(code) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
