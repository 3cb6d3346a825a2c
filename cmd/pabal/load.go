package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/shop"
)

// load makes traffic and shows how it goes.
func (c *shopCommand) load(a *app, address string, rate float64) (*shop.Traffic, error) {
	line := changing(a)
	l := shop.Load{URL: address, Rate: rate, For: c.For, Seed: c.Seed, Progress: func(p shop.Progress) {
		line.put(time.Now(), fmt.Sprintf("%6s  placed %d  paid %d  cancelled %d  refused %d  repeated %d  wrong %d  (%.0f paid/s)",
			p.Elapsed.Round(time.Second), p.Placed, p.Paid, p.Cancelled, p.Refused, p.Repeated, p.Wrong, float64(p.Paid)/p.Elapsed.Seconds()))
	}}
	t, err := l.Run(a.ctx)
	line.end()
	if err != nil {
		return nil, err
	}
	if !a.json {
		printTraffic(a.stdout, t)
	} else if c.Target != "" || t.Wrong > 0 { // no books follow
		err = printJSON(a.stdout, account{Traffic: trafficOf(t)})
	}
	if t.Wrong > 0 {
		return t, &exit{exitFailed, fmt.Errorf("%d answers were wrong", t.Wrong)}
	}
	return t, err
}

// account is what --load, --check and both tell as JSON.
type account struct {
	Traffic *traffic `json:"traffic,omitempty"`
	Books   *books   `json:"books,omitempty"`
}

type traffic struct {
	Seconds    float64  `json:"seconds"`
	Placed     int64    `json:"placed"`
	Paid       int64    `json:"paid"`
	Cancelled  int64    `json:"cancelled"`
	Refused    int64    `json:"refused"`
	Repeated   int64    `json:"repeated"`
	PayP50     float64  `json:"payP50"` // seconds
	PayP99     float64  `json:"payP99"`
	Wrong      int64    `json:"wrong"`
	Complaints []string `json:"complaints"`
}

type books struct {
	Reconciled bool `json:"reconciled"`
	*shop.Report
}

func trafficOf(t *shop.Traffic) *traffic {
	if t == nil {
		return nil
	}
	return &traffic{Seconds: t.Elapsed.Seconds(), Placed: t.Placed, Paid: t.Paid, Cancelled: t.Cancelled, Refused: t.Refused,
		Repeated: t.Repeated, PayP50: t.PayP50.Seconds(), PayP99: t.PayP99.Seconds(), Wrong: t.Wrong, Complaints: emptyNotNil(t.Complaints)}
}

func printTraffic(w io.Writer, t *shop.Traffic) {
	_, _ = fmt.Fprintf(w, "traffic: %d orders placed, %d paid, %d cancelled in %s: %.0f paid orders/s; payment p50 %s, p99 %s\n",
		t.Placed, t.Paid, t.Cancelled, t.Elapsed.Round(time.Millisecond), float64(t.Paid)/t.Elapsed.Seconds(),
		t.PayP50.Round(10*time.Microsecond), t.PayP99.Round(10*time.Microsecond))
	for _, complaint := range t.Complaints {
		_, _ = fmt.Fprintln(w, "wrong answer:", complaint)
	}
}

// reconcile compares the books of the roles' databases.
func (c *shopCommand) reconcile(a *app) error {
	h := &house{a: a, databases: map[string]*database{}, operators: map[string]*pabal.Operator{}}
	defer h.close()
	for _, role := range shop.Roles() {
		address := c.address(role)
		if file, isFile := strings.CutPrefix(address, "sqlite:"); isFile {
			if _, err := os.Stat(file); err != nil { // opening would make an empty one
				return usage("--data: no books of %s: %w", role, err)
			}
		}
		d, err := openDatabase(address, "")
		if err != nil {
			return err
		}
		h.databases[role] = d
		if h.operators[role], err = pabal.Operate(a.ctx, d.store); err != nil {
			return fmt.Errorf("role %s: %w", role, err)
		}
	}
	return h.reconcile(a, nil, c.Wait)
}

func (h *house) reconcile(a *app, t *shop.Traffic, wait time.Duration) error {
	order, notification, settlement := h.databases["order"], h.databases["notification"], h.databases["settlement"]
	if order == nil || notification == nil || settlement == nil {
		return usage("the books of order, notification and settlement are needed to reconcile: run all roles")
	}
	r, err := shop.Reconcile(a.ctx, shop.Books{
		Order: order.db, Notification: notification.db, Settlement: settlement.db, Dialect: order.dialect, Wait: wait,
		Owed:   h.owed,
		Events: order.tallies,
	})
	if err != nil {
		return err
	}
	if t != nil && int64(r.Paid) < t.Paid {
		r.Differences = append(r.Differences, fmt.Sprintf("%d payments were answered, %d are in the books", t.Paid, r.Paid))
	}
	r.Differences = emptyNotNil(r.Differences)
	err = a.answer(account{trafficOf(t), &books{r.Reconciled(), r}}, func(w io.Writer) { printBooks(w, r) })
	if err == nil && !r.Reconciled() {
		err = &exit{exitFailed, fmt.Errorf("the books differ in %d points", len(r.Differences)+r.More)}
	}
	return err
}

func printBooks(w io.Writer, r *shop.Report) {
	_, _ = fmt.Fprintf(w, "reconciliation: %d orders paid, %d events confirmed, %d ledger entries, %d notifications; "+
		"%d cancelled, %d refunded, %d reversals; net %v\n", r.Paid, r.Events[shop.OrderPaid.Name()].Confirmed, r.Payments,
		r.Notifications, r.Cancelled, r.Refunded, r.Reversals, r.Net)
	for _, d := range r.Differences {
		_, _ = fmt.Fprintln(w, "differs:", d)
	}
	if r.Reconciled() {
		_, _ = fmt.Fprintln(w, "reconciled: nothing lost, nothing twice")
	}
}

// owed says what is still on its way.
func (h *house) owed(ctx context.Context) (string, error) {
	var owed []string
	for _, role := range shop.Roles() {
		o := h.operators[role]
		if o == nil {
			continue
		}
		s, err := o.Status(ctx)
		if err != nil {
			return "", errors.Join(err)
		}
		for _, t := range s.Topics {
			if n := t.Waiting + t.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%s: %d events of topic %s are unconfirmed", role, n, t.Name))
			}
		}
		for _, c := range s.Consumers {
			if n := c.Held + c.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%s: consumer %s holds %d events", role, c.Consumer, n))
			}
		}
	}
	return strings.Join(owed, "; "), nil
}
