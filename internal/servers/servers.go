// Package servers starts real servers for tests: a process of its own for each test binary, on a free port of the loopback
// interface, in a directory of its own, killed when the test ends and when the test's process dies. scripts/test
// installs what they need; a server that cannot be started fails the test. An address in the environment is used instead,
// where the comment of a server's function names a variable.
package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTime = time.Minute
	lastWords = 4 << 10 // of a server whose test failed
)

// Process is a server that a test may kill, stop for a while and start again. Its methods are for the test's goroutine.
type Process struct {
	Dir  string // where it keeps its data
	Port int

	t     testing.TB
	spec  spec
	log   *tail
	child *exec.Cmd
	ended chan struct{}
}

// spec says how a server is started.
type spec struct {
	name  string
	user  string // that it runs as where the test is root; "": the test's own
	env   []string
	args  []string // args[0] is the program
	on    *Volume  // where its data is; nil: in its directory
	ready func(ctx context.Context) error
}

// newProcess makes the directory and picks the port; start does the rest.
func newProcess(t testing.TB) *Process {
	t.Helper()
	dir, err := os.MkdirTemp("", "pabal-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Process{Dir: dir, Port: FreePort(t), t: t, log: &tail{}}
}

func (p *Process) start(s spec) {
	p.t.Helper()
	p.spec = s
	p.t.Cleanup(func() {
		p.Kill()
		// What an example or a whole binary starts has no test that failed.
		if t, ok := p.t.(*testing.T); ok && t.Failed() && p.Log() != "" {
			said := p.Log()
			t.Logf("%s at port %d said at last:\n%s", s.name, p.Port, said[max(0, len(said)-lastWords):])
		}
	})
	p.Start()
}

// Start starts the server, again after Kill, and waits until it answers.
func (p *Process) Start() {
	p.t.Helper()
	if err := p.Restart(); err != nil {
		p.t.Fatal(err)
	}
}

// Restart is Start for a test that goes on without the server; its error has the server's last output.
func (p *Process) Restart() error {
	p.t.Helper()
	child := p.command(p.spec.args...)
	child.Env = append(os.Environ(), p.spec.env...)
	child.Stdout, child.Stderr = p.log, p.log
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the parent-death signal is about the thread, not the process
		err := child.Start()
		started <- err
		if err == nil {
			_ = child.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w (scripts/test installs it)", p.spec.name, err)
	}
	p.child, p.ended = child, ended
	return p.wait()
}

// command is a program that dies with the test, and runs as the server's user where that is not the test's own.
func (p *Process) command(args ...string) *exec.Cmd {
	p.t.Helper()
	as := p.credential()
	if p.spec.on != nil && as != nil {
		args, as = append(p.spec.on.within(as), args...), nil
	}
	c := exec.Command(args[0], args[1:]...)
	c.Dir = p.Dir
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	return c
}

// data is the directory of the server's data, as its process sees it.
func (p *Process) data() string {
	switch v := p.spec.on; {
	case v == nil:
		return filepath.Join(p.Dir, "data")
	case os.Getuid() != 0:
		return filepath.Join(v.Root, "data") // within it would be root, as which database servers do not run
	default:
		return filepath.Join(v.Dir, "data")
	}
}

// credential is the server's user, to whom its directories are given; nil: the test's own.
func (p *Process) credential() *syscall.Credential {
	p.t.Helper()
	if p.spec.user == "" || os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(p.spec.user)
	if err != nil {
		p.t.Fatalf("start %s: %v (scripts/test installs it)", p.spec.name, err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers on every POSIX system
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	dirs := []string{p.Dir}
	if p.spec.on != nil {
		dirs = append(dirs, p.spec.on.Root)
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, int(uid), int(gid))
		})
		if err != nil {
			p.t.Fatalf("start %s: %v", p.spec.name, err)
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// Answers waits until the server, which has not been killed, answers.
func (p *Process) Answers() {
	p.t.Helper()
	if err := p.wait(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Process) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		err := p.spec.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended while it started: %w\n%s", p.spec.name, err, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer within %v: %w\n%s", p.spec.name, startTime, err, p.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server and what it started at once, as kill -9 does, and waits until it is gone.
func (p *Process) Kill() { p.signal(syscall.SIGKILL, true) }

// Stop has the server stand still (SIGSTOP) until Continue.
func (p *Process) Stop() { p.signal(syscall.SIGSTOP, false) }

// Continue goes on after Stop.
func (p *Process) Continue() { p.signal(syscall.SIGCONT, false) }

func (p *Process) signal(s syscall.Signal, wait bool) {
	if p.child == nil {
		return
	}
	if err := syscall.Kill(-p.child.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Errorf("%v to %s: %v", s, p.spec.name, err)
	}
	if wait {
		<-p.ended
		p.child = nil
	}
}

// Ended reports whether the server has ended by itself.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// PID is that of the server, 0 after Kill.
func (p *Process) PID() int {
	if p.child == nil {
		return 0
	}
	return p.child.Process.Pid
}

// Log returns the last output of the server.
func (p *Process) Log() string { return p.log.String() }

// tail keeps the last 16 KiB that were written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - 16<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// dial is a ready function for servers that answer as soon as they listen.
func dial(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// tool finds a file below .tools, where scripts/test puts what no package of the system has.
func tool(t testing.TB, path string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
	}
	file := filepath.Join(dir, ".tools", path)
	if _, err := os.Stat(file); err != nil {
		t.Fatal(fmt.Errorf("%w (scripts/test installs it)", err))
	}
	return file
}
