package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// The scripts in testdata/script run the command as its users do. The test's binary stands for it.

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pabal": func() { os.Exit(run(os.Args[1:])) }, "lingers": linger})
}

func TestScript(t *testing.T) { runScripts(t, "testdata/script", nil) }

// TestScriptOnSNS runs those in testdata/sns, with a server of SNS and SQS.
func TestScriptOnSNS(t *testing.T) {
	runScripts(t, "testdata/sns", map[string]string{
		"AWS_ENDPOINT_URL": servers.Fauxqs(t, false).URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
	})
}

func runScripts(t *testing.T, dir string, variables map[string]string) {
	for name, value := range variables {
		t.Setenv(name, value) // for commands of the script that are not programs
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Deadline: time.Now().Add(5 * time.Minute),
		Setup: func(e *testscript.Env) error {
			for name, value := range variables {
				e.Setenv(name, value)
			}
			return nil
		},
		Cmds: commandsWith(nil),
	})
}

// commandsWith are what scripts can do besides running programs.
func commandsWith(more map[string]func(*testscript.TestScript, bool, []string)) map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits, "sql": execSQL, "record": recordEvent, "freeport": freePort, "answers": answers, "shows": shows,
		"becomes": becomes, "send": send, "json": isJSON, "gets": gets, "runs": runDocs, "setid": setID,
	}
	maps.Copy(all, more)
	return all
}

// setid NAME FILE STATEMENT: sets a variable to the id that a statement finds in a SQLite database. It waits for the first.
func setID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setid NAME FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[1])+busy)
	ts.Check(err)
	defer db.Close() //nolint:errcheck // of a script
	poll(ts, args[2]+" finds an id", func() error {
		var id uuid.UUID
		err := db.QueryRow(args[2]).Scan(&id)
		ts.Setenv(args[0], id.String())
		return err
	})
}

// exits CODE PROGRAM ARGS...: runs a program, which ends with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec(args[1], args[2:]...)
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		code = exited.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, not %d", code, want)
	}
}

// busy has a script wait for the shop, which writes to the same file.
const busy = "?_pragma=busy_timeout(10000)"

// sql FILE STATEMENT: runs a statement in a SQLite database, as anybody may, and prints the first column of its rows.
func execSQL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sql FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0])+busy)
	ts.Check(err)
	defer db.Close() //nolint:errcheck // of a script
	rows, err := db.Query(args[1])
	ts.Check(err)
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var value any
		ts.Check(rows.Scan(&value))
		_, _ = fmt.Fprintln(ts.Stdout(), value)
	}
	ts.Check(rows.Err())
}

// record FILE ID: records an event of that id, of topic paid and key o-1, as an application does that nobody publishes for.
func recordEvent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: record FILE ID")
	}
	id, err := uuid.Parse(args[1])
	ts.Check(err)
	db, err := pabalsql.OpenSQLite(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	defer db.Close() //nolint:errcheck // of a script
	store, err := pabalsql.New(db, nil)
	ts.Check(err)
	tx, err := db.Begin()
	ts.Check(err)
	ts.Check(store.Record(context.Background(), tx, driver.Recording{
		Events: []driver.Event{{
			ID: id, Topic: "paid", Type: "paid", Key: "o-1", ContentType: "application/json", Payload: []byte(`{"orderNo":"o-1"}`),
		}},
		Lease: time.Second, Outcome: func(driver.CommitState) {},
	}))
	ts.Check(tx.Commit())
}

// send QUEUE BODY: sends a message straight to a queue of the broker $PABAL_BROKER.
func send(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: send QUEUE BODY")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := openBroker(&app{ctx: ctx, log: slog.New(slog.DiscardHandler)}, ts.Getenv("PABAL_BROKER"))
	ts.Check(err)
	verdicts := b.Publish(ctx, driver.Destination{Queue: args[0]}, []driver.Message{{ID: uuid.New(), Body: []byte(args[1])}})
	ts.Check(errors.Join(verdicts[0].Err, b.Close()))
}

// json FILE: a file is JSON.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] json FILE")
	}
	if json.Valid([]byte(ts.ReadFile(args[0]))) == neg {
		ts.Fatalf("%s: JSON %v", args[0], neg)
	}
}

// freeport NAME: sets a variable to an address at which nobody listens.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	port, err := servers.TakePort()
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprintf("127.0.0.1:%d", port))
}

// answers URL: waits until a process in the background answers there.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers URL")
	}
	client := &http.Client{Timeout: time.Second}
	poll(ts, args[0]+" answers", func() error {
		r, err := client.Get(args[0])
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, r.Body)
		return r.Body.Close()
	})
}

// gets STATUS PATTERN URL: asks there again and again until the answer is of that status and has that in its body.
func gets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: gets STATUS PATTERN URL")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	client := &http.Client{Timeout: 5 * time.Second}
	poll(ts, args[2]+" answers "+args[0]+" "+args[1], func() error {
		r, err := client.Get(args[2])
		if err != nil {
			return err
		}
		body, err := io.ReadAll(r.Body)
		if err == nil && (strconv.Itoa(r.StatusCode) != args[0] || !pattern.Match(body)) {
			err = fmt.Errorf("it answers %s %q", r.Status, body)
		}
		return errors.Join(err, r.Body.Close())
	})
}

// shows PATTERN FILE: waits until a process in the background has written that to a file.
func shows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shows PATTERN FILE")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	poll(ts, args[1]+" shows "+args[0], func() error {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		if err == nil && !pattern.Match(text) {
			err = fmt.Errorf("it is %q", text)
		}
		return err
	})
}

func poll(ts *testscript.TestScript, what string, ok func() error) {
	pollFor(ts, 30*time.Second, what, ok)
}

func pollFor(ts *testscript.TestScript, d time.Duration, what string, ok func() error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(d)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			ts.Fatalf("not within %v: %s: %v", d, what, err)
		}
	}
}

// becomes PATTERN PROGRAM ARGS...: runs a program again and again until it prints that, whatever its exit code.
func becomes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: becomes PATTERN PROGRAM ARGS...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	poll(ts, "it prints "+args[0], func() error {
		_ = ts.Exec(args[1], args[2:]...)
		if text := ts.ReadFile("stdout"); !pattern.MatchString(text) {
			return fmt.Errorf("it prints %q", text)
		}
		return nil
	})
}
