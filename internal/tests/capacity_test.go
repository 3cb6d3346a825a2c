package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConnectionBudgetCountsEveryTask: docs/capacity.md counts the tasks of the core that take a connection. A new task has to be
// put here, and there.
func TestConnectionBudgetCountsEveryTask(t *testing.T) {
	words := map[string]string{ // of the tasks that take one, what docs/capacity.md calls them; "": takes none
		"republisher": "republisher", "confirmer": "confirmer", "prover": "prover", "writer": "writer of verdicts",
		"claimer": "claimer of doubtful commits", "redeliverer": "redeliverer", "keeper": "keeper", "lane": "lanes",
		"inbox-sweep": "sweep of its inbox", "reachable-": "/readyz",
		"client-": "", "intake": "", "publisher": "", "consumer-": "", "acker": "", "heartbeat": "", "lanes": "", "handler": "",
	}
	_, budget, _ := strings.Cut(text(t, "docs/capacity.md"), "## Connections")
	found := regexp.MustCompile(`(?:\.Go|\.stage)\((?:w, )?"([a-z-]+)"`).FindAllStringSubmatch(sources(t), -1)
	for _, task := range found {
		word, known := words[task[1]]
		if !known || !strings.Contains(budget, word) {
			t.Errorf("task %s: docs/capacity.md does not say whether it takes a connection (%q)", task[1], word)
		}
	}
	if len(found) < len(words) {
		t.Errorf("%d tasks are started, %d are known here", len(found), len(words))
	}
}

// sources are those of the core and of the drivers of brokers, tests left out.
func sources(t *testing.T) string {
	t.Helper()
	var all bytes.Buffer
	for _, pattern := range []string{"*.go", "driver/*.go", "pabalnats/*.go", "pabalsns/*.go", "cmd/pabal/*.go"} {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(code)
		}
	}
	return all.String()
}
