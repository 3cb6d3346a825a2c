package main

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// onPostgres is a part that compares Pabal on PostgreSQL and JetStream with what one would use instead. All run on the same servers,
// each time on databases and a stream of their own, in turn; a run whose books do not agree is an error.
func onPostgres(do func(*stand, context.Context, *bench) ([]row, error)) func(context.Context, *bench) ([]row, error) {
	return func(ctx context.Context, b *bench) ([]row, error) {
		return withServers(func(t testing.TB) ([]row, error) {
			s, err := openStand(ctx, t)
			if err != nil {
				return nil, err
			}
			return do(s, ctx, b)
		})
	}
}

// field is the contenders that are compared as a whole, Pabal first.
func field() (all []contender) {
	all = append(all, pabals...)
	all = append(all, byHand...)
	return append(all, riverContender, watermillContender)
}

// results are those of each round, by the contender's name.
type results map[string][]pgResult

func (r results) each(name string, figure func(pgResult) float64) (values []float64) {
	for _, one := range r[name] {
		values = append(values, figure(one))
	}
	return values
}

// ratio is that of two contenders' rates, round by round.
func (r results) ratio(name, other string) (values []float64) {
	for i, one := range r[name] {
		values = append(values, one.rate()/r[other][i].rate())
	}
	return values
}

// rounds runs contenders in turn.
func (s *stand) rounds(ctx context.Context, b *bench, load pgLoad, list ...contender) (results, error) {
	all := results{}
	for range b.rounds {
		for _, c := range list {
			r, err := s.do(ctx, c, load)
			if err != nil {
				return nil, err
			}
			all[c.name] = append(all[c.name], r)
		}
	}
	return all, nil
}

const whatPipeline = "PostgreSQL and JetStream: record → three consumers → confirmed"

func cpuPer1000(r pgResult) float64 { return r.per(1000 * r.used.cpu().Seconds()) }

// fullRate has every contender do as much as it can. Statements are counted in a round of their own.
func (s *stand) fullRate(ctx context.Context, b *bench) (rows []row, err error) {
	all, err := s.rounds(ctx, b, pgLoad{each: b.each}, field()...)
	if err != nil {
		return nil, err
	}
	counted := results{}
	for _, c := range field() {
		r, err := s.do(ctx, c, pgLoad{each: min(b.each, 3*time.Second), counted: true})
		if err != nil {
			return nil, err
		}
		counted[c.name] = append(counted[c.name], r)
	}
	for _, c := range field() {
		part := func(of func(usage) time.Duration) float64 {
			return median(all.each(c.name, func(r pgResult) float64 { return r.per(1000 * of(r.used).Seconds()) }))
		}
		n := counted[c.name][0]
		rows = append(rows, row{
			fmt.Sprintf("%s: %s", whatPipeline, c.name),
			fmt.Sprintf("%s events/s; CPU %s s per 1,000 (this process %.2f, PostgreSQL %.2f, NATS %.2f); an event: %.2f statements "+
				"(BEGIN and COMMIT in a batch are not counted) and %.2f round trips in the producer's database, %.0f bytes of WAL", spread(all.each(c.name, pgResult.rate), "%.0f"),
				spread(all.each(c.name, cpuPer1000), "%.2f"),
				part(func(u usage) time.Duration { return u.self }), part(func(u usage) time.Duration { return u.postgres }),
				part(func(u usage) time.Duration { return u.nats }), n.per(float64(n.used.statements)), n.per(float64(n.used.trips)),
				median(all.each(c.name, func(r pgResult) float64 { return r.per(float64(r.used.wal)) }))), "",
		})
	}
	rows = append(rows, fullRateTargets(all, counted)...)
	return rows, s.plotFullRate(b, all)
}

func fullRateTargets(all, counted results) (rows []row) {
	for _, r := range []struct{ name, other, target string }{
		{"Pabal, Record", "the seed by hand", "≥ 3.5"}, {"Pabal, Record", "Watermill", "≥ 3"}, {"Pabal, Record", "River", "≥ 4"},
		{"Pabal, Record", "SKIP LOCKED poller", ""},
		{"Pabal, Record", "hand-tuned", "≥ 0.85"}, {"Pabal, Record", "hand-tuned, inbox rows", ""},
		{"Pabal, InTx", "hand-tuned", "≥ 1.0"}, {"Pabal, InTx", "hand-tuned, inbox rows", ""},
		{"hand-tuned, Pabal's rows", "hand-tuned", ""}, {"Pabal, Record", "hand-tuned, Pabal's rows", ""},
		{"Pabal, InTx", "hand-tuned, Pabal's rows", ""},
	} {
		rows = append(rows, row{"ratio of " + r.name + " to " + r.other, spread(all.ratio(r.name, r.other), "%.2f"), r.target})
	}
	for _, c := range pabals {
		rows = append(rows, row{"CPU seconds per 1,000 events, all processes, " + c.name, spread(all.each(c.name, cpuPer1000), "%.2f"), "≤ 0.35"})
	}
	const own = 3 // begin, the order, commit
	for _, c := range []struct{ name, target string }{{"Pabal, Record", "≤ 1.1"}, {"Pabal, InTx", "≤ 0.1"}} {
		n := counted[c.name][0]
		rows = append(rows, row{"round trips an event beside begin, the order and commit, " + c.name,
			fmt.Sprintf("%.2f", n.per(float64(n.used.trips))-own), c.target})
	}
	return rows
}

func (s *stand) plotFullRate(b *bench, all results) error {
	rate := bars{title: "record → three consumers → confirmed", axis: "events a second"}
	cpu := bars{title: "CPU, all processes, record → three consumers → confirmed", axis: "CPU seconds per 1,000 events",
		pieces: []piece{{name: "this process"}, {name: "PostgreSQL"}, {name: "nats-server"}}}
	rate.pieces = []piece{{}}
	for _, c := range field() {
		rates := all.each(c.name, pgResult.rate)
		rate.names, cpu.names = append(rate.names, c.name), append(cpu.names, c.name)
		rate.pieces[0].values = append(rate.pieces[0].values, median(rates))
		rate.low, rate.high = append(rate.low, quantile(rates, 0)), append(rate.high, quantile(rates, 1))
		for i, of := range []func(usage) time.Duration{
			func(u usage) time.Duration { return u.self }, func(u usage) time.Duration { return u.postgres },
			func(u usage) time.Duration { return u.nats },
		} {
			per := all.each(c.name, func(r pgResult) float64 { return r.per(1000 * of(r.used).Seconds()) })
			cpu.pieces[i].values = append(cpu.pieces[i].values, median(per))
		}
	}
	if err := b.save("rate", rate); err != nil {
		return err
	}
	return b.save("cpu", cpu)
}

// pgRates are events a second at which latency is measured.
var pgRates = []int{500, 3000}

// latencies measures from the return of COMMIT until a handler starts, of each of the three.
func (s *stand) latencies(ctx context.Context, b *bench) (rows []row, err error) {
	for _, rate := range pgRates {
		list := field()
		if rate == pgRates[0] { // at more it would fall behind
			list = append(list, promptRows)
		}
		all, err := s.rounds(ctx, b, pgLoad{each: b.each, rate: rate}, list...)
		if err != nil {
			return rows, err
		}
		chart := bars{title: fmt.Sprintf("commit → handler starts, %d events/s", rate), axis: "ms", log: true,
			pieces: []piece{{name: "median"}, {name: "99th percentile"}}}
		best := 0.0
		at := func(name string, q float64) []float64 {
			return all.each(name, func(r pgResult) float64 { return max(quantile(r.ms, q), 0.01) })
		}
		for i, c := range list {
			target := ""
			if i < len(pabals) && rate == pgRates[0] {
				target = "p50 ≤ 0.5 ms, p99 ≤ 2.5 ms"
			}
			p50, p99 := at(c.name, 0.5), at(c.name, 0.99)
			if m := median(p99); i >= len(pabals) && (best == 0 || m < best) {
				best = m
			}
			rows = append(rows, row{fmt.Sprintf("commit → handler starts, %d events/s: %s", rate, c.name),
				"p50 " + spread(p50, "%.2f") + " ms, p99 " + spread(p99, "%.2f") + " ms", target})
			chart.names = append(chart.names, c.name)
			chart.pieces[0].values = append(chart.pieces[0].values, median(p50))
			chart.pieces[1].values = append(chart.pieces[1].values, median(p99))
		}
		for _, c := range pabals {
			target := ""
			if rate == pgRates[1] {
				target = "≤ 1"
			}
			rows = append(rows, row{fmt.Sprintf("p99 at %d events/s against the best of the others, %s", rate, c.name),
				fmt.Sprintf("%.2f", median(at(c.name, 0.99))/best), target})
		}
		if err := b.save(fmt.Sprintf("latency-%d", rate), chart); err != nil {
			return rows, err
		}
	}
	return rows, nil
}
