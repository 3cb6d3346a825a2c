package main

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalsql"
)

// followed is a tail of a database whose events the test records when it likes.
func followed(t *testing.T) (f *tail, db *sql.DB, out *bytes.Buffer, record func(key string, n int, ago time.Duration)) {
	t.Helper()
	db, err := pabalsql.OpenSQLite(filepath.Join(t.TempDir(), "order.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := pabal.Operate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	out = &bytes.Buffer{}
	followed := tail{a: &app{ctx: t.Context(), stdout: out, log: slog.New(slog.DiscardHandler)}, o: o, c: &tailCommand{}, seen: map[uuid.UUID]time.Time{}}
	return &followed, db, out, func(key string, n int, ago time.Duration) { fill(t, db, key, n, now.Add(-ago)) }
}

func fill(t *testing.T, db *sql.DB, key string, n int, at time.Time) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), `with recursive n (i) as (select 1 union all select i + 1 from n where i < ?)
		insert into pabal_event (id, topic, type, key, content_type, version, payload, traceparent, recorded_at, position)
		select randomblob(16), 'paid', 'paid', ?, 'application/json', '', '{}', '', ? + i, 0 from n`, n, key, at.UnixMicro())
	if err != nil {
		t.Fatal(err)
	}
}

// Where much is recorded, most looks go back 2 s only: the event of a transaction that was open for longer, up to 30 s, comes with one of the
// next ten, however far the newest has gone on by then.
func TestTailLooksBackLessWhereThereIsMuch(t *testing.T) {
	for _, much := range []bool{false, true} {
		tail, _, out, record := followed(t)
		if record("first", 10, 20*time.Second); much {
			record("many", page+1, 20*time.Second)
		}
		record("newest", 1, 0)
		if err := tail.begin(); err != nil {
			t.Fatal(err)
		}
		record("late", 1, 25*time.Second)
		record("soon", 1, time.Second)
		next := func() string {
			out.Reset()
			if err := tail.next(); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		said := next()
		if !strings.Contains(said, "soon") || strings.Contains(said, "late") == much || strings.Contains(said, "many") {
			t.Errorf("with much %v the next look shows %q", much, said)
		}
		for n := range tailWhole {
			record("newer", 1, -time.Duration(n)*time.Second)
			said += next()
		}
		if strings.Count(said, "late") != 1 || strings.Count(said, "soon") != 1 {
			t.Errorf("with much %v ten looks show %q", much, said)
		}
	}
}

// A database that is away for a while ends no tail: each thing that is wrong is told once, and that it is over.
func TestTailGoesOnWhenTheDatabaseIsBack(t *testing.T) {
	tail, db, out, record := followed(t)
	var log bytes.Buffer
	tail.a.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tail.a.ctx = ctx
	if err := tail.begin(); err != nil {
		t.Fatal(err)
	}
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		tail.follow(ticks)
	}()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(ctx, "pragma legacy_alter_table = on; "+statement); err != nil { // views may stay as they are
			t.Fatal(err)
		}
	}
	look := func() {
		t.Helper()
		select {
		case ticks <- time.Time{}:
		case <-done:
			t.Fatalf("it ended: %s", &log)
		}
	}
	exec("alter table pabal_event rename to away")
	look()
	look()
	look()
	exec("alter table away rename to pabal_event")
	record("after", 1, 0)
	look()
	look()
	stop()
	<-done
	if said := log.String(); strings.Count(said, "events cannot be read, trying again") != 1 || strings.Count(said, "no such table") != 1 ||
		strings.Count(said, "events are read again") != 1 {
		t.Errorf("it said %s", said)
	}
	if strings.Count(out.String(), "after") != 1 {
		t.Errorf("it shows %q", out)
	}
}
