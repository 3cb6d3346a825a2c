package pabalnats_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
)

// childDir, in the environment, makes of the test's binary a process that publishes until it is killed.
const (
	childDir     = "PABALNATS_TEST_DIR"
	childRelaxed = "PABALNATS_TEST_RELAXED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, publishForEver(dir, os.Getenv(childRelaxed) != ""))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// village is a topic with one queue.
var village = driver.Topology{
	Topics: []driver.TopicSpec{{Name: "paid"}}, Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{"paid"}}},
}

func message(id uuid.UUID) driver.Message {
	return driver.Message{ID: id, Dedup: id.String(), Body: []byte(id.String())}
}

// publishForEver publishes batches, small ones and atomic ones, and prints the id of each message that was accepted.
func publishForEver(dir string, relaxed bool) error {
	b, err := pabalnats.Open(dir, &pabalnats.Options{Logger: quiet(), Relaxed: relaxed})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := b.Check(ctx, village, true); err != nil {
		return err
	}
	for {
		messages := make([]driver.Message, 1+rand.IntN(60))
		for i := range messages {
			messages[i] = message(uuid.New())
		}
		for i, v := range b.Publish(ctx, driver.Destination{Topic: "paid"}, messages) {
			if v.Kind != driver.Accepted {
				return fmt.Errorf("publish: %w", v.Err)
			}
			if _, err := fmt.Println(messages[i].ID); err != nil {
				return err
			}
		}
	}
}

// What the embedded server has accepted survives kill -9, also when it is relaxed: only a power cut may then lose some.
func TestAcceptedMessagesSurviveKill(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		t.Run(fmt.Sprintf("relaxed=%v", relaxed), func(t *testing.T) {
			dir := t.TempDir()
			owed := map[string]bool{} // accepted, and not acknowledged by us
			for round := range 3 {
				after := 50 + rand.IntN(400)
				accepted := publishAndKill(t, dir, relaxed, after)
				for _, id := range accepted {
					owed[id] = true
				}
				t.Logf("round %d: killed after %d messages were accepted", round, len(accepted))
				drain(t, dir, owed, round < 2)
			}
		})
	}
}

// publishAndKill runs a child until it has accepted some messages, kills it, and answers all that it accepted.
func publishAndKill(t *testing.T, dir string, relaxed bool, after int) (accepted []string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	if relaxed {
		child.Env = append(child.Env, childRelaxed+"=1")
	}
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(time.Minute, func() { _ = child.Process.Kill() })
	defer deadline.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() { // also what it had printed when it was killed
		if id, err := uuid.Parse(lines.Text()); err == nil { // the last line may be cut
			accepted = append(accepted, id.String())
		}
		if len(accepted) == after {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // killed
	if child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || len(accepted) < after {
		t.Fatalf("the child ended by itself after %d messages: %v", len(accepted), child.ProcessState)
	}
	return accepted
}

// drain receives all that is owed, and acknowledges it, or every other one, which then is owed no more.
func drain(t *testing.T, dir string, owed map[string]bool, half bool) {
	t.Helper()
	b, err := pabalnats.Open(dir, &pabalnats.Options{Logger: quiet(), Hold: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()                                             //nolint:errcheck // of a test
	if err := b.Check(t.Context(), village, true); err != nil { // the child held for longer
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for id := range owed {
		missing[id] = true
	}
	for deadline := time.Now().Add(30 * time.Second); len(missing) > 0 && time.Now().Before(deadline); {
		deliveries, err := b.Receive(t.Context(), "settlement", 100)
		if err != nil {
			t.Fatal(err)
		}
		var done []driver.Delivery
		for i, d := range deliveries {
			id := string(d.Body)
			delete(missing, id)
			if !half || i%2 == 0 {
				done = append(done, d)
				delete(owed, id)
			}
		}
		if err := b.Ack(t.Context(), "settlement", done); err != nil {
			t.Fatal(err)
		}
	}
	if len(missing) > 0 {
		t.Fatalf("%d of %d messages that were accepted are gone", len(missing), len(owed))
	}
}
