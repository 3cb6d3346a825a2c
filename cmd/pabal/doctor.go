package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pabal-go/pabal/doctor"
	"github.com/pabal-go/pabal/driver"
)

type doctorCommand struct {
	DB     []string `name:"db" help:"A store, or each of several that share a broker, so that they are compared too: ${databases}." placeholder:"ADDRESS" env:"PABAL_DB" sep:"none" required:""`
	Prefix string   `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
	// Not from the environment, as with status: what is set there for relay may be a directory that a running process keeps locked.
	Broker string        `help:"Also look at the broker: ${brokers}." placeholder:"ADDRESS"`
	File   string        `help:"What the broker shall have, as JSON that pabal.Client.Topology makes; default: what the stores remember." type:"existingfile" placeholder:"FILE"`
	Within time.Duration `help:"How long looking may take." default:"1m"`
}

// Help is what kong adds to the help of the command.
func (doctorCommand) Help() string {
	return "It reads only. Exit code 0: nothing endangers a promise (notes do not count), 1: something does, 2: something could not be " +
		"looked at, so that nothing is said of it."
}

func (c *doctorCommand) Run(a *app) error {
	var o doctor.Options
	switch {
	case c.Within <= 0:
		return usage("--within %v: give a time above 0", c.Within)
	case c.File != "" && c.Broker == "":
		return usage("--file says what a broker shall have: give --broker too")
	case c.File != "":
		t, err := readTopology(c.File)
		if err != nil {
			return err
		}
		o.Topology = &t
	}
	r, err := c.examine(a, &o)
	if err != nil {
		return err
	}
	if err := a.answer(r, func(w io.Writer) { c.print(w, r) }); err != nil {
		return err
	}
	switch {
	case len(r.Unseen) > 0:
		return &exit{code: exitUnseen}
	case r.Endangered():
		return &exit{code: exitEndangered}
	}
	return nil
}

// examine opens what can be opened. What cannot is part of the report, unless the command line is at fault.
func (c *doctorCommand) examine(a *app, o *doctor.Options) (*doctor.Report, error) {
	ctx, cancel := context.WithTimeout(a.ctx, c.Within)
	defer cancel()
	var stores []doctor.Store
	var unseen []doctor.Unseen
	addresses := slices.Clone(c.DB)
	slices.Sort(addresses)
	for _, address := range slices.Compact(addresses) {
		k, err := kindOf(address)
		if err != nil {
			return nil, err
		}
		d, err := k.look(address, c.Prefix)
		if err != nil {
			unseen = append(unseen, doctor.Unseen{Where: redacted(address), Err: err.Error()})
			continue
		}
		defer d.close()
		stores = append(stores, doctor.Of(redacted(address), d.store))
	}
	var broker driver.Broker
	if c.Broker != "" {
		b, err := lookAtBroker(&app{ctx: ctx, log: a.log}, c.Broker)
		if err != nil {
			unseen = append(unseen, doctor.Unseen{Where: "broker", Err: err.Error()})
		} else {
			defer b.Close() //nolint:errcheck // nothing was written
			broker = b
		}
	}
	r := doctor.Examine(ctx, stores, broker, o)
	r.Unseen = append(r.Unseen, unseen...)
	return r, nil
}

func (c *doctorCommand) print(w io.Writer, r *doctor.Report) {
	endangering := 0
	for _, f := range r.Findings {
		label := f.Severity.String()
		if f.Severity != driver.Note {
			endangering++
			label += ", endangers " + f.Promise
		}
		_, _ = fmt.Fprintf(w, "%s: %s\n    %s\n    mend: %s\n", f.Where, label, f.What, f.Mend)
	}
	for _, u := range r.Unseen {
		_, _ = fmt.Fprintf(w, "%s: could not be looked at\n    %s\n", u.Where, u.Err)
	}
	looked := "stores"
	if c.Broker != "" {
		looked = "stores and broker"
	}
	switch {
	case len(r.Unseen) > 0:
		_, _ = fmt.Fprintf(w, "%s: not all could be looked at; findings that endanger a promise: %d\n", looked, endangering)
	case endangering > 0:
		_, _ = fmt.Fprintf(w, "%s: findings that endanger a promise: %d\n", looked, endangering)
	default:
		_, _ = fmt.Fprintf(w, "%s: nothing endangers a promise\n", looked)
	}
}
