package servers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// SmallVolume makes a file system in memory of so many MiB, in a mount namespace of its own, and returns the path of its
// root, which every process may use. It goes with the test's process.
func SmallVolume(t testing.TB, mebibytes int) string {
	t.Helper()
	p := newProcess(t)
	dir := filepath.Join(p.Dir, "volume")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user") // whoever may make a user namespace may mount in it
	}
	script := fmt.Sprintf("mount -t tmpfs -o size=%dm tmpfs %q && touch %q && exec sleep infinity", mebibytes, dir, filepath.Join(dir, "mounted"))
	var root string
	p.start(spec{name: "a small volume", args: append(args, "sh", "-c", script), ready: func(context.Context) error {
		root = filepath.Join("/proc", strconv.Itoa(p.PID()), "root", dir)
		_, err := os.Stat(filepath.Join(root, "mounted"))
		return err
	}})
	return root
}
