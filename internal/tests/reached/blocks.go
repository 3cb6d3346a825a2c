package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

// block is a piece of code that runs as a whole or not at all.
type block struct {
	function string // file and name
	name     string // the function and how the block begins: what stays the same when lines move
	where    string // file and line
	reached  bool
}

// blocks names the blocks of package pabal's files.
func blocks(root string, profiles []*cover.Profile) ([]block, error) {
	var all []block
	for _, p := range profiles {
		if path.Dir(p.FileName) != module {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, path.Base(p.FileName)))
		if err != nil {
			return nil, err
		}
		some, err := blocksOf(path.Base(p.FileName), source, p.Blocks)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the profile says nothing of %s", module)
	}
	return all, nil
}

// whole puts one block, of the function's name, in the place of those of each function of which none is reached.
func whole(all []block) []block {
	reached := map[string]bool{}
	for _, b := range all {
		reached[b.function] = reached[b.function] || b.reached
	}
	var short []block
	for _, b := range all {
		switch {
		case reached[b.function]:
			short = append(short, b)
		case len(short) == 0 || short[len(short)-1].name != b.function:
			short = append(short, block{b.function, b.function, b.where, false})
		}
	}
	return short
}

// blocksOf names the blocks of one file. Those of a function that begin alike are numbered from the second on.
func blocksOf(file string, source []byte, profile []cover.ProfileBlock) ([]block, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	profile = slices.Clone(profile)
	slices.SortFunc(profile, func(a, b cover.ProfileBlock) int {
		return cmp.Or(cmp.Compare(a.StartLine, b.StartLine), cmp.Compare(a.StartCol, b.StartCol))
	})
	lines := strings.Split(string(source), "\n")
	alike := map[string]int{}
	var all []block
	for _, p := range profile {
		if p.NumStmt == 0 {
			continue
		}
		of := file + " " + function(set, tree, p.StartLine)
		name := of + ": " + beginning(lines, p)
		if alike[name]++; alike[name] > 1 {
			name = fmt.Sprintf("%s #%d", name, alike[name])
		}
		all = append(all, block{of, name, fmt.Sprintf("%s:%d", file, p.StartLine), p.Count > 0})
	}
	return all, nil
}

// beginning is the line that a block begins in, and the next one when the block begins at its end.
func beginning(lines []string, p cover.ProfileBlock) string {
	line := lines[p.StartLine-1]
	text := strings.TrimSpace(line)
	if rest := strings.TrimSpace(line[min(p.StartCol-1, len(line)):]); rest != "" && rest != "{" && rest != ":" {
		return text
	}
	for _, next := range lines[p.StartLine:p.EndLine] {
		if next = strings.TrimSpace(next); next != "" && !strings.HasPrefix(next, "//") {
			return text + " " + next
		}
	}
	return text
}

// function names the function that a line is in.
func function(set *token.FileSet, tree *ast.File, line int) string {
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || line < set.Position(f.Pos()).Line || line > set.Position(f.End()).Line {
			continue
		}
		if f.Recv == nil {
			return f.Name.Name
		}
		of := f.Recv.List[0].Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		switch generic := of.(type) {
		case *ast.IndexExpr:
			of = generic.X
		case *ast.IndexListExpr:
			of = generic.X
		}
		if name, ok := of.(*ast.Ident); ok {
			return name.Name + "." + f.Name.Name
		}
		return f.Name.Name
	}
	return "-"
}
