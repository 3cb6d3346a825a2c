package servers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// PostgresServer is a PostgreSQL server of a test binary.
type PostgresServer struct {
	*Process        // nil where it was given by the environment
	URL      string // of its database postgres, as its superuser
}

// Postgres starts a PostgreSQL server with the settings, each as "name=value", beside those that make it a test's own: it
// loses what it did not write when the machine dies, which no conformance test tells. Without settings it is
// PABAL_TEST_POSTGRES (a URL of a superuser), where that is set. Binaries are looked for in PABAL_TEST_POSTGRES_BIN, in
// .tools/postgres, and where Debian puts them.
func Postgres(t testing.TB, settings ...string) *PostgresServer {
	t.Helper()
	if given := os.Getenv("PABAL_TEST_POSTGRES"); given != "" && len(settings) == 0 {
		return &PostgresServer{URL: given}
	}
	s := &PostgresServer{Process: newProcess(t)}
	startPostgres(s, nil, settings)
	return s
}

// PostgresOn starts one whose data is on a small volume.
func PostgresOn(t testing.TB, v *Volume, settings ...string) *PostgresServer {
	t.Helper()
	s := &PostgresServer{Process: newProcess(t)}
	s.spec.on = v
	startPostgres(s, nil, settings)
	return s
}

// startPostgres makes the server's data and starts it, with more of an environment.
func startPostgres(s *PostgresServer, env, settings []string) {
	p, t := s.Process, s.t
	t.Helper()
	bin := postgresBin(t)
	data := p.data()
	settings = append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=" + p.Dir, "fsync=off",
		"max_connections=300", "max_prepared_transactions=10", "dynamic_shared_memory_type=mmap",
	}, settings...)
	run := spec{name: "PostgreSQL", user: "postgres", env: env, on: p.spec.on, args: []string{filepath.Join(bin, "postgres"), "-D", data},
		ready: answersPostgres(p.Port)}
	for _, setting := range settings {
		run.args = append(run.args, "-c", setting)
	}
	p.spec = run
	initdb := p.command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.start(run)
	s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", p.Port)
}

// Database is the server's URL with another database's name.
func (s *PostgresServer) Database(name string) string {
	u, err := url.Parse(s.URL)
	if err != nil {
		panic(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Kill ends the server and all that it started at once. Each of its backends is in a session of its own, goes on for a moment
// without the postmaster, and would keep the next one from starting.
func (s *PostgresServer) Kill() {
	s.t.Helper()
	if s.PID() == 0 {
		return
	}
	s.Stop() // it starts no more
	for _, pid := range children(s.PID()) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	s.Process.Kill()
}

// children are the processes that one has started, and that have not ended.
func children(parent int) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		after := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // the state, then the parent
		if len(after) < 2 || after[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// answersPostgres is ready when the server refuses a connection for any reason but that it is starting. It speaks just
// enough of the protocol to ask: a start-up message of version 3.0.
func answersPostgres(port int) func(context.Context) error {
	const user = "user\x00postgres\x00\x00"
	hello := append([]byte{0, 0, 0, byte(8 + len(user)), 0, 3, 0, 0}, user...)
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // nothing was asked that matters
		if _, err := c.Write(hello); err != nil {
			return err
		}
		answer := make([]byte, 1)
		if _, err := c.Read(answer); err != nil {
			return err
		}
		if answer[0] != 'R' { // Authentication…
			return fmt.Errorf("it answers %q", answer)
		}
		return nil
	}
}

var findPostgres = sync.OnceValue(func() string {
	if given := os.Getenv("PABAL_TEST_POSTGRES_BIN"); given != "" {
		return given
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) + strings.Compare(b, a) })
	for _, dir := range found {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir
		}
	}
	return ""
})

func postgresBin(t testing.TB) string {
	t.Helper()
	bin := findPostgres()
	if bin == "" {
		t.Fatal("no PostgreSQL server is installed: run scripts/install postgres, or set PABAL_TEST_POSTGRES")
	}
	return bin
}
