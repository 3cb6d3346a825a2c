package arch

import (
	"go/ast"
	"go/doc"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root           = "../.."
	module         = "github.com/pabal-go/pabal"
	exportedMost   = 28 // names in package pabal
	methodsMost    = 8  // of a contract that drivers fulfil
	waitsAndClocks = "After AfterFunc NewTicker NewTimer Now Since Sleep Tick Until"
)

// source is the package of a directory, parsed.
type source struct {
	set   *token.FileSet
	files []*ast.File
}

func parse(t *testing.T, dir string) source {
	t.Helper()
	s := source{set: token.NewFileSet()}
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.set, filepath.Join(root, dir, e.Name()), nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, file)
	}
	return s
}

// TestCoreMeetsTimeChanceAndConcurrencyOnlyThroughWorld: or else the simulation would not see them.
func TestCoreMeetsTimeChanceAndConcurrencyOnlyThroughWorld(t *testing.T) {
	s := parse(t, ".")
	info := check(t, s)
	for _, file := range s.files {
		for _, i := range file.Imports {
			switch path, _ := strconv.Unquote(i.Path.Value); path {
			case "math/rand", "math/rand/v2", "crypto/rand", "hash/maphash", "os", "net", "runtime":
				t.Errorf("%s: package pabal imports %s", s.set.Position(i.Pos()), path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if what := forbidden(n, info); what != "" {
				t.Errorf("%s: package pabal has %s: use internal/world", s.set.Position(n.Pos()), what)
			}
			return true
		})
	}
}

func forbidden(n ast.Node, info *types.Info) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a go statement"
	case *ast.SelectStmt:
		return "a select"
	case *ast.ChanType, *ast.SendStmt:
		return "a channel"
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			return "a receive from a channel"
		}
	case *ast.RangeStmt:
		if _, isMap := info.TypeOf(n.X).Underlying().(*types.Map); isMap {
			return "a range over a map, whose order is chance"
		}
	case *ast.SelectorExpr:
		return forbiddenName(n, info)
	}
	return ""
}

func forbiddenName(n *ast.SelectorExpr, info *types.Info) string {
	used := info.Uses[n.Sel]
	if used == nil || used.Pkg() == nil {
		return ""
	}
	switch used.Pkg().Path() {
	case "time":
		if slices.Contains(strings.Fields(waitsAndClocks), used.Name()) && isFunction(used) {
			return "time." + used.Name()
		}
	case "context":
		if slices.Contains([]string{"WithTimeout", "WithDeadline", "WithTimeoutCause", "WithDeadlineCause", "AfterFunc"}, used.Name()) {
			return "context." + used.Name()
		}
	case "github.com/google/uuid":
		if strings.HasPrefix(used.Name(), "New") && used.Name() != "NewSHA1" {
			return "uuid." + used.Name()
		}
	case "sync":
		if used.Name() != "Mutex" && used.Name() != "Lock" && used.Name() != "Unlock" {
			return "sync." + used.Name()
		}
	}
	return ""
}

// isFunction tells time.After from the method of the same name.
func isFunction(o types.Object) bool {
	f, ok := o.(*types.Func)
	return ok && f.Signature().Recv() == nil
}

func check(t *testing.T, s source) *types.Info {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(s.set, "source", nil)}
	if _, err := config.Check(module, s.set, s.files, info); err != nil {
		t.Fatal(err)
	}
	return info
}

func TestRootModuleRequiresOnlyUUID(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) < 2 || !strings.Contains(fields[0], ".") || fields[0] == module {
			continue
		}
		if fields[0] != "github.com/google/uuid" {
			t.Errorf("go.mod of the root module requires %s", fields[0])
		}
	}
}

func TestCoreExportsFewNames(t *testing.T) {
	var names []string
	for _, file := range parse(t, ".").files {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.IsExported() {
					names = append(names, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					names = append(names, exportedOf(spec)...)
				}
			}
		}
	}
	slices.Sort(names)
	if len(names) > exportedMost {
		t.Errorf("package pabal exports %d names, at most %d: %v", len(names), exportedMost, names)
	}
}

func exportedOf(spec ast.Spec) (names []string) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() {
			names = append(names, spec.Name.Name)
		}
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			if name.IsExported() {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

func TestContractsAreSmall(t *testing.T) {
	for _, file := range parse(t, "driver").files {
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if contract, ok := spec.Type.(*ast.InterfaceType); ok && len(contract.Methods.List) > methodsMost {
					t.Errorf("driver.%s has %d methods, at most %d", spec.Name, len(contract.Methods.List), methodsMost)
				}
			}
			return true
		})
	}
}

// TestEveryExportedNameIsExplained: doc comments are the contract.
func TestEveryExportedNameIsExplained(t *testing.T) {
	for _, dir := range append(publicPackages(t), "shop") {
		s := parse(t, dir)
		for _, file := range s.files {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Name.IsExported() && f.Doc == nil && exportedReceiver(f) {
					t.Errorf("%s: %s has no doc comment", s.set.Position(f.Pos()), f.Name)
				}
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
					for _, spec := range g.Specs {
						if ts := spec.(*ast.TypeSpec); ts.Name.IsExported() && g.Doc == nil && ts.Doc == nil {
							t.Errorf("%s: type %s has no doc comment", s.set.Position(ts.Pos()), ts.Name)
						}
					}
				}
			}
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	if f.Name.Name == "String" || f.Name.Name == "Error" || f.Name.Name == "Unwrap" {
		return false // they are what they are called
	}
	var name string
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return true
	})
	return ast.IsExported(name)
}

// examplesOf are the directories of a package's Examples, where they are not only its own: one that needs a module which the
// package must not know is elsewhere.
var examplesOf = map[string][]string{"shop": {"shop", "examples/market"}}

// notInExamples are entry points that no Example calls, each with the reason.
var notInExamples = map[string]string{
	"shop.Mount": "shop.Handler calls it, and an Example serves that",
}

// TestEveryEntryPointHasAnExample: each exported function of a public package, and each method that is not there for the core, is
// called in an Example of that package that is run and whose output is compared; a suite, which takes a *testing.T, in any.
func TestEveryEntryPointHasAnExample(t *testing.T) {
	core := contractMethods(t)
	for _, dir := range append(publicPackages(t), "shop") {
		s := parse(t, dir)
		dirs := examplesOf[dir]
		if dirs == nil {
			dirs = []string{dir}
		}
		run, compiled := calledInExamples(t, dirs)
		for _, file := range s.files {
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || !f.Name.IsExported() || !exportedReceiver(f) || f.Recv != nil && core[f.Name.Name] {
					continue
				}
				called := run
				if isSuite(f) {
					called = compiled
				}
				if reason := notInExamples[file.Name.Name+"."+f.Name.Name]; !called[f.Name.Name] && reason == "" {
					t.Errorf("%s: no Example of package %s that is run calls %s", s.set.Position(f.Pos()), file.Name.Name, f.Name.Name)
				}
			}
		}
	}
}

// isSuite reports whether a function takes a *testing.T, which an Example has none of.
func isSuite(f *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		s, ok := star.X.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "T"
	})
}

// contractMethods are the methods of driver's interfaces, which the core calls and users do not.
func contractMethods(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, file := range parse(t, "driver").files {
		ast.Inspect(file, func(n ast.Node) bool {
			if contract, ok := n.(*ast.InterfaceType); ok {
				for _, m := range contract.Methods.List {
					for _, name := range m.Names {
						names[name.Name] = true
					}
				}
			}
			return true
		})
	}
	return names
}

// calledInExamples are the names of functions and methods that the Examples of directories call, or hand over as a value: those
// with an output, which are run, and all of them.
func calledInExamples(t *testing.T, dirs []string) (run, compiled map[string]bool) {
	t.Helper()
	var paths []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	run, compiled = map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, example := range doc.Examples(file) {
			ast.Inspect(example.Code, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					compiled[s.Sel.Name] = true
					run[s.Sel.Name] = run[s.Sel.Name] || example.Output != "" || example.EmptyOutput
				}
				return true
			})
		}
	}
	return run, compiled
}

// publicPackages are the directories of what users import: the root, pabaltest, topology, the drivers, their contracts and suites, and
// what misbehaves.
func publicPackages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "pabal*"))
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{".", "driver", "driver/storetest", "driver/brokertest", "driver/misbehave", "topology", "doctor"}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.IsDir() && filepath.Base(path) != "pabal-data" {
			dirs = append(dirs, filepath.Base(path))
		}
	}
	return dirs
}

// TestPromisesPageNamesWhatIsThere: every function and every test in the table of docs/promises.md exists.
func TestPromisesPageNamesWhatIsThere(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/promises.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob(filepath.Join(root, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range tests {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	kept := regexp.MustCompile("`([\\w/]+\\.go)` (\\w+)")
	rows := 0
	for line := range strings.Lines(string(page)) {
		columns := strings.Split(line, " | ")
		if len(columns) != 5 || !strings.Contains(columns[1], ".go`") {
			continue
		}
		rows++
		for _, m := range kept.FindAllStringSubmatch(columns[1], -1) {
			text, err := os.ReadFile(filepath.Join(root, m[1]))
			if err != nil || !regexp.MustCompile(`func (\([^)]*\) )?`+m[2]+`[\[(]`).Match(text) {
				t.Errorf("%s has no function %s (%v): %s", m[1], m[2], err, line)
			}
		}
		if columns[2] == "–" || columns[2] == "storetest" {
			continue // the simulation, or each database's conformance
		}
		for _, name := range strings.Split(columns[2], ", ") {
			if !strings.Contains(code.String(), "func Test"+strings.TrimSpace(name)+"(") {
				t.Errorf("there is no Test%s: %s", name, line)
			}
		}
	}
	if rows < 100 {
		t.Errorf("the table has %d rows", rows)
	}
}
