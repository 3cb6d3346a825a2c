package pabalsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// Statements of both dialects have the same names, and as many placeholders: Go's code has one call for both.
func TestDialectsHaveTheSameStatements(t *testing.T) {
	for name, text := range sqlite.statements {
		other, known := mysql.statements[name]
		if !known {
			t.Errorf("MySQL has no statement %q", name)
		}
		if text == "" || other == "" {
			continue
		}
		if is, want := strings.Count(other, "?"), strings.Count(text, "?"); is != want {
			t.Errorf("%q has %d placeholders for MySQL, %d for SQLite", name, is, want)
		}
	}
	if is, want := len(mysql.statements), len(sqlite.statements); is != want {
		t.Errorf("%d statements for MySQL, %d for SQLite", is, want)
	}
	for _, d := range []*dialect{&mysql, &sqlite} {
		for name, text := range d.statements {
			if open := regexp.MustCompile(`\{[^p][^}]*\}`).FindString(text); open != "" {
				t.Errorf("%s: %q has %s open", d.name, name, open)
			}
		}
	}
}

func recordIn(ctx context.Context, s *Store, tx *sql.Tx, topic string, keys ...string) ([]driver.Event, error) {
	events := make([]driver.Event, len(keys))
	for i, key := range keys {
		events[i] = driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: topic, Type: "paid", Key: key, Payload: []byte("{}")}
	}
	return events, s.Record(ctx, tx, driver.Recording{Events: events, Outcome: func(driver.CommitState) {}})
}

// recorded commits events in a transaction of its own, at the default isolation.
func recorded(ctx context.Context, s *Store, topic string, keys ...string) ([]driver.Event, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	events, err := recordIn(ctx, s, tx, topic, keys...)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return events, tx.Commit()
}

// What Pabal holds locked in its own transactions keeps no recorder waiting, at REPEATABLE READ, the default, neither of the
// same topics nor of others, neither of known keys nor of new ones (P3).
func TestPabalsOwnTransactionsBlockNoRecorder(t *testing.T) {
	db, s := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	var level string
	if err := db.QueryRow("select @@tx_isolation").Scan(&level); err != nil || level != "REPEATABLE-READ" {
		t.Fatalf("the default isolation is %s, %v", level, err)
	}
	ctx := t.Context()
	var old []driver.Event
	for _, topic := range []string{"a", "paid", "z"} {
		events, err := recorded(ctx, s, topic, "k1", "k2", "k3", "")
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, events...)
	}
	n := 0
	beside := func(t *testing.T) {
		t.Helper()
		beside, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		n++
		for _, topic := range []string{"0", "a", "b", "paid", "paie", "z", "zz"} {
			if _, err := recorded(beside, s, topic, "k1", "k2", fmt.Sprint("new", n), "k0", "k9", ""); err != nil {
				t.Errorf("record to %s: %v", topic, err)
			}
		}
	}
	ids := hexIDs(old, func(e *driver.Event) uuid.UUID { return e.ID })
	now := time.Now().Add(time.Hour).UnixMicro()
	none := func(*sql.Rows) error { return nil }
	for name, hold := range map[string]func(tx *sql.Tx) error{
		"claim":          func(tx *sql.Tx) error { return s.query(ctx, tx, none, "take fresh", "paid", 0, now, 100) },
		"claim, limited": func(tx *sql.Tx) error { return s.query(ctx, tx, none, "take fresh", "paid", 0, now, 2) },
		"claim accepted": func(tx *sql.Tx) error { return s.query(ctx, tx, none, "take accepted", "paid", 0, now, now, 2) },
		"claim by id":    func(tx *sql.Tx) error { return s.query(ctx, tx, none, "take by id", ids) },
		"settle": func(tx *sql.Tx) error {
			_, err := s.exec(ctx, tx, "settle", now, jsonText([][6]any{{hexText(string(old[0].ID[:])), 0, 1, 0, 7, ""}}))
			return err
		},
		"confirm": func(tx *sql.Tx) error {
			_, err := s.exec(ctx, tx, "delete pending", ids)
			if err == nil {
				_, err = s.exec(ctx, tx, "published", now, ids)
			}
			return err
		},
		"forget": func(tx *sql.Tx) error { _, err := s.exec(ctx, tx, "forget events", now, 1000); return err },
	} {
		t.Run(name, func(t *testing.T) {
			undo := errors.New("undo")
			err := s.write(ctx, func(tx *sql.Tx) error {
				if err := hold(tx); err != nil {
					return err
				}
				beside(t)
				return undo
			})
			if !errors.Is(err, undo) {
				t.Error(err)
			}
		})
	}
}

// A transaction that has read before reads from a snapshot, at REPEATABLE READ. What Pabal locks in it, it reads as it is now.
func TestWhatIsLockedIsReadAsItIsNow(t *testing.T) {
	db, s := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	ctx, b := t.Context(), s.Inbox()
	first, err := recorded(ctx, s, "paid", "a")
	if err != nil {
		t.Fatal(err)
	}
	arrival := driver.Row{CursorKey: driver.CursorKey{Source: "order", Topic: "paid", Key: "a"}, ID: uuid.Must(uuid.NewV7()), Type: "paid",
		Position: 7, RecordedAt: time.Now(), SentAt: time.Now()}
	load := driver.Load{Consumer: "settlement", Arrivals: []driver.Row{arrival}, Keys: []driver.CursorKey{arrival.CursorKey}, Waiting: 1}
	early, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Rollback() //nolint:errcheck // of a test
	for _, table := range []string{"event", "counter", "inbox", "cursor"} {
		if _, err := early.ExecContext(ctx, "select count(*) from pabal_"+table); err != nil {
			t.Fatal(err)
		}
	}
	second, err := recorded(ctx, s, "paid", "a")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := b.Begin(ctx)
	if err == nil {
		_, err = b.Load(ctx, tx, load)
	}
	if err == nil {
		err = b.Save(ctx, tx, driver.Save{Consumer: "settlement", Cursors: []driver.Cursor{{CursorKey: arrival.CursorKey, Begun: true,
			Last: driver.Ref{ID: arrival.ID, Position: 7, RecordedAt: arrival.RecordedAt}}}})
	}
	if err == nil {
		err = b.End(ctx, tx, driver.Commit)
	}
	if err != nil {
		t.Fatal(err)
	}
	third, err := recordIn(ctx, s, early, "paid", "a")
	if err != nil {
		t.Fatal(err)
	}
	if second[0].Prev.ID != first[0].ID || third[0].Prev.ID != second[0].ID || third[0].Position != first[0].Position+2 {
		t.Errorf("position %d, behind %d and %d, prev %+v", third[0].Position, first[0].Position, second[0].Position, third[0].Prev)
	}
	loaded, err := b.Load(ctx, early, load)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Known[0] == nil || loaded.Known[0].ID != arrival.ID {
		t.Errorf("a duplicate counts as new: %+v", loaded.Known)
	}
	if c := loaded.Cursors[0]; !c.Begun || c.Last.Position != 7 {
		t.Errorf("the cursor is as it was: %+v", c)
	}
}

// Transactions that record different keys do not wait for each other.
func TestRecordersOfOtherKeysDoNotWait(t *testing.T) {
	db, s := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	for range 2 { // of new keys, then of known ones
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var open []*sql.Tx
		for i := range 20 {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := recordIn(ctx, s, tx, "paid", fmt.Sprintf("k%02d", i*7%20), ""); err != nil {
				t.Fatalf("transaction %d: %v", i, err)
			}
			open = append(open, tx)
		}
		for _, tx := range open {
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDangerousSettingsAreRefusedByName(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	for parameters, name := range map[string]string{
		"autocommit=0": "autocommit", "tx_isolation=%27READ-UNCOMMITTED%27": "transaction_isolation", "sql_mode=%27%27": "sql_mode",
		"sql_mode=%27STRICT_TRANS_TABLES,ANSI_QUOTES%27": "", "tx_isolation=%27READ-COMMITTED%27": "", "tx_isolation=%27SERIALIZABLE%27": "",
	} {
		db, err := OpenMySQL(m.Database(t, parameters), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // of a test
		s, err := New(db, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Open(t.Context(), "order")
		if name == "" && !errors.Is(err, driver.ErrSchema) || name != "" && (err == nil || !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v", parameters, err)
		}
	}
	for _, bad := range []string{"", "x", "root@tcp(127.0.0.1:1)/", "mysql://127.0.0.1:1/", "mysql://u:se%zz@127.0.0.1:1/x", "x://y"} {
		if _, err := OpenMySQL(bad, nil); err == nil || strings.Contains(err.Error(), "se%zz") {
			t.Errorf("address %q: %v", bad, err)
		}
	}
	if _, err := OpenMySQL("u@tcp(h:1)/x", &MySQLOptions{MaxConns: 3}); err == nil || !strings.Contains(err.Error(), "MaxConns") {
		t.Errorf("three connections: %v", err)
	}
	config, err := mysqlConfig("mariadb://us%40er:p%2Fw:@[::1]/na-me?timeout=3s")
	if err != nil || config.User != "us@er" || config.Passwd != "p/w:" || config.Addr != "[::1]:3306" || config.DBName != "na-me" ||
		config.Timeout != 3*time.Second {
		t.Errorf("a URL is read as %+v, %v", config, err)
	}
}

// explained are a statement's arguments in a plan: a list, a limit, anything else.
var explained = strings.NewReplacer("json_table(?", `json_table('[["31","32","33","34"]]'`, "limit ?", "limit 10", "?", "'1'")

// In the plans of MariaDB and MySQL: tables that are small whatever happens; lists, and a recursive query's own rows.
var mysqlSmall = []string{"pabal_meta", "m", "pabal_topic", "t", "pabal_consumer", "j", "n", "busy", "me", "clock"}

func TestCostlyStatementsUseAnIndexOnMariaDB(t *testing.T) {
	db, s := openServer(t, servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}))
	counted := false // InnoDB counts by itself, a while after a table has grown
	check := func(t *testing.T) {
		for _, one := range costly {
			if one == "consumers" && !counted {
				continue
			}
			_, text := costlyText(t, s, one)
			if text == "" {
				continue
			}
			for _, step := range mysqlPlan(t, db, explained.Replace(text)) {
				switch {
				case slices.Contains(mysqlSmall, step.table) || strings.HasPrefix(step.table, "<") || step.table == "":
				case step.kind == "ALL" || step.kind == "index" && step.key == "PRIMARY":
					t.Errorf("%s reads all of %s (%s): %s", one, step.table, step.kind, text)
				case step.kind == "index" && step.table != "pabal_pending": // of ten rows; see below
					t.Errorf("%s reads all of the index %s of %s", one, step.key, step.table)
				}
				if strings.Contains(step.extra, "filesort") && !slices.ContainsFunc(sorted, func(s string) bool { return strings.HasPrefix(one, s) }) &&
					!strings.HasPrefix(one, "rows+") { // sorts the waiting rows
					t.Errorf("%s sorts: %+v", one, step)
				}
			}
		}
	}
	fillServer(t, db, s)
	t.Run("100,000 confirmed and 10 pending", check)
	must(t, db, "analyze table pabal_event, pabal_pending, pabal_inbox, pabal_cursor, pabal_counter")
	counted = true
	t.Run("analyzed", check)
	// An outage: the idle sweep costs a few lookups, however many rows wait.
	must(t, db, "insert ignore into pabal_pending (id, recorded_at, topic, due_at) select id, recorded_at, topic, recorded_at from pabal_event",
		"analyze table pabal_pending")
	t.Run("100,000 pending", check)
	db.SetMaxOpenConns(1) // the counts are of a connection
	must(t, db, "flush status")
	if r, err := s.Read(t.Context(), driver.Query{Topics: true}); err != nil || len(r.Topics) != 3 {
		t.Fatalf("%d topics, %v", len(r.Topics), err)
	}
	var reads int
	if err := db.QueryRow("select sum(variable_value) from information_schema.session_status where variable_name like 'HANDLER_READ%'").
		Scan(&reads); err != nil || reads > 100 {
		t.Errorf("an idle sweep reads %d rows, %v", reads, err)
	}
}

// manyNumbers is a table of the numbers n from 0 to 99,999.
var manyNumbers = func() string {
	const digits = "(select 0 d union all select 1 union all select 2 union all select 3 union all select 4 " +
		"union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)"
	return "(select a.d + 10*b.d + 100*c.d + 1000*d.d + 10000*e.d as n from " + digits + " a, " + digits + " b, " + digits + " c, " +
		digits + " d, " + digits + " e) x"
}()

// fillServer has 100,000 confirmed and 10 pending events of 1,000 keys, and as many inbox rows done, and 10 held.
func fillServer(t *testing.T, db *sql.DB, s *Store) {
	t.Helper()
	must(t, db,
		"insert into pabal_event (id, topic, type, `key`, content_type, version, payload, traceparent, recorded_at, position, published_at) "+
			"select unhex(lpad(hex(n), 32, '0')), concat('topic-', n % 3), 'paid', concat('k', n % 1000), '', '', '{}', '', n, n, n from "+manyNumbers,
		"insert into pabal_counter (topic, `key`, position, last_id, last_at) select topic, `key`, max(position), max(id), max(recorded_at) "+
			"from pabal_event group by topic, `key`",
		"insert into pabal_inbox (consumer, source, id, job, topic, `key`, type, position, recorded_at, sent_at, received_at, state, next_at) "+
			"select 'settlement', 'order', id, repeat(x'00', 16), topic, `key`, type, position, recorded_at, 0, 0, position % 10000 = 7, "+
			"case when position % 10000 = 7 then 5 end from pabal_event",
		"insert into pabal_cursor (consumer, source, topic, `key`, job, begun, last_id, last_position, last_at, moved_at) "+
			"select 'settlement', 'order', topic, `key`, repeat(x'00', 16), 1, last_id, position, last_at, 0 from pabal_counter",
	)
	if _, err := recorded(t.Context(), s, "topic-1", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"); err != nil {
		t.Fatal(err)
	}
}

type planStep struct{ table, kind, key, extra string }

func mysqlPlan(t *testing.T, db *sql.DB, statement string) (steps []planStep) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "explain "+statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		of := func(name string) string { return values[slices.Index(names, name)].String }
		steps = append(steps, planStep{of("table"), of("type"), of("key"), of("Extra")})
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// P2: what a caller commits although Record failed in its midst is never claimed without being in the table.
func TestRecordThatFailedAndIsCommittedLeavesNothingToPublish(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	for name, as := range map[string]func(*Store) *Store{"MariaDB": func(s *Store) *Store { return s }, "MySQL": AsMySQL} {
		for _, key := range []string{"", "k1"} {
			t.Run(fmt.Sprintf("%s, key %q", name, key), func(t *testing.T) {
				db, s := openServer(t, m)
				s = as(s)
				tx, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				e := driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: strings.Repeat("x", 129), Key: key, Payload: []byte("{}")}
				err = s.Record(t.Context(), tx, driver.Recording{Events: []driver.Event{e}, Outcome: func(driver.CommitState) {}})
				if err == nil {
					t.Fatal("a type that does not fit its column was recorded")
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
				got, err := s.Claim(t.Context(), driver.Selection{IDs: []driver.Ref{{ID: e.ID}}, Decide: func(_ time.Time, rows []driver.Pending) (all []driver.Decision) {
					for _, row := range rows {
						all = append(all, driver.Decision{Pending: row})
					}
					return all
				}})
				if len(got) != 0 || err != nil {
					t.Errorf("claimed %+v, %v", got, err)
				}
			})
		}
	}
}
