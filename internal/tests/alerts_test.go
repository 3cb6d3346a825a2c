package tests

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// alertCase is what an alert is about, as series in the notation of Prometheus' own tests: a value a minute, "0+5x200" is 201 of them from 0 on,
// each 5 more, "_x90" are 90 minutes without one.
type alertCase struct {
	what   string
	fires  bool
	series string
}

const (
	seriesAccepted  = `pabal_events_total{pabal_step="publish", pabal_result="accepted", source="order", messaging_destination_name="paid", instance=`
	seriesAgain     = `pabal_events_total{pabal_step="publish", pabal_result="again", source="order", messaging_destination_name="paid", instance=`
	seriesConfirmed = `pabal_events_total{pabal_step="confirm", pabal_result="confirmed", source="order", messaging_destination_name="paid", instance=`
	seriesRepeated  = `pabal_events_total{pabal_step="confirm", pabal_result="repeated", source="order", messaging_destination_name="paid", instance=`
	seriesFailed    = `pabal_events_total{pabal_step="consume", pabal_result="failed", source="order", messaging_consumer_group_name="settlement", instance=`
	seriesGhost     = `pabal_events_total{pabal_step="confirm", pabal_result="ghost", source="order", messaging_destination_name="paid", instance=`
	seriesStray     = `pabal_events_total{pabal_step="confirm", pabal_result="stray", source="order", messaging_destination_name="", instance=`
	seriesTroubles  = `pabal_troubles{source="order", instance=`
	seriesHealthy   = `pabal_healthy{source="order", instance=`
	seriesAge       = `pabal_oldest_age_seconds{source="order", messaging_destination_name="paid", instance=`
	seriesParked    = `pabal_parked{source="order", messaging_destination_name="paid", messaging_consumer_group_name="settlement", instance=`
	seriesHeldAge   = `pabal_held_age_seconds{source="order", messaging_consumer_group_name="settlement", instance=`
	seriesOverflows = `pabal_overflowing{source="order", messaging_consumer_group_name="settlement", instance=`
	seriesLetters   = `pabal_dead_letters{source="order", messaging_destination_name="event-record-order", instance=`
)

var alertCases = map[string][]alertCase{
	"PabalUnwatched": {
		{"no process", true, `up{instance="a"} 0x200`},
		{"one process", false, seriesTroubles + `"a"} 3x200`},
	},
	"PabalTroubles": {
		{"one of two processes sees troubles", true, seriesHealthy + `"a"} 1x200` + "\n" + seriesHealthy + `"b"} 0x200`},
		{"none", false, seriesHealthy + `"a"} 1x200`},
	},
	"PabalNotAccepted": {
		{"since it began", true, seriesAgain + `"a"} 0+5x200`},
		{"after it was well", true, seriesAgain + `"a"} 0x80 0+5x120` + "\n" + seriesAccepted + `"a"} 0+60x80 4800x120`},
		{"now and then one, while others are accepted by another process", false, seriesAgain + `"a"} 0+1x200` + "\n" + seriesAccepted + `"b"} 0+60x200`},
		{"nothing to publish", false, seriesAgain + `"a"} 7x200` + "\n" + seriesAccepted + `"a"} 9x200`},
	},
	"PabalConfirmationsStopped": {
		{"nothing comes back", true, seriesAccepted + `"a"} 0+60x200` + "\n" + seriesConfirmed + `"a"} 0+60x80 4800x120`},
		{"nothing ever did", true, seriesAccepted + `"a"} 0+60x200`},
		{"it comes back to another process", false, seriesAccepted + `"a"} 0+60x200` + "\n" + seriesConfirmed + `"b"} 0+60x200`},
		{"only repeated ones come back", false, seriesAccepted + `"a"} 0+60x200` + "\n" + seriesRepeated + `"a"} 0+60x200`},
		{"nothing is published", false, seriesAccepted + `"a"} 9x200` + "\n" + seriesConfirmed + `"a"} 9x200`},
	},
	"PabalLate": {
		{"an event waits", true, seriesAge + `"a"} 301x200`},
		{"one is on its way", false, seriesAge + `"a"} 299x200`},
	},
	"PabalParked": {
		{"one", true, seriesParked + `"a"} 1x200`},
		{"none", false, seriesParked + `"a"} 0x200`},
	},
	"PabalHandlerFails": {
		{"again and again", true, seriesFailed + `"a"} 0+1x200`},
		{"an hour ago", false, seriesFailed + `"a"} 7x200`},
	},
	"PabalHeld": {
		{"for long", true, seriesHeldAge + `"a"} 601x200`},
		{"not yet", false, seriesHeldAge + `"a"} 600x200`},
	},
	"PabalOverflowing": {
		{"a key", true, seriesOverflows + `"a"} 1x200`},
		{"none", false, seriesOverflows + `"a"} 0x200`},
	},
	"PabalDeadLetters": {
		{"one", true, seriesLetters + `"a"} 1x200`},
		{"none", false, seriesLetters + `"a"} 0x200`},
	},
	"PabalGhost": {
		{"the first of its process, with which the series begins", true, seriesGhost + `"a"} _x90 1x110`},
		{"a further one", true, seriesGhost + `"a"} 1x90 2x110`},
		{"of two hours ago", false, seriesGhost + `"a"} 1x200`},
		{"none", false, seriesGhost + `"a"} 0x200`},
	},
	"PabalStrays": {
		{"all the time", true, seriesStray + `"a"} 0+1x200`},
		{"once", false, seriesStray + `"a"} 1x200`},
	},
}

// TestAlertsFireWhenTheyShould evaluates each expression of docs/alerts.yml as Prometheus does, from two hours on for as long as the alert waits.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1 << 20, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
	defer engine.Close() //nolint:errcheck // of a test
	known := 0
	for _, a := range alerts(t) {
		cases := alertCases[a.Alert]
		if len(cases) == 0 {
			t.Errorf("%s: there is no case of it", a.Alert)
			continue
		}
		known++
		wait, _ := time.ParseDuration(a.For)
		for _, c := range cases {
			stored := queryable(t, c.series)
			fires := true
			for after := time.Duration(0); after <= wait && fires; after += time.Minute {
				q, err := engine.NewInstantQuery(t.Context(), stored, nil, a.Expr, time.Unix(0, 0).Add(2*time.Hour+after))
				if err != nil {
					t.Fatalf("%s: %v", a.Alert, err)
				}
				answer := q.Exec(t.Context())
				vector, err := answer.Vector()
				if err != nil {
					t.Fatalf("%s: %v", a.Alert, err)
				}
				fires = fires && len(vector) > 0
				q.Close()
			}
			if fires != c.fires {
				t.Errorf("%s, %s: it fires: %v", a.Alert, c.what, fires)
			}
		}
	}
	if known != len(alertCases) {
		t.Errorf("%d alerts have cases, and there are cases of %d", known, len(alertCases))
	}
}

// queryable has series, a line each, with a value a minute.
func queryable(t *testing.T, text string) storage.Queryable {
	t.Helper()
	var all []storage.Series
	for line := range strings.SplitSeq(text, "\n") {
		name, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var samples []chunks.Sample
		for minute, v := range values {
			if !v.Omitted {
				samples = append(samples, sample{int64(minute) * time.Minute.Milliseconds(), v.Value})
			}
		}
		all = append(all, storage.NewListSeries(name, samples))
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			return &selected{left: slices.DeleteFunc(slices.Clone(all), func(s storage.Series) bool {
				return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) })
			})}
		},
	}}
}

// selected is a storage.SeriesSet.
type selected struct{ at, left []storage.Series }

func (s *selected) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[:1], s.left[1:]
	return true
}

func (s *selected) At() storage.Series                { return s.at[0] }
func (s *selected) Err() error                        { return nil }
func (s *selected) Warnings() annotations.Annotations { return nil }

// sample is a chunks.Sample.
type sample struct {
	at    int64 // milliseconds
	value float64
}

func (s sample) T() int64                      { return s.at }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
