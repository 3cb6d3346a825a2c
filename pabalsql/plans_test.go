package pabalsql

import (
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// The statements that run all the time, or whose table grows without bound. Each finds its rows by an index; what it may scan is
// a list that came with it, or a recursive query's own rows. What follows a "+" stands for conditions that vary.
var costly = []string{
	"take fresh", "take accepted", "take by id", "write decisions", "events by id", "skip events", "lock pending", "settle",
	"which recorded", "which pending", "delete pending", "published", "counters", "topics", "count waiting", "count parked", "probe",
	"prove", "forget events", "idle counters", "delete counters", "known", "cursors", "lock cursors", "busy keys", "waiting",
	"count held", "memory", "due", "take due", "due by id", "take due by id", "delete rows", "count state", "count overflowing",
	"consumers", "overflowing", "forget rows", "idle cursors", "delete cursors",
	"find+ e.id {list} order by e.recorded_at, e.id limit ?",
	"find+ e.recorded_at >= ? order by e.recorded_at, e.id limit ?",
	"find+ e.topic = ? and e.recorded_at >= ? and (e.recorded_at, e.id) > (?, ?) order by e.recorded_at, e.id limit ?",
	"find+ e.recorded_at <= ? and (e.recorded_at, e.id) < (?, ?) order by e.recorded_at desc, e.id desc limit ?",
	"count found+ true and e.topic = ? and e.recorded_at >= ? and e.recorded_at < ?",
	"all rows+ and i.id {list} order by i.source, i.topic, i.`key`, i.job, i.position, i.id limit ?",
	"rows+ and i.state = ? order by i.source, i.topic, i.`key`, i.job, i.position, i.id limit ?",
}

// costlyText is the text of a costly statement.
func costlyText(t *testing.T, s *Store, costly string) (name, text string) {
	t.Helper()
	name, more, _ := strings.Cut(costly, "+")
	text, err := s.statement(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, repeat(text, 3) + strings.ReplaceAll(more, "{list}", s.dialect.statements["in list"])
}

// harmless is what a plan may scan: lists of ids, subqueries, the topics, the one row of meta, and the keys that overflow.
var harmless = regexp.MustCompile(
	`^SCAN (json_each|j|v|w|want|busy|names|n|m|3 CONSTANT ROWS|\(subquery-\d+\)|pabal_topic|c USING INDEX pabal_cursor_over)( |$)`)

// loose are the recursive queries of sqlConsumers, which look one consumer up at a time.
var loose = regexp.MustCompile(`^SCAN [abc]$`)

// whole is a search that reads all that a consumer ever received, or all of its keys.
var whole = regexp.MustCompile(`^SEARCH (pabal_inbox|i|pabal_cursor|c) USING (PRIMARY KEY|INDEX pabal_(inbox|cursor)_age) \(consumer=\?\)`)

// sorted are those that sort what they find, which is bounded by their limit or by the number of topics or consumers.
var sorted = []string{"topics", "find+ e.id", "due by id", "take due by id", "consumers", "overflowing", "all rows+ and i.id"}

func TestCostlyStatementsUseAnIndex(t *testing.T) {
	db, s := openWatched(t)
	check := func(t *testing.T) {
		for _, one := range costly {
			name, statement := costlyText(t, s, one)
			if statement == "" {
				continue
			}
			plan := explain(t, db, statement)
			for _, step := range plan {
				if name == "consumers" && loose.MatchString(step) {
					continue
				}
				if strings.HasPrefix(step, "SCAN ") && !harmless.MatchString(step) || whole.MatchString(step) {
					t.Errorf("%s: %s\n  of\n  %s", name, step, strings.Join(plan, "\n  "))
				}
				if strings.Contains(step, "TEMP B-TREE FOR ORDER BY") && !slices.ContainsFunc(sorted, func(s string) bool { return strings.HasPrefix(one, s) }) {
					t.Errorf("%s sorts: %s", name, strings.Join(plan, "; "))
				}
				if strings.Contains(step, "AUTOMATIC") {
					t.Errorf("%s makes an index as it runs: %s", name, step)
				}
			}
		}
	}
	t.Run("empty", check)
	fill(t, db, s)
	t.Run("filled", check)
	if _, err := db.Exec("analyze"); err != nil {
		t.Fatal(err)
	}
	// Prepared before, a statement keeps its plan; a new connection sees the statistics.
	db.SetMaxIdleConns(0)
	t.Run("analyzed", check)
}

// fill records and receives some thousand events, of which some are unconfirmed.
func fill(t *testing.T, db *sql.DB, s *Store) {
	t.Helper()
	for batch := range 20 {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		events := make([]driver.Event, 100)
		rows := make([]driver.Row, len(events))
		for i := range events {
			e := &events[i]
			*e = driver.Event{ID: uuid.New(), Topic: fmt.Sprint("topic-", i%3), Type: "paid", Key: fmt.Sprint("o-", i%40)}
			key := driver.CursorKey{Source: "order", Topic: e.Topic, Key: e.Key}
			rows[i] = driver.Row{ID: e.ID, CursorKey: key, Type: e.Type, Position: int64(batch*100 + i + 1),
				RecordedAt: time.Now(), SentAt: time.Now(), State: driver.RowState(i % 40 / 38), NextAt: time.Now()}
		}
		if err := s.Record(t.Context(), tx, driver.Recording{Events: events, Outcome: func(driver.CommitState) {}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Inbox().Save(t.Context(), tx, driver.Save{Consumer: fmt.Sprint("consumer-", batch%2), Rows: rows}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		refs := make([]driver.Ref, 90)
		for i := range refs {
			refs[i] = events[i].Ref()
		}
		if _, err := s.Confirm(t.Context(), refs); err != nil {
			t.Fatal(err)
		}
	}
}

var parameter = regexp.MustCompile(`\?(\d*)`)

// explain answers the steps of a statement's plan.
func explain(t *testing.T, db *sql.DB, statement string) (steps []string) {
	t.Helper()
	n := 0
	for _, match := range parameter.FindAllStringSubmatch(statement, -1) {
		number := n + 1
		if match[1] != "" {
			if _, err := fmt.Sscan(match[1], &number); err != nil {
				t.Fatal(err)
			}
		}
		n = max(n, number)
	}
	rows, err := db.QueryContext(t.Context(), "explain query plan "+statement, make([]any, n)...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}
