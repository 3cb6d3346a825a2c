package main

import (
	"fmt"
	"io"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

type statusCommand struct {
	storeFlags
	// Not from the environment: what is set there for relay may be a directory that a running process keeps locked.
	Broker string `help:"Also count the dead letters of the store's queues there: ${brokers}." placeholder:"ADDRESS"`
}

func (c *statusCommand) Run(a *app) error {
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		s, err := o.Status(a.ctx)
		if err != nil {
			return err
		}
		if c.Broker != "" {
			if err := c.countDead(a, s); err != nil {
				return err
			}
		}
		err = a.answer(s, func(w io.Writer) { printStatus(w, s) })
		if err == nil && !s.Healthy {
			err = &exit{code: exitUnhealthy}
		}
		return err
	})
}

// countDead adds a trouble for each queue of the store beside which dead letters lie.
func (c *statusCommand) countDead(a *app, s *pabal.Status) error {
	var t driver.Topology
	for _, queue := range s.Queues() {
		t.Queues = append(t.Queues, driver.QueueSpec{Name: queue})
	}
	return surveyed(a, c.Broker, "count", func(b driver.Surveyor) error {
		dead, err := b.DeadLetters(a.ctx, t)
		for _, d := range dead {
			s.Healthy = false
			s.Troubles = append(s.Troubles, pabal.Trouble{
				What:    fmt.Sprintf("queue %s: the broker has put %d messages aside", d.Queue, d.Messages),
				Since:   s.Now, // the broker tells no more
				Command: "pabal topology revive --queue " + d.Queue,
			})
		}
		return err
	})
}

func printStatus(w io.Writer, s *pabal.Status) {
	health := "healthy"
	if !s.Healthy {
		health = fmt.Sprintf("%d troubles", len(s.Troubles))
	}
	_, _ = fmt.Fprintf(w, "source %s: %s   (%s by the database's clock)\n", s.Source, health, s.Now.Format(time.RFC3339))
	if len(s.Topics) > 0 {
		_, _ = fmt.Fprintln(w, "\nTOPIC\tUNCONFIRMED\tPARKED\tOLDEST\tLAST PROVEN")
		for _, t := range s.Topics {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.Name, count(t.Waiting), count(t.Parked), ago(s.Now, t.OldestWaiting), ago(s.Now, t.ProvenAt))
		}
	}
	if len(s.Consumers) > 0 {
		_, _ = fmt.Fprintln(w, "\nCONSUMER\tHELD\tPARKED\tOLDEST HELD\tOVERFLOWING KEYS")
		for _, c := range s.Consumers {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Consumer, count(c.Held), count(c.Parked), ago(s.Now, c.OldestHeld), count(c.Overflow))
		}
	}
	if len(s.Jobs) > 0 {
		_, _ = fmt.Fprintln(w, "\nREDELIVERY\tBY\tSENT\tSTATE")
		for _, j := range s.Jobs {
			state := "running"
			if j.Finished {
				state = "done " + ago(s.Now, j.FinishedAt)
			} else if j.LastError != "" {
				state = j.LastError
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", j.ID, j.By, j.Sent, state)
		}
	}
	for _, t := range s.Troubles {
		_, _ = fmt.Fprintf(w, "\n! %s (since %s)\n    %s\n", t.What, ago(s.Now, t.Since), t.Command)
	}
}
