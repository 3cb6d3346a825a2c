package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// torture is one evening of it.
type torture struct {
	works   []*work
	logs    string    // directory for the output of what fails
	scratch string    // directory for temporary files
	first   uint64    // next seed
	ran     int       // commands
	end     time.Time // when nothing more is begun; zero: never
}

const (
	cycleMost    = 40 * time.Minute // all kinds have had their turn by then
	failuresMost = 3                // of one kind: whatever is wrong has been seen
)

// during runs all kinds in turns, until the time is over.
func (t *torture) during(ctx context.Context, end time.Time) {
	t.end = end
	for begun := true; begun && ctx.Err() == nil; {
		begun = false
		cycle := min(time.Until(end), cycleMost)
		for _, w := range t.works {
			if len(w.failures) >= failuresMost || ctx.Err() != nil {
				continue
			}
			slice := min(max(time.Duration(float64(cycle)*w.share), w.least), time.Until(end))
			if slice < w.least {
				if w.done == 0 && len(w.failures) == 0 {
					w.omitted = fmt.Sprintf("not run: of its time, %v at least, there was not enough left", w.least)
				}
				continue
			}
			begun = true
			w.omitted = ""
			for over := time.Now().Add(slice); ; {
				t.turn(ctx, w, over, w.fit(time.Until(over)))
				if time.Until(over) < w.least || ctx.Err() != nil || len(w.failures) >= failuresMost {
					break
				}
			}
		}
	}
}

// once runs each kind once.
func (t *torture) once(ctx context.Context, counts [2]int) {
	for _, w := range t.works {
		t.turn(ctx, w, time.Now().Add(30*24*time.Hour), max(1, w.amount(counts[0], counts[1])))
	}
}

// fit is how many units go into a time; few before it is known how long one takes here.
func (w *work) fit(d time.Duration) int {
	if w.done == 0 {
		return max(1, int(w.guess*min(d, w.least).Seconds()))
	}
	return max(1, int(float64(w.done)/w.spent.Seconds()*d.Seconds()))
}

// turn runs an amount of a kind. Each failure ends a command; what is left of the amount is run by the next one, if there is
// time.
func (t *torture) turn(ctx context.Context, w *work, end time.Time, amount int) {
	for amount > 0 && ctx.Err() == nil && len(w.failures) < failuresMost && time.Now().Before(end) {
		n := min(amount, w.most)
		first := t.first
		t.first += uint64(n)
		amount -= n
		for _, c := range w.commands(first, n) {
			if !t.end.IsZero() && time.Now().After(t.end) {
				return
			}
			done, ok := t.command(ctx, w, c)
			if !ok && done > 0 && done < n { // the seeds above the one that failed
				amount += n - done
				t.first = first + uint64(done)
			}
		}
		if w.seeded && ctx.Err() == nil {
			w.seeds = append(w.seeds, fmt.Sprintf("%d–%d", first, t.first-1))
		}
	}
}

// command runs one command and notes what it came to. It reports how many units it did and whether it went well.
func (t *torture) command(ctx context.Context, w *work, c command) (done int, ok bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	fmt.Printf("%s  %s: %s\n", time.Now().Format(time.TimeOnly), w.name, c)
	begin := time.Now()
	out, err := t.execute(ctx, c)
	if ctx.Err() != nil {
		return 0, false // cut short: neither done nor failed
	}
	w.spent += time.Since(begin)
	done, failures := w.read(c, out, err != nil)
	w.done += done
	t.ran++
	for _, f := range failures {
		log := filepath.Join(t.logs, fmt.Sprintf("%03d.log", t.ran))
		if err := os.WriteFile(log, []byte(out), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
		}
		f.what += " (" + log + ")"
		w.failures = append(w.failures, f)
		fmt.Printf("FAILED  %s\n  again: %s\n", f.what, f.again)
	}
	return done, err == nil
}

// outputMost of a command is kept: its beginning, which names the failure, and its end.
const outputMost = 8 << 20

// execute runs a command; when it has ended, or ctx has, nothing that it started runs any more.
func (t *torture) execute(ctx context.Context, c command) (string, error) {
	var out bounded
	child := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	child.Dir, child.Stdout, child.Stderr = c.dir, &out, &out
	child.Env = append(append(os.Environ(), "TMPDIR="+t.scratch, "CGO_ENABLED=1"), c.env...)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the terminal is ours alone
	child.Cancel = func() error { return syscall.Kill(-child.Process.Pid, syscall.SIGKILL) }
	child.WaitDelay = time.Second
	err := child.Run()
	endOrphans()
	return out.String(), err
}

// bounded keeps what is written to it, up to outputMost, and then the last lines.
type bounded struct {
	head, tail bytes.Buffer
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.head.Len() < outputMost {
		return b.head.Write(p)
	}
	if b.tail.Len() > 64<<10 {
		b.tail.Next(b.tail.Len() - 32<<10)
	}
	return b.tail.Write(p)
}

func (b *bounded) String() string {
	if b.tail.Len() == 0 {
		return b.head.String()
	}
	return strings.Join([]string{b.head.String(), b.tail.String()}, "\n[…]\n")
}
