package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the page at the end.
func (t *torture) report(interrupted bool, begin time.Time, loadBefore, tree string) string {
	var b bytes.Buffer
	end := time.Now()
	fmt.Fprintf(&b, "Torture of Pabal, %s to %s (%v)", begin.Format(time.DateTime), end.Format(time.DateTime),
		end.Sub(begin).Round(time.Second))
	if interrupted {
		b.WriteString(", INTERRUPTED: what was under way is not counted")
	}
	b.WriteString("\n\n")
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what\tran\ttime\trate\tfailures")
	failures := 0
	for _, w := range t.works {
		rate := ""
		if w.done > 0 && w.spent > 0 {
			rate = fmt.Sprintf("%.3g %s/s", float64(w.done)/w.spent.Seconds(), w.unit)
		}
		fmt.Fprintf(table, "%s\t%d %s\t%v\t%s\t%d\n", w.name, w.done, w.unit, w.spent.Round(time.Second), rate, len(w.failures))
		failures += len(w.failures)
	}
	_ = table.Flush()
	b.WriteString("\n")
	for _, w := range t.works {
		if w.omitted != "" {
			fmt.Fprintf(&b, "%s: %s\n", w.name, w.omitted)
		}
		if len(w.failures) >= failuresMost {
			fmt.Fprintf(&b, "%s: not run again after %d failures\n", w.name, failuresMost)
		}
		if len(w.seeds) > 0 {
			fmt.Fprintf(&b, "%s: %s %s\n", w.name, w.unit, ranges(w.seeds))
		}
	}
	if failures == 0 {
		b.WriteString("\nNothing failed.\n")
	}
	for _, w := range t.works {
		for _, f := range w.failures {
			fmt.Fprintf(&b, "\nFAILED  %s: %s\n  again: %s\n", w.name, f.what, f.again)
		}
	}
	if now := revision(); now != tree {
		tree += ", which was changed meanwhile; now " + now
	}
	fmt.Fprintf(&b, "\nPabal     %s\nversions  %s\nmachine   %s\nload      %s before, %s after\n", tree,
		strings.Join(versions(), "; "), machine(), loadBefore, load())
	return b.String()
}

// ranges shortens what would not fit on the page.
func ranges(all []string) string {
	const most = 6
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s, … %d ranges …, %s", strings.Join(all[:most-1], ", "), len(all)-most, all[len(all)-1])
}

// says returns the first line of what a program says; empty if there is none.
func says(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// revision is the commit, and whether the tree differs from it.
func revision() string {
	text := says("git", "log", "-1", "--format=%h %s")
	if text == "" {
		return "of no known commit"
	}
	if says("git", "status", "--porcelain", "--untracked-files=no") != "" {
		text += " (and changes that are not committed)"
	}
	return text
}

// versions are those of the toolchain and of the servers that tests find.
func versions() []string {
	all := []string{runtime.Version(), says("uname", "-sr")}
	postgres, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	for _, p := range append(postgres, ".tools/postgres/bin/postgres") {
		all = append(all, says(p, "--version"))
	}
	all = append(all, says("mariadbd", "--version"),
		says("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "github.com/nats-io/nats-server/v2"))
	return slices.DeleteFunc(all, func(version string) bool { return version == "" })
}

// machine is its processor and memory.
func machine() string {
	model := "processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(text), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.Trim(line, " \t:")
		}
	}
	memory := ""
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(", %d MiB", kib>>10)
		}
	}
	return fmt.Sprintf("%d × %s%s, %s/%s", runtime.NumCPU(), model, memory, runtime.GOOS, runtime.GOARCH)
}

// load is the load average of the last one, five and fifteen minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}
