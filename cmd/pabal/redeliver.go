package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

type redeliverCommand struct {
	storeFlags
	Topic  string   `help:"Events of this topic."`
	Type   string   `help:"Events of this type."`
	Key    string   `help:"Events of this key."`
	From   moment   `help:"Recorded at or after: RFC 3339, or how long ago (90m)." placeholder:"TIME"`
	Until  moment   `help:"Recorded before; default: what is recorded by now." placeholder:"TIME"`
	ID     []string `name:"id" help:"These events, up to 1,000."`
	To     string   `help:"Straight to this consumer's queue; default: through the topic, to all."`
	Again  bool     `help:"Have consumers handle again what they have handled."`
	Rate   int      `help:"Events per second, 1 to 10,000." default:"100"`
	By     string   `help:"Who asks, for the record, in up to 255 bytes; default: the user of this process."`
	Why    string   `help:"Why, for the record, in up to 500 bytes."`
	DryRun bool     `help:"Only say how many events match, and show the first of them."`
	Sample int      `help:"How many of them to show." default:"10"`
	Follow bool     `short:"f" help:"Show how far it is until it is done. An interrupt ends the showing, not the redelivery."`
}

// preview is what --dry-run tells.
type preview struct {
	Count      int              `json:"count"`
	Takes      string           `json:"takes"` // at its rate
	Redelivery pabal.Redelivery `json:"redelivery"`
	Sample     []event          `json:"sample"`
}

func (c *redeliverCommand) Run(a *app) error {
	ids, err := parseIDs(c.ID)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	r := pabal.Redelivery{Topic: c.Topic, Type: c.Type, Key: c.Key, From: c.From.Time, Until: c.Until.Time, IDs: ids, Consumer: c.To,
		Again: c.Again, Rate: c.Rate, By: c.By, Why: c.Why}
	if u, err := user.Current(); r.By == "" && err == nil {
		r.By = u.Username
	}
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		if c.DryRun {
			return c.preview(a, o, r)
		}
		job, err := o.Redeliver(a.ctx, r)
		if err != nil {
			return err
		}
		if c.Follow {
			return follow(a, o, job)
		}
		return a.said(map[string]uuid.UUID{"redelivery": job},
			"redelivery %s is ordered: a running client of the source carries it out; see pabal events redeliveries", job)
	})
}

const (
	rateMax = 10_000
	byMax   = 255 // bytes
	whyMax  = 500
)

// check refuses what [pabal.Redelivery] or the database would, in terms of flags.
func (c *redeliverCommand) check() error {
	switch {
	case c.Topic == "" && len(c.ID) == 0:
		return usage("which events? Give --topic or --id; --type, --key, --from and --until narrow them")
	case c.Key != "" && c.Topic == "":
		return usage("--key %s: give its --topic too; keys of different topics have nothing to do with each other", c.Key)
	case len(c.ID) > page:
		return usage("%d times --id: up to %d; order several redeliveries, or give --topic, --from and --until", len(c.ID), page)
	case c.Rate < 1 || c.Rate > rateMax:
		return usage("--rate %d: from 1 to %d events per second; without it, 100", c.Rate, rateMax)
	case len(c.By) > byMax:
		return usage("--by of %d bytes: up to %d", len(c.By), byMax)
	case len(c.Why) > whyMax:
		return usage("--why of %d bytes: up to %d", len(c.Why), whyMax)
	case c.Sample < 1 || c.Sample > page:
		return usage("--sample %d: from 1 to %d", c.Sample, page)
	}
	return checkSpan(c.From, c.Until)
}

func (c *redeliverCommand) preview(a *app, o *pabal.Operator, r pabal.Redelivery) error {
	n, found, err := o.Matching(a.ctx, r, c.Sample)
	if err != nil {
		return err
	}
	p := preview{Count: n, Takes: takes(n, r.Rate).String(), Redelivery: r, Sample: []event{}}
	for i := range found {
		p.Sample = append(p.Sample, shown(&found[i]))
	}
	return a.answer(p, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%d events would go to %s, in %s at %d/s", n, target(r), p.Takes, r.Rate)
		if n > len(found) {
			_, _ = fmt.Fprintf(w, "; the first %d", len(found))
		}
		_, _ = fmt.Fprintln(w)
		printEvents(w, p.Sample)
	})
}

func takes(n, rate int) time.Duration {
	return (time.Duration(n) * time.Second / time.Duration(max(rate, 1))).Round(time.Second)
}

// redelivery is a job as commands show it.
type redelivery struct {
	ID uuid.UUID `json:"id"`
	pabal.Redelivery
	By         string    `json:"by"`
	OrderedAt  time.Time `json:"orderedAt"`
	Sent       int       `json:"sent"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	LastError  string    `json:"lastError,omitempty"`
}

func redeliveryOf(j *driver.Job) redelivery {
	r := redelivery{ID: j.ID, By: j.By, OrderedAt: j.CreatedAt, Sent: j.Sent, FinishedAt: j.FinishedAt, LastError: j.LastError}
	if err := json.Unmarshal(j.Spec, &r.Redelivery); err != nil {
		r.LastError = cmp.Or(r.LastError, "unreadable: "+err.Error())
	}
	return r
}

// what says which events.
func (r *redelivery) what() string {
	var parts []string
	add := func(format string, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	if n := len(r.IDs); n == 1 {
		add("event %s", r.IDs[0].String())
	} else if n > 1 {
		parts = append(parts, fmt.Sprintf("%d events", n))
	}
	add("topic %s", r.Topic)
	add("type %s", r.Type)
	add("key %q", r.Key)
	if !r.From.IsZero() {
		add("from %s", r.From.Format(time.RFC3339))
	}
	if !r.Until.IsZero() {
		add("until %s", r.Until.Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

func (r *redelivery) state(now time.Time) string {
	switch {
	case !r.FinishedAt.IsZero():
		return strings.TrimSpace("done " + ago(now, r.FinishedAt) + " " + r.LastError)
	case r.LastError != "":
		return r.LastError
	case r.Sent == 0:
		return "waiting for a running client"
	default:
		return "running"
	}
}

type redeliveriesCommand struct {
	storeFlags
	Follow string `short:"f" help:"Show how far this one is until it is done." placeholder:"ID"`
}

func (c *redeliveriesCommand) Run(a *app) error {
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		if c.Follow != "" {
			ids, err := parseIDs([]string{c.Follow})
			if err != nil {
				return err
			}
			return follow(a, o, ids[0])
		}
		s, err := o.Status(a.ctx)
		if err != nil {
			return err
		}
		list := []redelivery{}
		for i := range s.Jobs {
			list = append(list, redeliveryOf(&s.Jobs[i]))
		}
		return a.answer(list, func(w io.Writer) {
			row(w, "REDELIVERY", "ORDERED", "BY", "WHY", "WHAT", "TO", "SENT", "STATE")
			for i := range list {
				r := &list[i]
				row(w, r.ID, ago(s.Now, r.OrderedAt), r.By, cmp.Or(r.Why, "-"), r.what(), target(r.Redelivery), r.Sent, r.state(s.Now))
			}
		})
	})
}
