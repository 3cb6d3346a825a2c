package servers

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

// whole is a testing.TB of a test binary as a whole: for servers that all its tests use.
type whole struct {
	testing.TB // none; the methods that servers need are below
	mu         sync.Mutex
	cleanups   []func()
}

var binary whole

// Main runs the tests of a binary, then ends the servers that they shared: func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }.
func Main(m *testing.M) int {
	defer binary.end()
	return m.Run()
}

func (w *whole) Helper() {}

func (w *whole) Cleanup(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleanups = append(w.cleanups, f)
}

func (w *whole) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (w *whole) Fatal(args ...any) { w.Fatalf("%s", fmt.Sprint(args...)) }

func (w *whole) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	w.end()
	os.Exit(1)
}

func (w *whole) end() {
	w.mu.Lock()
	list := w.cleanups
	w.cleanups = nil
	w.mu.Unlock()
	for _, f := range slices.Backward(list) {
		f()
	}
}

// SharedPostgres is the PostgreSQL server that all tests of a binary share; its TestMain calls [Main].
func SharedPostgres() *PostgresServer { return sharedPostgres() }

var sharedPostgres = sync.OnceValue(func() *PostgresServer { return Postgres(&binary) })
