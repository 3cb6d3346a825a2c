package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// What observations mean: pure functions.

const (
	comesBack    = 5 * time.Minute  // an event that has not by then is published again
	clockNoted   = 30 * time.Second // people compare logs
	clockAtRisk  = 15 * time.Minute // Amazon refuses requests that are signed so far off
	shortHold    = 10 * time.Second // a pause of a process that is that long happens
	forgetRounds = 25 * time.Hour   // forgetting is done in rounds, and a day at a time
)

// judge says what is wrong with one store.
func (o *observation) judge(limits driver.Limits) (found []driver.Finding) {
	if o.source == "" && len(o.consumers) == 0 {
		found = append(found, driver.Finding{Severity: driver.Note, What: "the store has no source yet: no client has opened it",
			Mend: "start its service, or: pabal relay --source NAME"})
	}
	if o.readOnly {
		found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P1, P4",
			What: "the database only reads (a replica, or a server that is set so): nothing is recorded, published, confirmed or handled through it",
			Mend: "give the address of the one that writes; for PostgreSQL, several hosts and target_session_attrs=read-write"})
	}
	found = append(found, o.judgeClock()...)
	for _, t := range o.topics {
		if t.unproven.IsZero() || o.now.Sub(t.unproven) < comesBack {
			continue
		}
		found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P1",
			What: fmt.Sprintf("topic %s was never proven: of what was recorded since %s nothing has come back, so nobody publishes or "+
				"nobody confirms", t.Name, t.unproven.Format(time.RFC3339)),
			Mend: "pabal relay # if no client of the source runs; then: pabal topology verify"})
	}
	for _, c := range o.consumers {
		found = append(found, o.judgeConsumer(c, limits)...)
	}
	return found
}

func (o *observation) judgeClock() []driver.Finding {
	off, how := o.ahead, "ahead of"
	if off < 0 {
		off, how = -off, "behind"
	}
	if off < clockNoted {
		return nil
	}
	f := driver.Finding{Severity: driver.Note, What: fmt.Sprintf("the database's clock is %v %s this machine's", off.Round(time.Second), how),
		Mend: "chronyc makestep # or what else sets the clock, on whichever is wrong"}
	if off >= clockAtRisk {
		f.Severity, f.Promise = driver.AtRisk, "P1, P4"
		f.What += ": brokers refuse requests that are signed so far off, and consumers take events for older than they are"
	}
	return []driver.Finding{f}
}

func (o *observation) judgeConsumer(c consumer, limits driver.Limits) (found []driver.Finding) {
	if len(c.topics) == 0 {
		found = append(found, driver.Finding{Severity: driver.Note, What: "consumer " + c.name + " is subscribed to no topic",
			Mend: "start its service, which subscribes its queue"})
	}
	if c.forgotBefore.IsZero() {
		return found
	}
	if memory := o.now.Sub(c.forgotBefore); memory < limits.Redelivery {
		found = append(found, driver.Finding{Promise: "P4",
			What: fmt.Sprintf("consumer %s remembers %v, and the broker may bring a message for %v: what comes later than it remembers "+
				"is parked", c.name, inDays(memory), inDays(limits.Redelivery)),
			Mend: fmt.Sprintf("Options.InboxRetention of its client: at least %v", limits.Redelivery+24*time.Hour)})
	}
	return found
}

// compare says what is wrong with stores beside each other.
func compare(all []*observation) (found []Finding) {
	for i, o := range all {
		for _, other := range all[:i] {
			if o.source != "" && o.source == other.source {
				found = append(found, Finding{o.name, driver.Finding{Severity: driver.Broken, Promise: "P1, P5",
					What: fmt.Sprintf("two stores are of source %s, this one and %s: they share a record queue, so each takes the other's "+
						"confirmations, and consumers see two orders of one key", o.source, other.name),
					Mend: "give one of them another name, in tables of its own; a copy of the other (for tests) needs a broker of its own"}})
			}
		}
		for _, c := range o.consumers {
			for _, source := range all {
				if f := source.keepsLonger(c); f != nil {
					found = append(found, Finding{o.name, *f})
				}
			}
		}
	}
	return found
}

// keepsLonger finds a consumer of this source that forgets what the source still keeps, and may redeliver.
func (o *observation) keepsLonger(c consumer) *driver.Finding {
	receives := func() bool {
		for _, m := range c.topics {
			if m.Source == o.source {
				return true
			}
		}
		return false
	}
	if o.source == "" || o.oldest.IsZero() || c.forgotBefore.Sub(o.oldest) < forgetRounds || !receives() {
		return nil
	}
	return &driver.Finding{Promise: "P4",
		What: fmt.Sprintf("consumer %s remembers events since %s, and source %s keeps them since %s: what is redelivered from before is parked",
			c.name, c.forgotBefore.Format(time.RFC3339), o.source, o.oldest.Format(time.RFC3339)),
		Mend: fmt.Sprintf("Options.InboxRetention of the consumer's client: at least Options.Retention of %s, now %v", o.source,
			inDays(o.now.Sub(o.oldest)))}
}

// inDays is a long duration as people say it.
func inDays(d time.Duration) string {
	if d < 48*time.Hour {
		return strings.TrimSuffix(strings.TrimSuffix(d.Round(time.Minute).String(), "0s"), "0m")
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
