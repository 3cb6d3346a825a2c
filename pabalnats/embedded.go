package pabalnats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The server in this process.

const (
	startWait    = 30 * time.Second
	healthEvery  = 2 * time.Second
	restartEvery = time.Minute // at most
	roomProbe    = 1 << 20     // bytes that its directory takes before it is started again
)

// Open starts a server in this process, without a listening port, and connects to it. Its files lie in dir, which one
// process at a time may open. A message is accepted when it is synced to disk; 32 and more of one call are synced together.
//
// While the disk is full Publish answers Again. Once there is room again the server is started anew, within seconds: one that could
// not write stores nothing more until then.
func Open(dir string, o *Options) (*Broker, error) {
	options, err := o.fill()
	if err != nil {
		return nil, err
	}
	e := &embedded{dir: dir, stream: options.Stream, relaxed: options.Relaxed, log: options.Logger, ending: make(chan struct{})}
	if e.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err = e.start(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	b, err := connect(context.Background(), "", options, nats.InProcessServer(e))
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	b.embedded = e
	e.tasks.Go(e.attend)
	return b, nil
}

// lockDir keeps other processes out; the lock goes with the process, also when that is killed.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("NATS directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("NATS directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("NATS directory %s is used by another process: stop that one, or choose another directory", dir)
	}
	return f, nil
}

// embedded is a server in this process, and what has it started again.
type embedded struct {
	dir     string
	stream  string
	relaxed bool
	log     *slog.Logger
	lock    *os.File
	ending  chan struct{}
	tasks   sync.WaitGroup

	mu  sync.Mutex
	now *server.Server // nil: it is being started
}

func (e *embedded) start() error {
	s, err := server.NewServer(&server.Options{
		ServerName: "pabal", DontListen: true, JetStream: true, StoreDir: e.dir, NoSigs: true, SyncAlways: !e.relaxed,
		MaxPayload: 1 << 20, NoSystemAccount: false,
	})
	if err != nil {
		return fmt.Errorf("start NATS in %s: %w", e.dir, err)
	}
	s.SetLoggerV2(natsLog{e.log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startWait) {
		s.Shutdown()
		return fmt.Errorf("start NATS in %s: not ready after %v", e.dir, startWait)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = s
	return nil
}

func (e *embedded) stop() {
	e.mu.Lock()
	s := e.now
	e.now = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

func (e *embedded) close() error {
	close(e.ending)
	e.tasks.Wait()
	e.stop()
	return e.lock.Close()
}

// InProcessConn implements nats.InProcessConnProvider: a lost connection is made to the server that runs then.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == nil {
		return nil, errors.New("the server in this process is being started")
	}
	return e.now.InProcessConn()
}

// attend starts the server anew when it is ill, and its directory takes writes, until it is closed. What it finds once may have been in
// passing: a stream that is just being made.
func (e *embedded) attend() {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	wait := func() bool {
		select {
		case <-ticker.C:
			return true
		case <-e.ending:
			return false
		}
	}
	var last time.Time
	for wait() {
		if e.illness() == "" || !wait() {
			continue
		}
		illness := e.illness()
		if illness == "" {
			continue
		}
		e.log.Error("NATS server stores nothing more, it is started again when its directory takes writes", "err", illness, "dir", e.dir)
		for time.Since(last) < restartEvery || !e.room() {
			if !wait() {
				return
			}
		}
		last = time.Now()
		e.stop()
		if err := e.start(); err != nil {
			e.log.Error("NATS server cannot be started again, trying again", "err", err)
			continue
		}
		e.log.Warn("NATS server is started again", "dir", e.dir)
	}
}

// illness is what the server finds wrong with itself and our stream; "": nothing, or no stream yet. One that could not be written to is
// ill for good; those of others in the directory are none of ours.
func (e *embedded) illness() string {
	e.mu.Lock()
	s := e.now
	e.mu.Unlock()
	if s == nil {
		return "it is not started"
	}
	answer := &healthAnswer{header: http.Header{}, code: http.StatusOK}
	s.HandleHealthz(answer, &http.Request{Method: http.MethodGet, URL: &url.URL{
		Path: server.HealthzPath, RawQuery: url.Values{"account": {server.DEFAULT_GLOBAL_ACCOUNT}, "stream": {e.stream}}.Encode(),
	}})
	if answer.code == http.StatusOK || answer.code == http.StatusNotFound {
		return ""
	}
	return answer.body.String()
}

// healthAnswer takes the answer of the server's endpoint.
type healthAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *healthAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *healthAnswer) WriteHeader(code int) { a.code = code }

// Write implements http.ResponseWriter.
func (a *healthAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

// room says whether the directory takes writes.
func (e *embedded) room() bool {
	file := filepath.Join(e.dir, "room")
	defer os.Remove(file) //nolint:errcheck // it may not be there
	return os.WriteFile(file, make([]byte, roomProbe), 0o600) == nil
}

// natsLog hands the server's warnings and errors on, but what it says of its health: embedded does.
type natsLog struct{ log *slog.Logger }

func (natsLog) Noticef(string, ...any) {}
func (natsLog) Debugf(string, ...any)  {}
func (natsLog) Tracef(string, ...any)  {}
func (n natsLog) Warnf(format string, args ...any) {
	if strings.HasPrefix(format, "Healthcheck failed") {
		return
	}
	n.log.Warn("NATS server: " + fmt.Sprintf(format, args...))
}
func (n natsLog) Errorf(format string, args ...any) {
	n.log.Error("NATS server: " + fmt.Sprintf(format, args...))
}
func (n natsLog) Fatalf(format string, args ...any) {
	n.log.Error("NATS server: " + fmt.Sprintf(format, args...))
}
