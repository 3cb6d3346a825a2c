package mutants

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mutants are built together: a program that has of each function that some mutant changes its own and every mutant's version,
// of which the environment selects one when the program starts. Building takes far longer than finding most mutants.

// selected is the variable of the environment that holds the number of a mutant, from 1.
const selected = "PABAL_MUTANT"

// unit is one file with all of its mutants.
type unit struct {
	name    string // from the root of the module
	source  string
	file    *ast.File
	fset    *token.FileSet
	insert  map[int]string // into source, by offset
	append_ strings.Builder
}

// Together writes into dir what go build's -overlay wants for a program with all mutants, and returns its name. apart are the
// numbers of those that are no change of functions alone, and have to be built by themselves.
func Together(all []Mutant, root, dir string) (overlay string, apart []int, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return "", nil, err
	}
	units := map[string]*unit{}
	replace := map[string]string{}
	for i := range all {
		m := &all[i]
		u := units[m.File]
		if u == nil {
			if u, err = parse(root, m.File); err != nil {
				return "", nil, err
			}
			units[m.File] = u
		}
		patched, err := m.Patch(root)
		if err != nil {
			return "", nil, err
		}
		if fits, err := u.add(i+1, patched); err != nil {
			return "", nil, fmt.Errorf("mutant %s: %w", m.Name, err)
		} else if !fits {
			apart = append(apart, i)
		}
	}
	for name, u := range units {
		target := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(target, []byte(u.text()), 0o600); err != nil {
			return "", nil, err
		}
		replace[filepath.Join(root, name)] = target
		selects := filepath.Join(filepath.Dir(name), "mutant_selected.go")
		target = filepath.Join(dir, strings.ReplaceAll(selects, "/", "_"))
		code := fmt.Sprintf("package %s\n\nimport (\n\t\"os\"\n\t\"strconv\"\n)\n\nvar mutantSelected, _ = strconv.Atoi(os.Getenv(%q))\n",
			u.file.Name.Name, selected)
		if err := os.WriteFile(target, []byte(code), 0o600); err != nil {
			return "", nil, err
		}
		replace[filepath.Join(root, selects)] = target
	}
	names, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", nil, err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, apart, os.WriteFile(overlay, names, 0o600)
}

func parse(root, name string) (*unit, error) {
	source, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return nil, err
	}
	u := &unit{name: name, source: string(source), fset: token.NewFileSet(), insert: map[int]string{}}
	u.file, err = parser.ParseFile(u.fset, name, source, parser.SkipObjectResolution)
	return u, err
}

// add takes in the functions that a mutant changes; false if it changes something else.
func (u *unit) add(number int, patched string) (bool, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, u.name, patched, parser.SkipObjectResolution)
	if err != nil {
		return false, err
	}
	if len(file.Decls) != len(u.file.Decls) {
		return false, nil
	}
	type version struct{ was, is *ast.FuncDecl }
	var versions []version
	for i, is := range file.Decls {
		was := u.file.Decls[i]
		if cut(patched, fset, is) == cut(u.source, u.fset, was) {
			continue
		}
		f, isFunction := is.(*ast.FuncDecl)
		g, wasFunction := was.(*ast.FuncDecl)
		if !isFunction || !wasFunction || !callable(g) {
			return false, nil
		}
		versions = append(versions, version{g, f})
	}
	for _, v := range versions {
		name := fmt.Sprintf("%sMutant%d", v.is.Name.Name, number)
		call := fmt.Sprintf("%s(%s)", name+typesOf(v.was), strings.Join(argumentsOf(v.was), ", "))
		if v.was.Recv != nil {
			call = v.was.Recv.List[0].Names[0].Name + "." + call
		}
		if v.was.Type.Results != nil {
			call = "return " + call
		} else {
			call += "; return"
		}
		body := u.fset.Position(v.was.Body.Lbrace).Offset + 1
		u.insert[body] += fmt.Sprintf(" if mutantSelected == %d { %s }; ", number, call)
		text := cut(patched, fset, v.is)
		at := fset.Position(v.is.Name.Pos()).Offset - fset.Position(v.is.Pos()).Offset
		fmt.Fprintf(&u.append_, "\n%s%s%s\n", text[:at], name, text[at+len(v.is.Name.Name):])
	}
	return true, nil
}

// cut returns the text of a declaration, without its comment.
func cut(source string, fset *token.FileSet, d ast.Decl) string {
	from := d.Pos()
	if f, ok := d.(*ast.FuncDecl); ok {
		from = f.Type.Func
		return source[fset.Position(from).Offset:fset.Position(f.End()).Offset]
	}
	return source[fset.Position(from).Offset:fset.Position(d.End()).Offset]
}

// callable reports whether a function can hand its arguments on: all of them have names.
func callable(f *ast.FuncDecl) bool {
	named := func(list *ast.FieldList) bool {
		return list == nil || !slices.ContainsFunc(list.List, func(field *ast.Field) bool {
			return len(field.Names) == 0 || slices.ContainsFunc(field.Names, func(n *ast.Ident) bool { return n.Name == "_" })
		})
	}
	return f.Body != nil && named(f.Recv) && named(f.Type.Params)
}

func argumentsOf(f *ast.FuncDecl) (names []string) {
	for _, field := range f.Type.Params.List {
		for _, n := range field.Names {
			name := n.Name
			if _, variadic := field.Type.(*ast.Ellipsis); variadic {
				name += "..."
			}
			names = append(names, name)
		}
	}
	return names
}

func typesOf(f *ast.FuncDecl) string {
	if f.Type.TypeParams == nil {
		return ""
	}
	var names []string
	for _, field := range f.Type.TypeParams.List {
		for _, n := range field.Names {
			names = append(names, n.Name)
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// text is the file with all versions of its functions.
func (u *unit) text() string {
	var at []int
	for offset := range u.insert {
		at = append(at, offset)
	}
	slices.Sort(at)
	var b strings.Builder
	last := 0
	for _, offset := range at {
		b.WriteString(u.source[last:offset])
		b.WriteString(u.insert[offset])
		last = offset
	}
	b.WriteString(u.source[last:])
	b.WriteString(u.append_.String())
	return b.String()
}
