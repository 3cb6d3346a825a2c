// Package mutants doubts the tests. For each rule that Pabal promises, mutants.txt disables the code that keeps it; a
// mutant that no seed of the simulation finds is a hole in the simulation, or code that is not needed. databases.txt does so with what
// the databases keep. `go run ./internal/mutants/try` tries them.
package mutants

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed mutants.txt
var text string

// Mutant is the code of Pabal with one rule disabled.
type Mutant struct {
	Name   string
	File   string // from the root of the module
	Seed   int    // of the simulation that found it when all were tried last; 0: none does
	Test   string // that finds one that no seed does; of a database: the case
	Why    string // no seed does; of a database: what the rule says
	Places []Place
}

// Place is a piece of the file, and what stands there in the mutant.
type Place struct{ Old, New string }

// All returns the mutants of the protocol, in order.
func All() ([]Mutant, error) { return read("mutants.txt", text) }

func read(file, text string) (all []Mutant, err error) {
	var was, is []string
	place := func() {
		if len(was) > 0 {
			m := &all[len(all)-1]
			m.Places = append(m.Places, Place{strings.Join(was, "\n"), strings.Join(is, "\n")})
		}
		was, is = nil, nil
	}
	for n, line := range strings.Split(text, "\n") {
		switch {
		case line == "", line[0] == '#':
		case line[0] == '=':
			place()
			m, err := header(line)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, n+1, err)
			}
			all = append(all, m)
		case line[0] == '!':
			all[len(all)-1].Why = strings.TrimSpace(all[len(all)-1].Why + line[1:])
		case line == "@@":
			place()
		case line[0] == '-':
			was = append(was, line[1:])
		case line[0] == '+':
			is = append(is, line[1:])
		case line[0] == ' ':
			was, is = append(was, line[1:]), append(is, line[1:])
		default:
			return nil, fmt.Errorf("%s:%d: what is %q?", file, n+1, line)
		}
	}
	place()
	return all, nil
}

// header reads the first line of a mutant.
func header(line string) (m Mutant, err error) {
	f := strings.Fields(line)
	if len(f) < 4 {
		return m, fmt.Errorf("%q: want = name file seed, or = name file test", line)
	}
	m = Mutant{Name: f[1], File: f[2]}
	found := strings.Join(f[3:], " ")
	if m.Seed, err = strconv.Atoi(found); err != nil {
		m.Test = found
	}
	return m, nil
}

// Patch returns the mutant's file.
func (m *Mutant) Patch(root string) (string, error) {
	source, err := os.ReadFile(filepath.Join(root, m.File))
	if err != nil {
		return "", err
	}
	code := string(source)
	for _, p := range m.Places {
		if n := strings.Count(code, p.Old); n != 1 {
			return "", fmt.Errorf("mutant %s: the old text is %d times in %s, not once:\n%s", m.Name, n, m.File, p.Old)
		}
		code = strings.Replace(code, p.Old, p.New, 1)
	}
	return code, nil
}

// Overlay writes into dir what go build's -overlay wants, and returns its name. Nothing in the tree changes.
func (m *Mutant) Overlay(root, dir string) (string, error) {
	code, err := m.Patch(root)
	if err != nil {
		return "", err
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return "", err
	}
	patched, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	names, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, m.File): patched}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(patched, []byte(code), 0o600); err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, names, 0o600)
}
