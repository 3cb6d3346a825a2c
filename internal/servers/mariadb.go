package servers

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// MariaDB is a running server of MySQL or MariaDB. Its functions open databases with the driver "mysql", which the test's
// program registers by importing go-sql-driver, or what imports it.
type MariaDB struct {
	*Process        // nil where the environment names a server
	user     string // with its password, if any: user or user:password
	address  string // host:port
}

// MariaDBOptions say how a server is started.
type MariaDBOptions struct {
	// Volatile does without fsync, for tests that kill no server.
	Volatile bool
	// On is where its data is, which takes root: the server looks where links lead. nil: in its own directory.
	On *Volume
}

// StartMariaDB starts a server of its own, with the default isolation of production, REPEATABLE READ, a binary log, and one
// fsync of both logs for each group of commits. PABAL_TEST_MYSQL, user:password@tcp(host:port)/ of a user who may create
// databases, names another server, MySQL too; tests that kill their server start one with [KillableMariaDB].
func StartMariaDB(t testing.TB, o *MariaDBOptions) *MariaDB {
	t.Helper()
	dsn := os.Getenv("PABAL_TEST_MYSQL")
	if dsn == "" {
		return KillableMariaDB(t, o)
	}
	part := addressForm.FindStringSubmatch(dsn)
	if part == nil {
		t.Fatalf("PABAL_TEST_MYSQL is %q: give user:password@tcp(host:port)/", dsn)
	}
	return &MariaDB{user: part[1], address: part[2]}
}

var addressForm = regexp.MustCompile(`^(.+)@tcp\(([^()]+)\)/$`)

// KillableMariaDB starts a server whatever the environment says.
func KillableMariaDB(t testing.TB, o *MariaDBOptions) *MariaDB {
	t.Helper()
	p := newProcess(t)
	if o == nil {
		o = &MariaDBOptions{}
	}
	s := spec{name: "MariaDB", user: "mysql", on: o.On}
	p.spec = s
	data := p.data()
	// A server that starts deletes what others have left in its directory of temporary tables, so each has its own.
	temporary := "--tmpdir=" + p.Dir
	install := p.command("mariadb-install-db", "--no-defaults", "--datadir="+data, temporary,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make the directory of MariaDB: %v (scripts/install mariadb installs it)\n%s", err, bytes.TrimSpace(out))
	}
	m := &MariaDB{Process: p, user: "root", address: "127.0.0.1:" + strconv.Itoa(p.Port)}
	flush := "1"
	if o.Volatile {
		flush = "0"
	}
	s.args = []string{
		mariadbd(), "--no-defaults", "--datadir=" + data, temporary, "--port=" + strconv.Itoa(p.Port), "--bind-address=127.0.0.1",
		"--socket=" + filepath.Join(p.Dir, "s.sock"), "--pid-file=" + filepath.Join(p.Dir, "pid"), "--skip-name-resolve",
		"--log-bin=" + filepath.Join(data, "bin"), "--binlog-format=ROW", "--server-id=1", "--max-connections=300",
		"--innodb-flush-log-at-trx-commit=" + flush, "--sync-binlog=" + flush, "--innodb-buffer-pool-size=64M",
	}
	s.ready = func(ctx context.Context) error {
		db, err := sql.Open("mysql", m.DSN("", ""))
		if err != nil {
			return err
		}
		defer db.Close() //nolint:errcheck // nothing was written
		return db.PingContext(ctx)
	}
	p.start(s)
	return m
}

// mariadbd finds the server, which is not in the path of ordinary users everywhere.
func mariadbd() string {
	if path, err := exec.LookPath("mariadbd"); err == nil {
		return path
	}
	return "/usr/sbin/mariadbd"
}

// Database makes an empty database, dropped when the test ends, and returns its data source name; the parameters, "" or
// such as "timeout=5s&parseTime=true", go into that.
func (m *MariaDB) Database(t testing.TB, parameters string) (dsn string) {
	t.Helper()
	name := "pabal_" + strings.ToLower(rand.Text()[:12])
	m.Admin(t, "create database "+name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if db, err := sql.Open("mysql", m.DSN("", "")); err == nil {
			_, _ = db.ExecContext(ctx, "drop database "+name) // the server may be gone
			_ = db.Close()
		}
	})
	return m.DSN(name, parameters)
}

// DSN is the data source name of a database.
func (m *MariaDB) DSN(database, parameters string) string {
	dsn := m.user + "@tcp(" + m.address + ")/" + database
	if parameters != "" {
		dsn += "?" + parameters
	}
	return dsn
}

// URL is the address of a database as the command line takes it.
func (m *MariaDB) URL(database string) string {
	return "mysql://" + m.user + "@" + m.address + "/" + database
}

// Admin runs a statement as the server's administrator, in no database.
func (m *MariaDB) Admin(t testing.TB, statement string) {
	t.Helper()
	db, err := sql.Open("mysql", m.DSN("", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the statement's error tells
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
