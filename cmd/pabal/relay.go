package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/pabal-go/pabal"
)

type relayCommand struct {
	storeFlags
	brokerFlags
	endpointFlags
	Source string        `help:"The source whose events the store keeps; default: what is stored."`
	Sweep  time.Duration `help:"How often the store is looked at, 100ms to 1m." default:"500ms"`
}

// What pabal.Options allows.
const (
	sweepMin = 100 * time.Millisecond
	sweepMax = time.Minute
)

func (c *relayCommand) Run(a *app) error {
	if c.Broker == "" {
		return usage("--broker is missing: give %s", brokerForms())
	}
	if c.Sweep < sweepMin || c.Sweep > sweepMax {
		return usage("--sweep %v: from %v to %v", c.Sweep, sweepMin, sweepMax)
	}
	e, err := c.endpointFlags.open(a)
	if err != nil {
		return err
	}
	defer e.close()
	d, err := c.storeFlags.open()
	if err != nil {
		return err
	}
	defer d.close()
	if c.Source == "" {
		if err := patiently(a, e, "the store", func() error { return c.storedSource(a, d) }); err != nil {
			return err
		}
	}
	broker, err := openBroker(a, c.Broker)
	if err != nil {
		return err
	}
	defer broker.Close() //nolint:errcheck // what is left comes again
	observer, metrics, err := e.observe(c.Source)
	if err != nil {
		return err
	}
	var client *pabal.Client[*sql.Tx]
	err = patiently(a, e, c.Source, func() (err error) {
		client, err = pabal.New(a.ctx, d.store, broker, c.Source,
			&pabal.Options{Logger: a.log, FixedTopology: c.Fixed, Sweep: c.Sweep, Observer: observer})
		return err
	})
	if err != nil {
		return err
	}
	if err := e.watch(c.Source, client.Operator, broker, metrics, client.Reachable, client.Ready); err != nil {
		return err
	}
	e.started()
	defer context.AfterFunc(a.ctx, e.drain)()
	if err = a.said(map[string]string{"relaying": c.Source}, "relaying the events of %s", c.Source); err != nil {
		return err
	}
	return client.Run(a.ctx)
}

func (c *relayCommand) storedSource(a *app, d *database) error {
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
	return nil
}
