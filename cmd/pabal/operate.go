package main

import (
	"encoding/json"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

type migrateCommand struct {
	DB     string `name:"db" help:"The database: ${databases}." placeholder:"ADDRESS" env:"PABAL_DB"`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
	Print  bool   `help:"Print the SQL for goose, Flyway, Liquibase or Atlas; touch nothing. Of --db only the scheme counts (mysql:); default: sqlite."`
}

func (c *migrateCommand) Run(a *app) error {
	if c.Print {
		script, err := printSchema(c.DB, c.Prefix)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(a.stdout, script)
		return err
	}
	if c.DB == "" {
		return usage("--db is missing: give %s (or --print)", databaseForms())
	}
	d, err := openDatabase(c.DB, c.Prefix)
	if err != nil {
		return err
	}
	defer d.close()
	m, err := d.migrate(a.ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, m)
	return err
}

type relayCommand struct {
	storeFlags
	brokerFlags
	Source string        `help:"The source whose events the store keeps; default: what is stored."`
	Sweep  time.Duration `help:"How often the store is looked at." default:"1s"`
}

func (c *relayCommand) Run(a *app) error {
	if c.Broker == "" {
		return usage("--broker is missing: give %s", brokerForms())
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	defer d.close()
	if c.Source == "" {
		o, err := pabal.Operate(a.ctx, d.store)
		if err != nil {
			return err
		}
		s, err := o.Status(a.ctx)
		if err != nil {
			return err
		}
		if c.Source = s.Source; c.Source == "" {
			return usage("--source is missing: the store has none yet")
		}
	}
	broker, err := openBroker(a, c.Broker)
	if err != nil {
		return err
	}
	defer broker.Close() //nolint:errcheck // what is left comes again
	client, err := pabal.New(a.ctx, d.store, broker, c.Source,
		&pabal.Options{Logger: a.log, FixedTopology: c.Fixed, Sweep: c.Sweep})
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(a.stdout, "relaying the events of %s\n", c.Source); err != nil {
		return err
	}
	return client.Run(a.ctx)
}

type statusCommand struct {
	storeFlags
	// Not from the environment: what is set there for relay may be a directory that a running process keeps locked.
	Broker string `help:"Also count the dead letters of the store's queues there: ${brokers}." placeholder:"ADDRESS"`
	JSON   bool   `name:"json" help:"Print JSON."`
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
		if c.JSON {
			e := json.NewEncoder(a.stdout)
			e.SetIndent("", "  ")
			err = e.Encode(s)
		} else {
			err = printStatus(a, s)
		}
		if err == nil && !s.Healthy {
			err = &exit{code: exitUnhealthy}
		}
		return err
	})
}

// countDead adds a trouble for each queue of the store beside which dead letters lie.
func (c *statusCommand) countDead(a *app, s *pabal.Status) error {
	var t driver.Topology
	add := func(queue string) { t.Queues = append(t.Queues, driver.QueueSpec{Name: queue}) }
	if s.Source != "" {
		add("event-record-" + s.Source)
	}
	for _, consumer := range s.Consumers {
		add(consumer.Consumer)
	}
	// A consumer of the source's name, as most have, may never have got to store anything; a queue that is not there counts nothing.
	if s.Source != "" && !slices.ContainsFunc(t.Queues, func(q driver.QueueSpec) bool { return q.Name == s.Source }) {
		add(s.Source)
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

func printStatus(a *app, s *pabal.Status) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
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
	return w.Flush()
}

func count(n int) string {
	if n >= 10_000 {
		return "10000+"
	}
	return fmt.Sprint(n)
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}

type orderFlags struct {
	storeFlags
	Consumer string   `help:"The consumer whose inbox holds the events; without it, events of this store are meant."`
	IDs      []string `arg:"" name:"id" help:"Ids of events."`
}

func (c *orderFlags) ids() ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(c.IDs))
	for i, text := range c.IDs {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, usage("%q is no event id: %w", text, err)
		}
		ids[i] = id
	}
	return ids, nil
}

func (c *orderFlags) order(a *app, verb string, do func(o *pabal.Operator, ids []uuid.UUID) (int, error)) error {
	ids, err := c.ids()
	if err != nil {
		return err
	}
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		n, err := do(o, ids)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(a.stdout, "%s %d of %d events\n", verb, n, len(ids))
		if n < len(ids) {
			return &exit{exitFailed, fmt.Errorf("%d events are neither pending nor in the inbox", len(ids)-n)}
		}
		return nil
	})
}

type retryCommand struct{ orderFlags }

func (c *retryCommand) Run(a *app) error {
	return c.order(a, "retrying", func(o *pabal.Operator, ids []uuid.UUID) (int, error) {
		if c.Consumer != "" {
			return o.RetryReceived(a.ctx, c.Consumer, ids...)
		}
		return o.Retry(a.ctx, ids...)
	})
}

type skipCommand struct{ orderFlags }

func (c *skipCommand) Run(a *app) error {
	return c.order(a, "skipping", func(o *pabal.Operator, ids []uuid.UUID) (int, error) {
		if c.Consumer != "" {
			return o.SkipReceived(a.ctx, c.Consumer, ids...)
		}
		return o.Skip(a.ctx, ids...)
	})
}

type redeliverCommand struct {
	storeFlags
	Topic string    `help:"Events of this topic."`
	Key   string    `help:"Events of this key."`
	From  time.Time `help:"Recorded at or after (RFC 3339)."`
	Until time.Time `help:"Recorded before (RFC 3339)."`
	ID    []string  `name:"id" help:"These events."`
	To    string    `help:"Straight to this consumer's queue; default: through the topic, to all."`
	Again bool      `help:"Have consumers handle again what they have handled."`
	Rate  int       `help:"Events per second." default:"100"`
}

func (c *redeliverCommand) Run(a *app) error {
	ids, err := (&orderFlags{IDs: c.ID}).ids()
	if err != nil {
		return err
	}
	r := pabal.Redelivery{Topic: c.Topic, Key: c.Key, From: c.From, Until: c.Until, IDs: ids, Consumer: c.To, Again: c.Again, Rate: c.Rate}
	if u, err := user.Current(); err == nil {
		r.By = u.Username
	}
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		job, err := o.Redeliver(a.ctx, r)
		if err != nil {
			if strings.HasPrefix(err.Error(), "redelivery:") {
				return &exit{exitUsage, err}
			}
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "redelivery %s is ordered: a running client of the source carries it out; see pabal status\n", job)
		return err
	})
}

type restoredCommand struct{ storeFlags }

func (c *restoredCommand) Run(a *app) error {
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		if err := o.Restored(a.ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.stdout, "noted: keys begin new runs with their next events")
		return err
	})
}
