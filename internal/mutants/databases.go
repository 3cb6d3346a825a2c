package mutants

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Mutants of what the databases do. The simulation has a database of its own: whether a statement in SQL keeps its rule, the cases
// of driver/storetest tell, and a test beside the code where a database has rules of its own.

//go:embed databases.txt
var databases string

// Databases returns the mutants of the real databases, in order. A rule has one name, and a mutant for each database.
func Databases() ([]Mutant, error) { return read("databases.txt", databases) }

// kind is a database: where its statements are, from the root of the module, and the test that runs the cases of driver/storetest.
type kind struct{ name, folder, module, suite string }

var kinds = []kind{
	{"SQLite", "pabalsql/sql/sqlite/", "./pabalsql", "TestSQLiteConformance"},
	{"MySQL, MariaDB", "pabalsql/sql/mysql/", "./pabalsql", "TestMariaDBConformance/as_it_comes"},
	{"PostgreSQL", "pabalpgx/", "./pabalpgx", "TestPgxConformance/cache_statement"},
}

// kindOf returns the database of a mutant: that of its statements, or whose suite it names; the code that SQLite and MySQL share is tried
// with SQLite.
func (m *Mutant) kindOf() (kind, error) {
	for _, k := range kinds {
		if strings.HasPrefix(m.File, k.folder) || strings.HasPrefix(m.Test, k.suite) {
			return k, nil
		}
	}
	if strings.HasPrefix(m.File, "pabalsql/") {
		return kinds[0], nil
	}
	return kind{}, fmt.Errorf("mutant %s: %s is of no database", m.Name, m.File)
}

// Suite runs the case that finds a mutant of a database, with the mutant, and reports whether it is red, and what was said.
func (m *Mutant) Suite(ctx context.Context, root string) (red bool, said string, err error) {
	k, err := m.kindOf()
	if err != nil {
		return false, "", err
	}
	dir, err := os.MkdirTemp("", "pabal-mutant-")
	if err != nil {
		return false, "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := m.Overlay(root, dir)
	if err != nil {
		return false, "", err
	}
	name := strings.ReplaceAll(m.Test, " ", "_") // of a test, or of a case
	if !strings.HasPrefix(name, "Test") {
		name = k.suite + "/" + name
	}
	run := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-v", "-timeout=3m", "-overlay", overlay, "-run",
		"^"+strings.ReplaceAll(name, "/", "$/^")+"$", k.module)
	run.Dir = root
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	if err := run.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return false, "", fmt.Errorf("run %s: %w", name, err)
	}
	said = output.String()
	if !strings.Contains(said, "=== RUN   "+name+"\n") {
		return false, said, fmt.Errorf("mutant %s: %s did not run", m.Name, name)
	}
	if refused := noSQL.FindString(said); refused != "" {
		return false, said, fmt.Errorf("mutant %s is no statement that the database takes: %s", m.Name, refused)
	}
	red = strings.Contains(said, "--- FAIL: "+name+" ") || strings.Contains(said, "panic: test timed out")
	return red, said, ctx.Err()
}

// noSQL is what the databases say of a statement that they do not take: with such a mutant every case is red.
var noSQL = regexp.MustCompile(`(?i)syntax error|SQL logic error|no such column|SQLSTATE 42(601|703|804|883|P18)|Error 10(54|64)|` +
	`expected \d+ arguments|missing argument`)

// DatabasesTable is what the page says of the mutants of databases: for each rule the case that finds them.
func DatabasesTable(all []Mutant) (string, error) {
	var table strings.Builder
	table.WriteString("| rule | mutant |")
	for _, k := range kinds {
		table.WriteString(" " + k.name + " |")
	}
	table.WriteString("\n|" + strings.Repeat(" --- |", 2+len(kinds)) + "\n")
	for i := 0; i < len(all); {
		m := &all[i]
		found := map[string]string{}
		for ; i < len(all) && all[i].Name == m.Name; i++ {
			k, err := all[i].kindOf()
			if err != nil {
				return "", err
			}
			if found[k.name] != "" {
				return "", fmt.Errorf("mutant %s is there twice for %s", m.Name, k.name)
			}
			found[k.name] = strings.TrimPrefix(strings.TrimPrefix(all[i].Test, k.suite+"/"), "Test")
		}
		fmt.Fprintf(&table, "| %s | `%s` |", m.Why, m.Name)
		for _, k := range kinds {
			if found[k.name] == "" {
				found[k.name] = "–"
			}
			table.WriteString(" " + found[k.name] + " |")
		}
		table.WriteString("\n")
	}
	return table.String(), nil
}

// The page has the table between these lines.
const (
	tableBegins = "<!-- written by `go run ./internal/mutants/try -databases -write` -->\n\n"
	tableEnds   = "\n<!-- end -->\n"
)

// CheckDatabases compares the page's table with the mutants of the databases.
func CheckDatabases(root string, all []Mutant) error {
	page, before, behind, err := databasesPage(root)
	if err != nil {
		return err
	}
	table, err := DatabasesTable(all)
	if err == nil && page != before+table+behind {
		err = fmt.Errorf("%s: the table of the databases' mutants is stale: go run ./internal/mutants/try -databases -write none", Page)
	}
	return err
}

// NoteDatabases writes the table into the page.
func NoteDatabases(root string, all []Mutant) error {
	_, before, behind, err := databasesPage(root)
	if err != nil {
		return err
	}
	table, err := DatabasesTable(all)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, Page), []byte(before+table+behind), 0o644) //nolint:gosec // as it was
}

// databasesPage returns the page, and what of it is before and behind the table.
func databasesPage(root string) (page, before, behind string, err error) {
	text, err := os.ReadFile(filepath.Join(root, Page))
	if err != nil {
		return "", "", "", err
	}
	page = string(text)
	begin, end := strings.Index(page, tableBegins), strings.Index(page, tableEnds)
	if begin < 0 || end < 0 {
		return "", "", "", fmt.Errorf("%s: the lines around the table of the databases' mutants are not there", Page)
	}
	begin += len(tableBegins)
	return page, page[:begin], page[max(begin, end):], nil
}
