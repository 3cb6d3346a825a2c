package servers

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// PgBouncer starts a pooler in transaction mode in front of a PostgreSQL server, and returns a server whose databases are
// behind it. Each transaction is on the session that was idle for longest.
func PgBouncer(t testing.TB, behind *PostgresServer) *PostgresServer {
	t.Helper()
	u, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(t)
	password, _ := u.User.Password()
	users := filepath.Join(p.Dir, "users.txt")
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 60
server_round_robin = 1
max_client_conn = 500
`, u.Hostname(), u.Port(), p.Port, users)
	file := filepath.Join(p.Dir, "pgbouncer.ini")
	for name, text := range map[string]string{file: config, users: fmt.Sprintf("%q %q\n", u.User.Username(), password)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := "pgbouncer"
	if _, err := os.Stat("/usr/sbin/pgbouncer"); err == nil { // not in everybody's PATH
		program = "/usr/sbin/pgbouncer"
	}
	p.start(spec{name: "PgBouncer", user: "postgres", args: []string{program, file}, ready: dial(p.Port)})
	u.Host = fmt.Sprintf("127.0.0.1:%d", p.Port)
	return &PostgresServer{Process: p, URL: u.String()}
}
