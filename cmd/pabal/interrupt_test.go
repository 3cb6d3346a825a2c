package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestInterruptedBeforeItsDatabaseAnswers(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // of a test
	command := exec.CommandContext(t.Context(), "pabal", "status", "--db", fmt.Sprintf("postgres://shop@%s/shop", silent.Addr()))
	var told bytes.Buffer
	command.Stderr = &told
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := silent.Accept() // it waits for an answer now
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of a test
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var failed *exec.ExitError
	if err := command.Wait(); !errors.As(err, &failed) || failed.ExitCode() != exitFailed || told.String() != "pabal: interrupted\n" {
		t.Errorf("interrupted: %v, %q", err, told.String())
	}
}

func TestInterruptHidesNoOtherFailure(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	full := errors.New("disk is full")
	cut := fmt.Errorf("settlement: %w", context.Canceled)
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want string
	}{
		{ended, errors.Join(context.Canceled, cut), "interrupted"},
		{ended, errors.Join(cut, full), "disk is full"},
		{t.Context(), errors.Join(cut, full), "settlement: context canceled\ndisk is full"},
	} {
		if got := failure(c.ctx, c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// linger is a command whose end takes long.
func linger() {
	ctx, stop := untilInterrupted()
	defer stop()
	fmt.Println("begun")
	<-ctx.Done()
	fmt.Println("interrupted")
	time.Sleep(time.Hour)
}

func TestLaterInterruptEndsWhatTakesLongToEnd(t *testing.T) {
	command := exec.CommandContext(t.Context(), "lingers")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines, start := bufio.NewScanner(out), time.Now()
	for _, want := range []string{"begun", "interrupted"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it says %q, want %q", lines.Text(), want)
		}
		if err := command.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	waited := make(chan error, 1)
	go func() { waited <- command.Wait() }()
	for {
		select {
		case err := <-waited:
			var ended *exec.ExitError
			if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != os.Interrupt {
				t.Errorf("it ended with %v", err)
			}
			if took := time.Since(start); took < oneInterrupt {
				t.Errorf("an interrupt that came twice ended it after %v", took)
			}
			return
		case <-time.After(50 * time.Millisecond):
			_ = command.Process.Signal(os.Interrupt)
		}
	}
}
