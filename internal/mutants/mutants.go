// Package mutants doubts the tests. For each rule that Pabal promises, mutants.txt disables the code that keeps it; a
// mutant that no seed of the simulation finds is a hole in the simulation, or code that is not needed. `go run
// ./internal/mutants/try` tries them.
package mutants

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed mutants.txt
var text string

// Mutant is the code of Pabal with one rule disabled.
type Mutant struct {
	Name   string
	File   string // from the root of the module
	Places []Place
}

// Place is a piece of the file, and what stands there in the mutant.
type Place struct{ Old, New string }

// All returns the mutants, in order.
func All() ([]Mutant, error) {
	var all []Mutant
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
			f := strings.Fields(line)
			if len(f) != 3 {
				return nil, fmt.Errorf("mutants.txt:%d: want = name file", n+1)
			}
			all = append(all, Mutant{Name: f[1], File: f[2]})
		case line == "@@":
			place()
		case line[0] == '-':
			was = append(was, line[1:])
		case line[0] == '+':
			is = append(is, line[1:])
		case line[0] == ' ':
			was, is = append(was, line[1:]), append(is, line[1:])
		default:
			return nil, fmt.Errorf("mutants.txt:%d: what is %q?", n+1, line)
		}
	}
	place()
	return all, nil
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
