package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/shop"
	"github.com/pabal-go/pabal/topology"
)

// topologyCommand looks after what a broker needs. What it can do beyond Check depends on the broker: driver.Surveyor.
type topologyCommand struct {
	Plan   planCommand   `cmd:"" help:"Show what differs and would be changed. Exit code 3: something does."`
	Apply  applyCommand  `cmd:"" help:"Make what is missing and change what differs; nothing is removed or made anew."`
	Print  printCommand  `cmd:"" help:"Print the topology for tools that make it, or what it needs to be granted."`
	Verify verifyCommand `cmd:"" help:"Audit it, and send a canary through every subscription. Exit code 3: something is wrong."`
	Dead   deadCommand   `cmd:"" help:"Count the messages that the broker has put aside. Exit code 3: there are some."`
	Revive reviveCommand `cmd:"" help:"Bring the dead letters of a queue back to it."`
}

// topologyFlags say which broker and which topology.
type topologyFlags struct {
	Broker string   `help:"The broker: ${brokers}." placeholder:"ADDRESS" env:"PABAL_BROKER" required:""`
	File   string   `help:"The topology as JSON, as pabal.Client.Topology makes it; default: the shop's." type:"existingfile" placeholder:"FILE"`
	Roles  []string `arg:"" optional:"" name:"role" help:"Roles of the shop; default: all."`
}

func (f *topologyFlags) topology() (driver.Topology, error) {
	if f.File == "" {
		for _, role := range f.Roles {
			if !slices.Contains(shop.Roles(), role) {
				return driver.Topology{}, usage("role %q: one of %s", role, strings.Join(shop.Roles(), ", "))
			}
		}
		return shop.Topology(f.Roles...), nil
	}
	return readTopology(f.File)
}

// whose says on stderr whose topology a command is about, if that is not the caller's own.
func (f *topologyFlags) whose(a *app) {
	if f.File == "" {
		_, _ = fmt.Fprintln(a.stderr, "This is the topology of the shop, the reference system: --file FILE names your own.")
	}
}

func readTopology(file string) (t driver.Topology, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return t, usage("--file: %w", err)
	}
	if t, err = parseTopology(text); err != nil {
		return t, usage("--file %s: %w", file, err)
	}
	return t, nil
}

// nameForm is that of topics and queues. To a broker, anything else may be a pattern, or another thing than was meant.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func parseTopology(text []byte) (t driver.Topology, err error) {
	if err := json.Unmarshal(text, &t); err != nil {
		return t, err
	}
	for _, s := range t.Topics {
		if !nameForm.MatchString(s.Name) {
			return t, fmt.Errorf("topic %q: a name is letters, digits, '-' and '_', and not empty", s.Name)
		}
	}
	for _, q := range t.Queues {
		if !nameForm.MatchString(q.Name) {
			return t, fmt.Errorf("queue %q: a name is letters, digits, '-' and '_', and not empty", q.Name)
		}
		for _, topic := range q.Topics {
			if !slices.ContainsFunc(t.Topics, func(s driver.TopicSpec) bool { return s.Name == topic }) {
				return t, fmt.Errorf("queue %s is subscribed to topic %s, which is not among the topics", q.Name, topic)
			}
		}
	}
	return t, nil
}

// with opens the broker for do.
func (f *topologyFlags) with(a *app, do func(driver.Broker, driver.Topology) error) error {
	t, err := f.topology()
	if err != nil {
		return err
	}
	return withBroker(a, f.Broker, func(b driver.Broker) error { return do(b, t) })
}

// surveyed is with for brokers that can do what.
func (f *topologyFlags) surveyed(a *app, what string, do func(driver.Surveyor, driver.Topology) error) error {
	t, err := f.topology()
	if err != nil {
		return err
	}
	return surveyed(a, f.Broker, what, func(s driver.Surveyor) error { return do(s, t) })
}

func withBroker(a *app, address string, do func(driver.Broker) error) error {
	b, err := openBroker(a, address)
	if err != nil {
		return err
	}
	err = do(b)
	if errors.Is(err, context.DeadlineExceeded) { // a broker that is away is waited for, and its error may not name it
		err = fmt.Errorf("--broker %s: no answer: %w", redacted(address), err)
	}
	return errors.Join(err, b.Close())
}

// surveyed opens a broker that can do what for do.
func surveyed(a *app, address, what string, do func(driver.Surveyor) error) error {
	return withBroker(a, address, func(b driver.Broker) error {
		s, ok := b.(driver.Surveyor)
		if !ok {
			return usage("--broker %s: such a broker has nothing to %s", redacted(address), what)
		}
		return do(s)
	})
}

type planCommand struct{ topologyFlags }

func (c *planCommand) Run(a *app) error {
	return c.with(a, func(b driver.Broker, t driver.Topology) error {
		c.whose(a)
		changes, err := plan(a, b, t)
		if err != nil {
			return err
		}
		err = a.answer(emptyNotNil(changes), func(w io.Writer) { printChanges(w, "", changes) })
		if err == nil && len(changes) > 0 {
			err = &exit{code: exitUnhealthy}
		}
		return err
	})
}

func printChanges(w io.Writer, done string, changes []string) {
	for _, change := range changes {
		row(w, done+change)
	}
	if len(changes) == 0 {
		row(w, "nothing to do: the broker has all that is needed")
	}
}

func plan(a *app, b driver.Broker, t driver.Topology) (changes []string, err error) {
	if s, ok := b.(driver.Surveyor); ok {
		return s.Plan(a.ctx, t)
	}
	var missing *driver.MissingError
	if err := b.Check(a.ctx, t, false); err != nil && !errors.As(err, &missing) {
		return nil, err
	}
	if missing != nil {
		for _, what := range missing.Missing {
			changes = append(changes, "create "+what)
		}
	}
	return changes, nil
}

type applyCommand struct{ topologyFlags }

func (c *applyCommand) Run(a *app) error {
	return c.with(a, func(b driver.Broker, t driver.Topology) error {
		c.whose(a)
		changes, err := plan(a, b, t)
		if err != nil {
			return err
		}
		if err := b.Check(a.ctx, t, true); err != nil {
			return err
		}
		return a.answer(emptyNotNil(changes), func(w io.Writer) { printChanges(w, "done: ", changes) })
	})
}

type printCommand struct {
	topologyFlags
	Format string `help:"json, or what the broker knows: see the error of a wrong one." default:"json"`
}

func (c *printCommand) Run(a *app) error {
	if c.Format == "json" {
		t, err := c.topology()
		if err != nil {
			return err
		}
		return printJSON(a.stdout, t)
	}
	return c.surveyed(a, "print but json", func(s driver.Surveyor, t driver.Topology) error {
		if !slices.Contains(s.Formats(), c.Format) {
			return usage("--format %q: json, %s", c.Format, strings.Join(s.Formats(), ", "))
		}
		return s.Print(a.stdout, c.Format, t)
	})
}

type verifyCommand struct {
	topologyFlags
	Patience time.Duration `help:"How long to wait for the canaries." default:"30s"`
}

func (c *verifyCommand) Run(a *app) error {
	if c.Patience <= 0 {
		return usage("--patience %v: give a time above 0", c.Patience)
	}
	return c.with(a, func(b driver.Broker, t driver.Topology) error {
		c.whose(a)
		found, err := topology.Verify(a.ctx, b, t, c.Patience)
		if err != nil {
			return err
		}
		err = a.answer(emptyNotNil(found), func(w io.Writer) {
			for _, f := range found {
				_, _ = fmt.Fprintf(w, "wrong: %s\n  mend: %s\n", f.What, f.Mend)
			}
			if len(found) == 0 {
				_, _ = fmt.Fprintln(w, "verified: a canary came through every subscription")
			}
		})
		if err == nil && len(found) > 0 {
			err = &exit{code: exitUnhealthy}
		}
		return err
	})
}

type deadCommand struct {
	topologyFlags
}

func (c *deadCommand) Run(a *app) error {
	return c.surveyed(a, "count", func(s driver.Surveyor, t driver.Topology) error {
		c.whose(a)
		dead, err := s.DeadLetters(a.ctx, t)
		if err != nil {
			return err
		}
		err = a.answer(emptyNotNil(dead), func(w io.Writer) { printDead(w, dead) })
		if err == nil && len(dead) > 0 {
			err = &exit{code: exitUnhealthy}
		}
		return err
	})
}

func printDead(w io.Writer, dead []driver.DeadLetter) {
	if len(dead) == 0 {
		row(w, "no dead letters")
		return
	}
	row(w, "QUEUE", "DEAD LETTERS", "MENDED BY")
	for _, d := range dead {
		row(w, d.Queue, d.Messages, "pabal topology revive --queue "+d.Queue)
	}
}

type reviveCommand struct {
	topologyFlags
	Queue string `help:"The queue to which its dead letters come back." required:""`
}

func (c *reviveCommand) Run(a *app) error {
	return c.surveyed(a, "revive", func(s driver.Surveyor, _ driver.Topology) error {
		n, err := s.Revive(a.ctx, c.Queue)
		if err == nil {
			err = a.said(driver.DeadLetter{Queue: c.Queue, Messages: n}, "%d dead letters of queue %s come back", n, c.Queue)
		}
		return err
	})
}
