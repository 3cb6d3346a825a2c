package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// PostgresWithClock starts a PostgreSQL server whose clock is off: ahead of the machine's or, below 0, behind it. Only what tells
// the time is off; waits are not. The environment names no other server here. It looks for no deadlock: that is done in a signal's handler,
// which asks for the time, and libfaketime, which opens a file for it, is not made to be called there.
func PostgresWithClock(t testing.TB, off time.Duration, settings ...string) *PostgresServer {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1") // the pattern is well-formed
	if len(found) == 0 {
		t.Fatal("libfaketime is not there: scripts/install faketime installs it")
	}
	s := &PostgresServer{Process: newProcess(t)}
	s.SetClock(off)
	startPostgres(s, []string{"LD_PRELOAD=" + found[0], "FAKETIME_TIMESTAMP_FILE=" + s.clock(), "FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1"}, append([]string{"deadlock_timeout=1h"}, settings...))
	return s
}

// clock is the file with what the clock is off by.
func (s *PostgresServer) clock() string { return filepath.Join(s.Dir, "clock") }

// SetClock sets the clock of a server of [PostgresWithClock], while it runs too.
func (s *PostgresServer) SetClock(off time.Duration) {
	s.t.Helper()
	next := s.clock() + ".next"
	err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int64(off/time.Second)), 0o644) // the server runs as another user
	if err == nil {
		err = os.Rename(next, s.clock()) // never half of it
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
