package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// NATSServer is a nats-server with JetStream, its files in a directory of its own.
type NATSServer struct {
	*Process
	URL string
}

// NATS starts a nats-server, which is looked for in PABAL_TEST_NATS_BIN, in .tools/bin and in PATH.
func NATS(t testing.TB) *NATSServer {
	t.Helper()
	p := newProcess(t)
	bin := os.Getenv("PABAL_TEST_NATS_BIN")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("nats-server"); err != nil {
			bin = tool(t, "bin/nats-server")
		}
	}
	p.start(spec{name: "nats-server", args: []string{
		bin, "-a", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-js", "-sd", filepath.Join(p.Dir, "jetstream"),
	}, ready: dial(p.Port)})
	return &NATSServer{p, fmt.Sprintf("nats://127.0.0.1:%d", p.Port)}
}
