package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Ports are taken below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range begins at 32768), which could
// have one while its server is killed or not there yet.
const (
	portsFrom = 10_000
	portsTo   = 32_000
)

// taken are the files that stand for the ports of this process: what is collected as garbage is closed.
var taken sync.Map

// FreePort is TakePort for a test.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := TakePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TakePort returns a TCP port of the loopback interface on which nobody listens, and which no other call of it returns, in this or
// another process, as long as this one lives.
func TakePort() (int, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("pabal-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	for range 1000 {
		port := portsFrom + rand.IntN(portsTo-portsFrom)
		file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return 0, err
		}
		// The lock goes with the open file; another file of the same process does not get it either.
		if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
				_ = l.Close() // nothing was sent
				taken.Store(port, file)
				return port, nil
			}
		}
		_ = file.Close() // nothing was written
	}
	return 0, fmt.Errorf("no port from %d to %d is free", portsFrom, portsTo)
}
