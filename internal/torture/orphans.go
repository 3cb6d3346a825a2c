package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A test that is cut short cannot end the processes that it started, servers among them. So this process adopts whatever loses
// its parent below it (a child subreaper, prctl(2)), and ends it.

const prSetChildSubreaper = 36

// adopt makes this process the parent of all descendants that lose theirs.
func adopt() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("become the parent of orphans: %w", errno)
	}
	return nil
}

// endOrphans kills all children of this process, and what then becomes its child, until there is none. It is called while this
// process waits for no command of its own.
func endOrphans() {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		children := childrenOf(os.Getpid())
		if len(children) == 0 {
			return
		}
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			var status syscall.WaitStatus
			_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		}
	}
	fmt.Fprintln(os.Stderr, "torture: processes are left that cannot be ended:", childrenOf(os.Getpid()))
}

// childrenOf returns the ids of a process's children.
func childrenOf(parent int) (children []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // pid (name) state ppid …
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(parent) {
			children = append(children, pid)
		}
	}
	return children
}
