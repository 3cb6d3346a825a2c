package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
)

const day = 24 * time.Hour

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// order is a store in which all is well: a source and a consumer of it, which forgot what is older than it remembers.
func order(change func(*observation)) *observation {
	o := &observation{name: "here", now: now, source: "order", oldest: now.Add(-30 * day),
		topics:    []topic{{Topic: driver.Topic{Name: "paid", ProvenAt: now}}},
		consumers: []consumer{{name: "audit", topics: []driver.Memory{{Source: "order", Topic: "paid"}}, forgotBefore: now.Add(-45 * day)}},
	}
	if change != nil {
		change(o)
	}
	return o
}

func TestJudgeSaysWhatEndangersAPromise(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*observation)
		want   string // "": nothing
	}{
		"all is well": {nil, ""},
		"the first event is young": {func(o *observation) {
			o.topics[0].ProvenAt, o.topics[0].unproven = time.Time{}, now.Add(-4*time.Minute)
		}, ""},
		"no event": {func(o *observation) { o.topics[0].ProvenAt = time.Time{} }, ""},
		"never proven": {func(o *observation) {
			o.topics[0].ProvenAt, o.topics[0].unproven = time.Time{}, now.Add(-5*time.Minute)
		}, "broken P1: topic paid was never proven: of what was recorded since 2026-11-29T11:55:00Z nothing"},
		"nobody":              {func(o *observation) { o.source, o.consumers = "", nil }, "note : the store has no source yet"},
		"clock ahead":         {func(o *observation) { o.ahead = 31 * time.Second }, "note : the database's clock is 31s ahead of this machine's"},
		"clock a little off":  {func(o *observation) { o.ahead = -29 * time.Second }, ""},
		"clock far behind":    {func(o *observation) { o.ahead = -15 * time.Minute }, "at risk P1, P4: the database's clock is 15m0s behind"},
		"forgets early":       {func(o *observation) { o.consumers[0].forgotBefore = now.Add(-36 * day) }, "at risk P4: consumer audit remembers 36 days, and the broker may bring a message for 37 days"},
		"remembers just that": {func(o *observation) { o.consumers[0].forgotBefore = now.Add(-37 * day) }, ""},
		"forgot nothing":      {func(o *observation) { o.consumers[0].forgotBefore = time.Time{} }, ""},
		"only reads":          {func(o *observation) { o.readOnly = true }, "broken P1, P4: the database only reads"},
		"no topic":            {func(o *observation) { o.consumers[0].topics = nil }, "note : consumer audit is subscribed to no topic"},
	} {
		found := order(c.change).judge(driver.Limits{Redelivery: 37 * day})
		text := ""
		for _, f := range found {
			text += fmt.Sprintf("%v %s: %s", f.Severity, f.Promise, f.What)
		}
		if c.want == "" && text != "" || !strings.HasPrefix(text, c.want) || len(found) > 1 {
			t.Errorf("%s: want %q, found %q", name, c.want, text)
		}
	}
}

func TestCompareSaysWhatStoresEndanger(t *testing.T) {
	other := func(change func(*observation)) []*observation {
		return []*observation{order(nil), order(func(o *observation) {
			o.name, o.source, o.consumers, o.topics = "there", "settlement", nil, nil
			change(o)
		})}
	}
	for name, c := range map[string]struct {
		all  []*observation
		want string
	}{
		"all is well":    {other(func(*observation) {}), ""},
		"two of one":     {other(func(o *observation) { o.source = "order" }), "there: broken P1, P5: two stores are of source order, this one and here"},
		"two of nothing": {[]*observation{order(func(o *observation) { o.source = "" }), order(func(o *observation) { o.source = "" })}, ""},
		"a source keeps longer": {other(func(o *observation) {
			o.consumers = []consumer{{name: "audit", topics: []driver.Memory{{Source: "order"}}, forgotBefore: now.Add(-28 * day)}}
		}), "there: at risk P4: consumer audit remembers events since 2026-11-01T12:00:00Z, and source order keeps them since 2026-10-30T12:00:00Z"},
		"a source keeps as long": {other(func(o *observation) {
			o.consumers = []consumer{{name: "audit", topics: []driver.Memory{{Source: "order"}}, forgotBefore: now.Add(-29 * day)}}
		}), ""},
		"another source": {other(func(o *observation) {
			o.consumers = []consumer{{name: "audit", topics: []driver.Memory{{Source: "member"}}, forgotBefore: now.Add(-day)}}
		}), ""},
	} {
		text := ""
		for _, f := range compare(c.all) {
			text += fmt.Sprintf("%s: %v %s: %s", f.Where, f.Severity, f.Promise, f.What)
		}
		if c.want == "" && text != "" || !strings.HasPrefix(text, c.want) {
			t.Errorf("%s: want %q, found %q", name, c.want, text)
		}
	}
}

// A clock that was read between two moments differs for certain only by what lies outside of them.
func TestDifferenceIsWhatTheRoundTripDoesNotExplain(t *testing.T) {
	ended := now.Add(10 * time.Second)
	for clock, want := range map[time.Time]time.Duration{
		now: 0, ended: 0, now.Add(5 * time.Second): 0, ended.Add(time.Minute): time.Minute, now.Add(-time.Hour): -time.Hour,
	} {
		if got := difference(now, ended, clock); got != want {
			t.Errorf("%v: %v, not %v", clock, got, want)
		}
	}
}
