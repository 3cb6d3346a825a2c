package tests

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/shop"
)

var releaseBefore = flag.String("rolling.ref", os.Getenv("PABAL_ROLLING_REF"),
	"git ref of the release that is replaced; default: the newest tag v* before this commit, or without one the commit before, if its tables are these")

// TestOldAndNewProcessesServeTheShopTogether replaces the release before by this one under load: tables first, then each process
// beside the one that it takes the place of; and takes some of it back.
func TestOldAndNewProcessesServeTheShopTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("builds another release, and takes a minute")
	}
	old := buildRelease(t)
	a := openAvenue(t, nil)
	for _, house := range a.houses {
		house.binary = old
	}
	a.start()
	for _, role := range shop.Roles() {
		out, err := exec.CommandContext(t.Context(), a.binary, "migrate", "--db", a.database(role)).CombinedOutput()
		if err != nil {
			t.Fatalf("migrate: %v\n%s", err, out)
		}
		t.Logf("%s: %s", role, out)
	}
	rows := a.rows
	traffic := a.during(shop.Load{For: 30 * time.Second, Rate: 40, Patience: time.Minute}, func() {
		for _, name := range rows {
			a.replace(name, a.binary)
		}
		for _, name := range []string{"order", "settlement", "relay"} { // taken back: an old one starts on the newer tables
			a.replace(name, old)
		}
	})
	a.settles(traffic)
}

// replace starts a process of a release beside the one that there is, has both run for a while, and ends that.
func (s *street) replace(name, binary string) {
	s.t.Helper()
	was := s.houses[name]
	is := &process{
		t: s.t, binary: binary, dir: was.dir, address: freeAddress(s.t), role: was.role, line: was.line, db: was.db, broker: was.broker, env: was.env,
	}
	is.start()
	pause(s.t.Context(), time.Second)
	if was.line == nil {
		s.elsewhere.Store(name+"s", is.address)
	}
	pause(s.t.Context(), time.Second)
	was.stop()
	s.houses[name] = is
}

// buildRelease builds the program of the release before. Without git, or a commit before, the tree as it is stands for it.
func buildRelease(t *testing.T) (binary string) {
	t.Helper()
	ref := *releaseBefore
	if ref == "" {
		ref = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
	}
	if ref == "" {
		ref = git("rev-parse", "--verify", "--quiet", "HEAD^")
		changed := git("diff", "--name-only", "--diff-filter=MDR", "HEAD^", "--", "pabalpgx/schema", "pabalsql/schema", "shop/sql/*.schema.sql")
		if ref == "" || changed != "" { // which is allowed as long as nothing is released
			t.Logf("there is no release, nor a commit before with these tables (%q): this tree stands for it", changed)
			return buildBinary(t)
		}
	}
	t.Logf("the release before is %s", git("log", "-1", "--format=%h %s", ref))
	archive := exec.CommandContext(t.Context(), "git", "archive", ref)
	archive.Dir = filepath.Join("..", "..")
	tree, err := archive.Output()
	if err != nil {
		t.Fatalf("git archive %s: %v", ref, err)
	}
	dir := t.TempDir()
	unpack := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(tree)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", ref, err, out)
	}
	if strings.HasPrefix(ref, "v") {
		keepsSchemas(t, dir)
	}
	binary = filepath.Join(dir, "pabal-before")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(dir, "cmd", "pabal")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", ref, err, out)
	}
	return binary
}

// keepsSchemas compares the schema files of a release with those of this tree: what a release has brought stays as it is, or databases
// of one version would not be alike.
func keepsSchemas(t *testing.T, release string) {
	t.Helper()
	for _, pattern := range []string{"pabalsql/schema/*/*.sql", "pabalpgx/schema/*.sql"} {
		files, err := filepath.Glob(filepath.Join(release, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("the release has no files %s (%v)", pattern, err)
		}
		for _, file := range files {
			name, err := filepath.Rel(release, file)
			if err != nil {
				t.Fatal(err)
			}
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if is, err := os.ReadFile(filepath.Join("..", "..", name)); err != nil || !bytes.Equal(was, is) {
				t.Errorf("%s is not what it was in the release (%v): changes go into a file of their own", name, err)
			}
		}
	}
}

// git answers what git says of this tree; "" if it fails.
func git(args ...string) string {
	command := exec.Command("git", args...)
	command.Dir = filepath.Join("..", "..")
	out, err := command.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
