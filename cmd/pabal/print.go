package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// answer prints what a command has found: as JSON, or as table writes it, its columns parted by tabs.
func (a *app) answer(value any, table func(w io.Writer)) error {
	if a.json {
		return printJSON(a.stdout, value)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // commands have arrows and ampersands in them
	return e.Encode(value)
}

// emptyNotNil is a list that JSON shows as one, not as null.
func emptyNotNil[S ~[]E, E any](list S) S {
	if list == nil {
		return S{}
	}
	return list
}

// said prints what a command has done: as JSON, or in a sentence.
func (a *app) said(value any, format string, args ...any) error {
	return a.answer(value, func(w io.Writer) { _, _ = fmt.Fprintf(w, format+"\n", args...) })
}

// row writes a line of a table.
func row(w io.Writer, columns ...any) {
	for i, c := range columns {
		if i > 0 {
			_, _ = io.WriteString(w, "\t")
		}
		_, _ = fmt.Fprint(w, c)
	}
	_, _ = io.WriteString(w, "\n")
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

// moment is a time on a command line: RFC 3339, or how long ago.
type moment struct{ time.Time }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *moment) UnmarshalText(text []byte) error {
	if d, err := time.ParseDuration(string(text)); err == nil && d >= 0 {
		m.Time = time.Now().Add(-d).UTC()
		return nil
	}
	t, err := time.Parse(time.RFC3339, string(text))
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 { // which neither JSON nor every database can hold
		return fmt.Errorf("%q is no time: give RFC 3339, such as 2026-01-02T03:04:05Z, or how long ago, such as 90m", text)
	}
	m.Time = t.UTC()
	return nil
}

// checkSpan refuses a --from and an --until with nothing between them.
func checkSpan(from, until moment) error {
	if from.IsZero() || until.IsZero() || from.Before(until.Time) {
		return nil
	}
	return usage("--from %s is not before --until %s: nothing lies between them", from.Format(time.RFC3339), until.Format(time.RFC3339))
}
