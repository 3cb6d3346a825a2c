package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Volume is a small file system in memory, in a mount namespace of its own.
type Volume struct {
	Root string // its root, for every process
	Dir  string // the same for processes that are within; SQLite, which looks where links lead, finds only this

	t      testing.TB
	holder *Process
}

// SmallVolume makes a file system of so many MiB. It goes with the test's process.
func SmallVolume(t testing.TB, mebibytes int) *Volume {
	t.Helper()
	p := newProcess(t)
	v := &Volume{Dir: filepath.Join(p.Dir, "volume"), t: t, holder: p}
	if err := errors.Join(os.Mkdir(v.Dir, 0o700), os.Chmod(p.Dir, 0o711)); err != nil { // a server's user has to come through
		t.Fatal(err)
	}
	args := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user") // whoever may make a user namespace may mount in it
	}
	script := fmt.Sprintf("mount -t tmpfs -o size=%dm tmpfs %q && touch %q && exec sleep infinity", mebibytes, v.Dir, filepath.Join(v.Dir, "mounted"))
	p.start(spec{name: "a small volume", args: append(args, "sh", "-c", script), ready: func(context.Context) error {
		v.Root = filepath.Join("/proc", strconv.Itoa(p.PID()), "root", v.Dir)
		_, err := os.Stat(filepath.Join(v.Root, "mounted"))
		return err
	}})
	return v
}

// Within is what stands before a command line whose process is to be within; it becomes that process.
func (v *Volume) Within() []string { return v.within(nil) }

func (v *Volume) within(as *syscall.Credential) []string {
	args := []string{"nsenter", "--target", strconv.Itoa(v.holder.PID()), "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--preserve-credentials")
	}
	if as != nil {
		args = append(args, "--setgid", strconv.Itoa(int(as.Gid)), "--setuid", strconv.Itoa(int(as.Uid)))
	}
	return args
}

// Fill leaves no byte of room, until Empty.
func (v *Volume) Fill() {
	v.t.Helper()
	f, err := os.Create(v.ballast())
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is ballast
	for block := make([]byte, 1<<12); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		v.t.Fatal(err)
	}
}

// Empty makes the room again that Fill took.
func (v *Volume) Empty() {
	v.t.Helper()
	if err := os.Remove(v.ballast()); err != nil {
		v.t.Fatal(err)
	}
}

func (v *Volume) ballast() string { return filepath.Join(v.Root, "ballast") }
