package pabalnats_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/pabalnats"
)

func TestDirectoryIsOpenedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "nats")
	first, err := pabalnats.Open(dir, &pabalnats.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pabalnats.Open(dir, &pabalnats.Options{Logger: quiet()})
	want := "NATS directory " + dir + " is used by another process: stop that one, or choose another directory"
	if err == nil || err.Error() != want {
		t.Errorf("a second Open answers %v, not %s", err, want)
	}
	if err := first.Check(t.Context(), village, true); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := pabalnats.Open(dir, &pabalnats.Options{Logger: quiet()})
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := second.Check(t.Context(), village, false); err != nil {
		t.Errorf("what the first one made is gone: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsAreCheckedByName(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		o    pabalnats.Options
		want string
	}{
		{pabalnats.Options{Stream: "a.b"}, `Options.Stream is "a.b"`},
		{pabalnats.Options{Stream: "a b"}, `Options.Stream is "a b"`},
		{pabalnats.Options{Stream: ">"}, `Options.Stream is ">"`},
		{pabalnats.Options{Stream: strings.Repeat("x", 65)}, `Options.Stream is "xxx`},
		{pabalnats.Options{Retention: time.Minute}, "Options.Retention is 1m0s"},
		{pabalnats.Options{Retention: 91 * 24 * time.Hour}, "Options.Retention is 2184h0m0s"},
		{pabalnats.Options{Hold: time.Millisecond}, "Options.Hold is 1ms"},
		{pabalnats.Options{Hold: 2 * time.Hour}, "Options.Hold is 2h0m0s"},
		{pabalnats.Options{Replicas: 2}, "Options.Replicas is 2"},
		{pabalnats.Options{Replicas: -1}, "Options.Replicas is -1"},
	} {
		if _, err := pabalnats.Open(dir, &c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open of %+v answers %v", c.o, err)
		}
		if _, err := pabalnats.Connect(t.Context(), "nats://127.0.0.1:1", &c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Connect of %+v answers %v", c.o, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("refused options left %v in the directory, %v", left, err)
	}
}

func TestOpenNamesTheDirectoryThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pabalnats.Open(file, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "NATS directory: ") || !strings.Contains(err.Error(), file) {
		t.Errorf("it answers %v", err)
	}
}
