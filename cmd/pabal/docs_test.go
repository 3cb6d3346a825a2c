package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-go/pabal/internal/servers"
)

// What docs/operations.md and docs/runbooks.md tell people to type is run: the scripts of testdata/docs, and docs.txtar of
// testdata/sns, bring about what a section is about, and have the section's own commands end it. No command stands in two places.

// pagesRun are the pages whose every command is run.
var pagesRun = []string{"operations.md", "runbooks.md"}

// TestDocs runs each script beside a NATS server of its own, $NATS.
func TestDocs(t *testing.T) {
	scripts, err := filepath.Glob("testdata/docs/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			broker := servers.NATS(t, nil)
			testscript.Run(t, testscript.Params{
				Files: []string{script}, RequireExplicitExec: true, Deadline: time.Now().Add(5 * time.Minute),
				Setup: func(e *testscript.Env) error {
					e.Setenv("NATS", strings.TrimPrefix(broker.URL, "nats://"))
					return nil
				},
				Cmds: commandsWith(map[string]func(*testscript.TestScript, bool, []string){
					"measures": func(ts *testscript.TestScript, _ bool, args []string) {
						execSQL(ts, false, []string{args[0], statementFor(ts, "SQLite")})
					},
					"nats": func(ts *testscript.TestScript, _ bool, args []string) { changeNATS(ts, broker, args) },
				}),
			})
		})
	}
}

// measures FILE: runs the statement of docs/capacity.md in a SQLite database.
// nats kill|start|wipe|forget QUEUE: ends the script's server, starts it again, empties its storage, removes a queue from it.
func changeNATS(ts *testscript.TestScript, broker *servers.NATSServer, args []string) {
	switch strings.Join(args[:min(len(args), 1)], "") {
	case "kill":
		broker.Kill()
	case "start":
		ts.Check(broker.Restart())
	case "wipe":
		ts.Check(os.RemoveAll(filepath.Join(broker.Dir, "data")))
	case "forget":
		c, err := nats.Connect(broker.URL)
		ts.Check(err)
		defer c.Close()
		js, err := jetstream.New(c)
		ts.Check(err)
		ts.Check(js.DeleteConsumer(context.Background(), "pabal", args[1]))
	default:
		ts.Fatalf("usage: nats kill|start|wipe|forget QUEUE")
	}
}

// step is a block of commands under a heading, as whoever reads the page runs them.
type step struct {
	place string // page, heading, number of the block under that heading
	lines []command
}

// command is a line of a block. Its comment may say how it ends.
type command struct {
	text  string
	code  int  // "exit code N"
	stays bool // "until stopped"
}

var (
	blockForm   = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	headingForm = regexp.MustCompile(`(?m)^#+ (.*)$`)
	codeForm    = regexp.MustCompile(`exit code (\d)`)
	staysForm   = regexp.MustCompile(`until stopped`)
)

// stepsOf reads a page of docs/.
func stepsOf(page string) (steps []step, err error) {
	text, err := os.ReadFile(filepath.Join(docsDir, page))
	if err != nil {
		return nil, err
	}
	blocks := map[string]int{}
	for _, at := range blockForm.FindAllSubmatchIndex(text, -1) {
		headings := headingForm.FindAllSubmatch(text[:at[0]], -1)
		heading := anchor(string(headings[len(headings)-1][1]))
		blocks[heading]++
		s := step{place: fmt.Sprint(page, " ", heading, " ", blocks[heading])}
		for line := range strings.Lines(string(text[at[2]:at[3]])) {
			c := command{}
			typed, comment, _ := strings.Cut(strings.TrimSpace(line), " #")
			if c.text = strings.TrimSpace(typed); c.text == "" {
				continue
			}
			if code := codeForm.FindStringSubmatch(comment); code != nil {
				c.code, _ = strconv.Atoi(code[1])
			}
			c.stays = staysForm.MatchString(comment)
			s.lines = append(s.lines, c)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// docsDir is seen from this package; scripts run elsewhere.
var docsDir = func() string {
	dir, err := filepath.Abs("../../docs")
	if err != nil {
		panic(err)
	}
	return dir
}()

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// runs PAGE HEADING N [WORD=VALUE...]: runs the commands of a page's block, each WORD in them replaced, and sees that each ends as its
// comment says. It gets a minute for that: what mends something takes a moment.
func runDocs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: runs PAGE HEADING N [WORD=VALUE...]")
	}
	steps, err := stepsOf(args[0])
	ts.Check(err)
	place := strings.Join(args[:3], " ")
	i := slices.IndexFunc(steps, func(s step) bool { return s.place == place })
	if i < 0 {
		ts.Fatalf("there is no block %s", place)
	}
	var words []string
	for _, a := range args[3:] {
		word, value, _ := strings.Cut(a, "=")
		words = append(words, word, value)
	}
	for _, c := range steps[i].lines {
		text := strings.NewReplacer(words...).Replace(c.text)
		if c.stays {
			text = untilItSpeaks(text)
		}
		pollFor(ts, time.Minute, fmt.Sprintf("%s ends with exit code %d", text, c.code), func() error { return ends(ts, text, c.code) })
	}
}

// ends runs a command by a shell. An exit code that is not the one wanted is its error.
func ends(ts *testscript.TestScript, text string, want int) error {
	code := 0
	err := ts.Exec("sh", "-c", text)
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		code, err = exited.ExitCode(), nil
	}
	if err == nil && code != want {
		err = fmt.Errorf("it ended with exit code %d and %s%s", code, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
	return err
}

// untilItSpeaks interrupts a command that stays, once it has printed a line.
func untilItSpeaks(text string) string {
	return `{ ` + text + ` >spoken & }; p=$!; n=0; until [ -s spoken ] || [ $n = 200 ]; do sleep 0.1; n=$((n+1)); done; ` +
		`kill -INT $p; wait $p; r=$?; cat spoken; [ -s spoken ] || exit 99; rm spoken; exit $r`
}

// statementFor is the one of docs/capacity.md for a kind of database.
func statementFor(ts *testscript.TestScript, kind string) string {
	text, err := os.ReadFile(filepath.Join(docsDir, "capacity.md"))
	ts.Check(err)
	m := regexp.MustCompile(`(?m)^(select .*;)  -- ` + kind + `$`).FindSubmatch(text)
	if m == nil {
		ts.Fatalf("docs/capacity.md has no statement for %s", kind)
	}
	return string(m[1])
}

// TestEveryCommandOfTheDocsIsRun: each block of commands on a page is run by one script, and holds nothing that a script cannot run.
func TestEveryCommandOfTheDocsIsRun(t *testing.T) {
	ran := map[string]int{}
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^runs (\S+ \S+ \d+)`).FindAllStringSubmatch(string(text), -1) {
			ran[m[1]]++
		}
	}
	for _, page := range pagesRun {
		steps, err := stepsOf(page)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range steps {
			if ran[s.place] == 0 {
				t.Errorf("no script runs %s", s.place)
			}
			for _, c := range s.lines {
				if program := strings.Fields(c.text)[0]; program != "pabal" && program != "curl" {
					t.Errorf("%s: %q is neither pabal nor curl", s.place, cmp.Or(program, c.text))
				}
				n++
			}
		}
		if n < 10 {
			t.Errorf("%s: only %d commands found", page, n)
		}
	}
}
