package pabalpgx

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// The statements that run all the time, or whose table grows without bound. Each finds its rows by an index.
var costly = map[string]string{
	"record":                 sqlRecord,
	"record without keys":    sqlRecordLoose,
	"record one":             sqlRecordOne,
	"record one without key": sqlRecordOneLoose,
	"claim due":              sqlDueFresh,
	"claim due and accepted": sqlDueAccepted,
	"claim by id":            sqlPendingByID,
	"write a claim":          sqlUpdatePending,
	"events of a claim":      sqlEventsByRef,
	"mark skips":             sqlSkipEvents,
	"settle":                 sqlSettle,
	"confirm":                sqlConfirm,
	"confirm pending":        sqlConfirmPending,
	"sweep":                  sqlTopics,
	"count waiting":          sqlCountWaiting,
	"count parked":           sqlCountParked,
	"forget by rows":         sqlForgetDefault,
	"forget counters":        sqlForgetCounters,
	"find: pending ids":      sqlFindPendingIDs,
	"find: near ids":         sqlFindNear,
	"find: published":        sqlPublishedByRef,
	"find: unconfirmed":      sqlFindPending + "true order by e.recorded_at, e.id limit $1::bigint",
	"find: page":             sqlFind + "e.recorded_at >= $1::timestamptz and (e.recorded_at, e.id) > ($1::timestamptz, $2::uuid) order by e.recorded_at, e.id limit $3::bigint",
	"find: last page":        sqlFind + "true order by e.recorded_at desc, e.id desc limit $1::bigint",
	"find: count":            sqlCountFound + "e.recorded_at >= $1::timestamptz and e.recorded_at < $2::timestamptz",
	"inbox: all of ids": "select " + rowColumns + " from {p}inbox i where i.consumer = $1::text and i.id = any ($2::text[]::uuid[]) " +
		"order by i.source, i.topic, i.key, i.job, i.position, i.id limit $3::bigint",
	"inbox: arrivals":          sqlInsertArrivals,
	"inbox: arrival":           sqlInsertArrival,
	"inbox: known":             sqlKnown,
	"inbox: read cursors":      sqlReadCursors,
	"inbox: waiting":           sqlWaiting,
	"inbox: count held":        sqlCountHeld,
	"inbox: any due":           sqlAnyDue,
	"inbox: due":               sqlDue,
	"inbox: due by id":         sqlDueByID,
	"inbox: delete":            sqlDeleteRows,
	"inbox: count state":       sqlCountState,
	"inbox: count overflowing": sqlCountOver,
	"inbox: consumers":         sqlConsumers,
	"inbox: forget rows":       sqlForgetRows,
	"inbox: forget cursors":    sqlForgetCursors,
}

// wholeTable is what no plan may do; on a day without events it is all the same.
var wholeTable = regexp.MustCompile(`Seq Scan on pabal_((event|published)_` + time.Now().UTC().Format("20060102") + `|pending|counter|inbox|cursor)\b`)

// ofOurOwn run in transactions of the store's own.
var ofOurOwn = map[string]bool{
	"claim due": true, "claim due and accepted": true, "claim by id": true, "write a claim": true, "events of a claim": true,
	"mark skips": true, "settle": true, "confirm": true, "confirm pending": true, "forget by rows": true, "forget counters": true, "inbox: due": true,
	"inbox: due by id": true, "inbox: delete": true, "inbox: forget rows": true, "inbox: forget cursors": true,
}

// oldest are those that run with sqlInOrder; they and pages find rows in the order in which they answer them.
var (
	oldest  = []string{"claim due", "claim due and accepted", "inbox: due"}
	pages   = []string{"find: page", "find: last page"}
	sorting = regexp.MustCompile(`(?m)^[ >-]*Sort$`)
)

func TestCostlyStatementsUseAnIndex(t *testing.T) {
	pool, b := filled(t)
	check := func(t *testing.T) {
		for name, query := range costly {
			var settings []string
			if ofOurOwn[name] {
				settings = []string{strings.Replace(sqlByIndex, "local ", "", 1), strings.Replace(sqlInOrder, "local ", "", 1)}
			}
			plan := explain(t, pool, settings, b.text(query))
			if found := wholeTable.FindString(plan); found != "" && !(strings.HasPrefix(name, "find:") && strings.HasSuffix(found, "pending")) {
				t.Errorf("%s: %s\n%s", name, found, plan)
			}
			if (slices.Contains(oldest, name) || slices.Contains(pages, name)) && sorting.MatchString(plan) {
				t.Errorf("%s sorts:\n%s", name, plan)
			}
		}
	}
	t.Run("right after a bulk load", check)
	if _, err := pool.Exec(t.Context(), "analyze"); err != nil {
		t.Fatal(err)
	}
	t.Run("analyzed", check)
	t.Run("with a snapshot held open", func(t *testing.T) {
		hold(t, pool)
		check(t)
	})
}

// hold opens a snapshot from which on no row that goes is removed, and has 100,000 pending rows come and go.
func hold(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	reader, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Rollback(context.Background()) })
	if _, err := reader.Exec(t.Context(), "select count(*) from pabal_pending"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`insert into pabal_pending (id, recorded_at, topic, due_at, last_error) select gen_random_uuid(), at, 'topic-' || n % 5, at, 'gone'
			from (select n, clock_timestamp() - n * interval '1 ms' as at from generate_series(1, 100000) n) past`,
		`delete from pabal_pending where last_error = 'gone'`,
		"vacuum pabal_pending",
		"analyze",
	} {
		if _, err := pool.Exec(t.Context(), text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

var buffers = regexp.MustCompile(`Buffers: shared hit=(\d+)(?: read=(\d+))?`)

// Rows that are gone and cannot be removed yet cost the sweep nothing, nor a claim: with a mark of the work list behind them,
// neither reads more pages than a few for each topic.
func TestHeldSnapshotCostsNoSweep(t *testing.T) {
	pool, b := filled(t)
	if _, err := pool.Exec(t.Context(), "update pabal_pending set due_at = clock_timestamp() + interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	hold(t, pool)
	for _, c := range []struct{ name, query, arguments string }{
		{"sweep", sqlTopics, "(clock_timestamp())"},
		{"claim due", sqlDueFresh, "('topic-1', clock_timestamp(), 256)"},
	} {
		plan := explained(t, pool, "analyze, buffers, costs off, timing off", nil, b.text(c.query), c.arguments)
		pages := pagesOf(plan)
		t.Logf("%s: %d pages", c.name, pages)
		if pages > 150 {
			t.Errorf("%s reads %d pages:\n%s", c.name, pages, plan)
		}
	}
}

// A consumer's rows are looked up one by one, also in tables without statistics, of which the planner thinks that they hold few
// rows of each consumer.
func TestPlacingReadsNoOtherRows(t *testing.T) {
	pool, b := migrated(t)
	for _, text := range []string{
		"alter table pabal_inbox set (autovacuum_enabled = off)",
		"alter table pabal_cursor set (autovacuum_enabled = off)",
		`insert into pabal_inbox (consumer, source, id, job, recorded_at, sent_at, received_at, position, state, topic, key, type)
			select 'settlement', 'order', gen_random_uuid(), '00000000-0000-0000-0000-000000000000', now(), now(), now(), n, 0, 'paid', 'A' || n, 'paid'
			from generate_series(1, 10000) n`,
		`insert into pabal_cursor (consumer, source, topic, key, job, begun, last_position, last_id, last_at, moved_at, last_day)
			select consumer, source, topic, key, job, true, position, id, recorded_at, recorded_at, recorded_at from pabal_inbox`,
	} {
		if _, err := pool.Exec(t.Context(), text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	const arrived = 76
	rows, err := pool.Query(t.Context(), "select id::text, key from pabal_inbox order by position limit $1", arrived)
	if err != nil {
		t.Fatal(err)
	}
	keys, id, source, job := make([]driver.CursorKey, 0, arrived), []string{}, []string{}, []string{}
	for rows.Next() {
		k := driver.CursorKey{Source: "order", Topic: "paid"}
		var one string
		if err := rows.Scan(&one, &k.Key); err != nil {
			t.Fatal(err)
		}
		keys, id, source, job = append(keys, k), append(id, one), append(source, k.Source), append(job, k.Job.String())
	}
	if err := rows.Err(); err != nil || len(keys) != arrived {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for name, c := range map[string]struct {
		query string
		args  []any
	}{
		"lock cursors": {sqlLockCursors, keyArgs("settlement", keys)},
		"read cursors": {sqlReadCursors, keyArgs("settlement", keys)},
		"cursors":      {sqlCursors, keyArgs("settlement", keys)},
		"waiting":      {sqlWaiting, keyArgs("settlement", keys, 101)},
		"known":        {sqlKnown, []any{"settlement", id, source, job}},
	} {
		lines, err := pool.Query(t.Context(), "explain (analyze, buffers, costs off, timing off) "+b.text(c.query), c.args...)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(lines, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := pagesOf(strings.Join(plan, "\n")); n > 8*arrived {
			t.Errorf("%s reads %d pages for %d events:\n%s", name, n, arrived, strings.Join(plan, "\n"))
		}
		for _, line := range plan {
			if m := rowsOf.FindStringSubmatch(line); m != nil {
				if n, _ := strconv.ParseFloat(m[1], 64); n > arrived { // digits only
					t.Errorf("%s reads %s rows for %d events:\n%s", name, m[1], arrived, strings.Join(plan, "\n"))
				}
			}
		}
	}
}

// rowsOf is how many rows a node of a plan answered.
var rowsOf = regexp.MustCompile(`actual rows=([0-9.]+)`)

// pagesOf is how many pages the whole of a plan read.
func pagesOf(plan string) (pages int) {
	for _, n := range buffers.FindStringSubmatch(plan)[1:] {
		some, _ := strconv.Atoi(n) // digits, or nothing
		pages += some
	}
	return pages
}

// The database compiles a statement that it thinks expensive (jit_above_cost), which takes it longer than any of these runs.
func TestNoStatementIsCompiled(t *testing.T) {
	check := func(t *testing.T, pool *pgxpool.Pool, b *base) {
		for name, query := range costly {
			var settings []string
			if name == "sweep" {
				settings = []string{strings.Replace(sqlNoJIT, "local ", "", 1)}
			}
			if plan := explainWith(t, pool, "costs on", settings, b.text(query)); strings.Contains(plan, "JIT:") {
				t.Errorf("%s is compiled:\n%s", name, plan)
			}
		}
	}
	t.Run("in new tables", func(t *testing.T) {
		pool, b := migrated(t)
		check(t, pool, b)
	})
	t.Run("in full ones", func(t *testing.T) {
		pool, b := filled(t)
		check(t, pool, b)
	})
}

// texts remembers what is sent in batches.
type texts struct{ sent []string }

func (*texts) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (t *texts) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	t.sent = append(t.sent, d.SQL)
}

func (*texts) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (*texts) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (*texts) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The sweep reads tables that nobody analyzes: it says itself that it is not to be compiled.
func TestSweepIsNeverCompiled(t *testing.T) {
	pool, _ := migrated(t)
	seen := &texts{}
	cfg := pool.Config()
	cfg.ConnConfig.Tracer = seen
	traced, err := pgxpool.NewWithConfig(t.Context(), Watch(cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer traced.Close()
	s, err := New(traced, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), driver.Query{Topics: true}); err != nil {
		t.Fatal(err)
	}
	if want := []string{sqlBegin, sqlNoJIT, s.text(sqlTopics), "commit"}; !slices.Equal(seen.sent, want) {
		t.Errorf("sent %q", seen.sent)
	}
}

// filled is a database with 100,000 events, all confirmed but for 10, and as much in an inbox.
func filled(t *testing.T) (*pgxpool.Pool, *base) {
	t.Helper()
	pool, b := migrated(t)
	for _, text := range []string{
		`insert into pabal_event (recorded_at, id, position, topic, type, key, content_type, version, traceparent, payload)
			select clock_timestamp() - n * interval '1 ms', gen_random_uuid(), n, 'topic-' || n % 5, 'paid', 'o-' || n % 20000, '', '', '', repeat('x', 200)::bytea
			from generate_series(1, 100000) n`,
		`insert into pabal_pending (id, recorded_at, topic, due_at) select id, recorded_at, topic, recorded_at from pabal_event`,
		`delete from pabal_pending where id not in (select id from pabal_pending order by recorded_at limit 10)`,
		`insert into pabal_published (recorded_at, id, published_at) select recorded_at, id, clock_timestamp() from pabal_event
			where id not in (select id from pabal_pending)`,
		`insert into pabal_topic (name) select distinct topic from pabal_event`,
		`insert into pabal_counter (topic, key, generation, step, position, last_id, last_at, last_day)
			select distinct on (topic, key) topic, key, 0, 1, position, id, recorded_at, recorded_at from pabal_event`,
		`insert into pabal_inbox (consumer, source, id, job, recorded_at, sent_at, received_at, position, state, topic, key, type, next_at)
			select 'c-' || position % 3, 'order', id, '00000000-0000-0000-0000-000000000000', recorded_at, recorded_at, recorded_at, position,
				case when position % 10000 = 0 then 1 else 0 end, topic, key, type, case when position % 10000 = 0 then recorded_at end from pabal_event`,
		`insert into pabal_cursor (consumer, source, topic, key, job, begun, last_position, last_id, last_at, moved_at, last_day)
			select distinct on (consumer, topic, key) consumer, source, topic, key, job, true, position, id, recorded_at, recorded_at, recorded_at from pabal_inbox`,
	} {
		if _, err := pool.Exec(t.Context(), text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	return pool, b
}

// migrated is a database with empty tables.
func migrated(t testing.TB) (*pgxpool.Pool, *base) {
	t.Helper()
	ctx := t.Context()
	server := servers.SharedPostgres()
	admin, err := pgx.Connect(ctx, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	name := "pabal_plans_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	_, err = admin.Exec(ctx, "create database "+name)
	_ = admin.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(ctx, server.Database(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := Migrate(ctx, pool, nil); err != nil {
		t.Fatal(err)
	}
	b, err := newBase(pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pool, &b
}

var parameter = regexp.MustCompile(`\$(\d+)`)

// explain answers the plan that a statement has whatever its arguments are.
func explain(t *testing.T, pool *pgxpool.Pool, settings []string, statement string) string {
	t.Helper()
	return explainWith(t, pool, "costs off", settings, statement)
}

func explainWith(t *testing.T, pool *pgxpool.Pool, options string, settings []string, statement string) string {
	t.Helper()
	n := 0
	for _, m := range parameter.FindAllStringSubmatch(statement, -1) {
		k, _ := strconv.Atoi(m[1]) // digits only
		n = max(n, k)
	}
	arguments := ""
	if n > 0 {
		arguments = "(" + strings.Repeat("null, ", n-1) + "null)"
	}
	return explained(t, pool, options, settings, statement, arguments)
}

func explained(t *testing.T, pool *pgxpool.Pool, options string, settings []string, statement, arguments string) string {
	t.Helper()
	c, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	for _, text := range append([]string{"discard all", "set plan_cache_mode = force_generic_plan"}, append(settings, "prepare s as "+statement)...) {
		if _, err := c.Exec(t.Context(), text, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	rows, err := c.Query(t.Context(), "explain ("+options+") execute s"+arguments, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%v in\n%s", err, statement)
	}
	return fmt.Sprintln(strings.Join(lines, "\n"))
}
