package pabalsql

import (
	"embed"
	"fmt"
	"strings"
)

// The SQL of a dialect is a folder with its statements, each under a line "-- name: x", and fragments that stand in them in
// braces, each under a line "-- fragment: x". Every dialect has the same names, with the same placeholders in the same order;
// a statement without text is one that its database does not need, and is not sent. In a statement a tuple of placeholders
// that is followed by "..." is repeated for every row, with commas, or, as "...or" says, with that word between them.
//
//go:embed sql
var statementFiles embed.FS

// columns stand in statements in braces; the functions that scan rows read them in this order.
var columns = map[string]string{
	"pending": "p.id, p.recorded_at, p.topic, p.due_at, p.claims, p.crashes, p.failures, p.accepted_at, p.sent_at, p.last_error",
	"event": "e.id, e.topic, e.type, e.`key`, e.content_type, e.version, e.payload, e.headers, e.traceparent, e.recorded_at, " +
		"e.position, e.prev_id, e.prev_position, e.prev_at, e.bare, e.skipped, e.published_at",
	"row": "i.id, i.source, i.topic, i.`key`, i.job, i.type, i.position, i.prev_id, i.prev_position, i.prev_at, i.recorded_at, " +
		"i.sent_at, i.state, i.reason, i.next_at, i.failures, i.started, i.last_error, i.body, i.received_at",
	"cursor": "c.begun, c.began, c.last_id, c.last_position, c.last_at, c.over_id, c.over_position, c.over_at, c.moved_at",
}

// readStatements reads the SQL of a dialect; only the table prefix is still open in it.
func readStatements(dialect string) map[string]string {
	statements, open := map[string]string{}, []string{}
	for name, text := range columns {
		open = append(open, "{"+name+"}", text)
	}
	for _, file := range []string{"store", "inbox"} {
		text, err := statementFiles.ReadFile("sql/" + dialect + "/" + file + ".sql")
		if err != nil {
			panic(err) // of what is compiled in
		}
		name, fragment := "", false
		for line := range strings.Lines(string(text)) {
			switch {
			case strings.HasPrefix(line, "-- name: "):
				name, fragment = strings.TrimSpace(line[len("-- name: "):]), false
				statements[name] = ""
			case strings.HasPrefix(line, "-- fragment: "):
				name, fragment = strings.TrimSpace(line[len("-- fragment: "):]), true
				open = append(open, "{"+name+"}", "")
			case strings.HasPrefix(line, "--") || name == "":
			case fragment:
				open[len(open)-1] += line
			default:
				statements[name] += line
			}
		}
	}
	for i := 1; i < len(open); i += 2 {
		open[i] = strings.TrimSpace(open[i])
	}
	fill := strings.NewReplacer(open...)
	for name, text := range statements {
		statements[name] = fill.Replace(strings.TrimSuffix(strings.TrimSpace(text), ";"))
	}
	return statements
}

// repeat writes a statement for n rows.
func repeat(text string, n int) string {
	head, tail, found := strings.Cut(text, "...")
	if !found {
		return text
	}
	between := ", "
	if rest, or := strings.CutPrefix(tail, "or"); or {
		between, tail = " or ", rest
	}
	return head + strings.Repeat(between+lastTuple(head), n-1) + tail
}

// lastTuple returns what a text ends with, from the parenthesis on that belongs to its last.
func lastTuple(text string) string {
	open := 0
	for i := len(text) - 1; i >= 0; i-- {
		switch text[i] {
		case ')':
			open++
		case '(':
			open--
		}
		if open == 0 {
			return text[i:]
		}
	}
	return text
}

// batches reports whether a statement takes many rows at once.
func batches(text string) bool { return strings.Contains(text, "...") }

// statement returns a statement of the store's dialect, with its table names; "" if the database does not need it.
func (s *Store) statement(name string) (string, error) {
	text, known := s.dialect.statements[name]
	if !known {
		return "", fmt.Errorf("pabalsql: no statement %q for %s", name, s.dialect.name)
	}
	return s.text(text), nil
}
