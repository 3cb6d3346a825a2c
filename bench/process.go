package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// cpuTime is the processor time that this process has used so far, on all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// clockTick is what /proc counts processor time in: USER_HZ, 100 a second on every architecture that Go runs on (proc(5)).
const clockTick = 10 * time.Millisecond

// cpuTimeOf is the processor time that another process has used so far.
func cpuTimeOf(pid int) (time.Duration, error) {
	s, err := statOf(fmt.Sprintf("/proc/%d/stat", pid))
	return s.own, err
}

// treeTime is the processor time that a process, its children, and those of them that have ended, have used so far: a
// server's that has a process for each connection. Where there is no /proc it is 0.
func treeTime(pid int) (sum time.Duration) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, file := range files {
		s, err := statOf(file)
		if err == nil && (s.parent == pid || filepath.Base(filepath.Dir(file)) == strconv.Itoa(pid)) { // else it has ended meanwhile
			sum += s.own + s.ended
		}
	}
	return sum
}

// stat is what /proc says of a process.
type stat struct {
	parent int
	own    time.Duration // of a processor
	ended  time.Duration // of a processor, its children's that have ended
}

func statOf(file string) (s stat, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	// The second field is the name in parentheses, in which anything may stand; 4 is ppid, 14 to 17 are utime, stime, cutime
	// and cstime.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return s, fmt.Errorf("%s has %d fields", file, len(fields))
	}
	var n [5]int
	for i, f := range append([][]byte{fields[1]}, fields[11:15]...) {
		if n[i], err = strconv.Atoi(string(f)); err != nil {
			return s, fmt.Errorf("%s: %w", file, err)
		}
	}
	s.parent = n[0]
	s.own, s.ended = time.Duration(n[1]+n[2])*clockTick, time.Duration(n[3]+n[4])*clockTick
	return s, nil
}
