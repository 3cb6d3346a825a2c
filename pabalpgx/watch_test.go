package pabalpgx_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
)

// raw ends a transaction behind pgx's back.
func raw(t *testing.T, tx pgx.Tx, text string) {
	t.Helper()
	if _, err := tx.Conn().PgConn().Exec(t.Context(), text).ReadAll(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func pipeline(t *testing.T, tx pgx.Tx, texts ...string) {
	t.Helper()
	p := tx.Conn().PgConn().StartPipeline(t.Context())
	for _, text := range texts {
		p.SendQueryParams(text, nil, nil, nil, nil)
	}
	if err := errors.Join(p.Sync(), p.Close()); err != nil {
		t.Fatalf("pipeline %v: %v", texts, err)
	}
}

func batch(t *testing.T, tx pgx.Tx, texts ...string) {
	t.Helper()
	b := &pgx.Batch{}
	for _, text := range texts {
		b.Queue(text)
	}
	if err := tx.SendBatch(t.Context(), b).Close(); err != nil {
		t.Fatalf("batch %v: %v", texts, err)
	}
}

// endings are the ways in which a transaction ends that recorded an event "x". Where it is not committed it may never
// reach the broker (P2), where it is it does within a second, or, where the connection cannot know, within the lease.
var endings = []struct {
	name  string
	end   func(p *post, tx pgx.Tx)
	state driver.CommitState
	there bool
	late  bool
}{
	{"COMMIT", func(p *post, tx pgx.Tx) { p.exec(tx, "commit") }, driver.Proven, true, false},
	{"ROLLBACK", func(p *post, tx pgx.Tx) { p.exec(tx, "rollback") }, driver.Void, false, false},
	{"Commit of the handle", func(p *post, tx pgx.Tx) {
		if err := tx.Commit(p.t.Context()); err != nil {
			p.t.Error(err)
		}
	}, driver.Proven, true, false},
	{"savepoint rolled back, then COMMIT", func(p *post, tx pgx.Tx) {
		nested := must(tx.Begin(p.t.Context()))(p.t)
		p.record(nested, "nested")
		if err := nested.Rollback(p.t.Context()); err != nil {
			p.t.Error(err)
		}
		p.exec(tx, "commit")
		p.absent("nested")
		p.state("nested", driver.Doubtful)
	}, driver.Doubtful, true, false},
	{"rolled back to a savepoint before it, then COMMIT", func(p *post, tx pgx.Tx) {
		p.exec(tx, "rollback to before")
		p.exec(tx, "commit")
	}, driver.Doubtful, false, false},
	{"rollback; begin; select 1 in one text, then COMMIT", func(p *post, tx pgx.Tx) {
		p.exec(tx, "rollback; begin; select 1")
		p.exec(tx, "commit")
	}, driver.Doubtful, false, false},
	{"commit; begin in one text, then ROLLBACK", func(p *post, tx pgx.Tx) {
		p.exec(tx, "commit; begin")
		p.exec(tx, "rollback")
	}, driver.Proven, true, false},
	{"a second BEGIN, then COMMIT", func(p *post, tx pgx.Tx) {
		p.exec(tx, "begin")
		p.exec(tx, "commit")
	}, driver.Proven, true, false},
	{"COMMIT by raw PgConn", func(p *post, tx pgx.Tx) { raw(p.t, tx, "commit") }, driver.Proven, true, false},
	{"ROLLBACK by raw PgConn", func(p *post, tx pgx.Tx) { raw(p.t, tx, "rollback") }, driver.Void, false, false},
	{"batch with ROLLBACK TO and COMMIT", func(p *post, tx pgx.Tx) {
		batch(p.t, tx, "savepoint a", "select 1", "rollback to a", "commit")
	}, driver.Doubtful, true, false},
	{"batch with ROLLBACK TO a savepoint before it and COMMIT", func(p *post, tx pgx.Tx) {
		batch(p.t, tx, "rollback to before", "commit")
	}, driver.Doubtful, false, false},
	{"pipeline with COMMIT", func(p *post, tx pgx.Tx) { pipeline(p.t, tx, "select 1", "commit") }, driver.Proven, true, false},
	{"pipeline with ROLLBACK and BEGIN", func(p *post, tx pgx.Tx) {
		pipeline(p.t, tx, "rollback", "begin", "commit")
	}, driver.Doubtful, false, false},
	{"COPY, then COMMIT", func(p *post, tx pgx.Tx) {
		rows := make([][]any, 1000)
		for i := range rows {
			rows[i] = []any{i}
		}
		must(tx.CopyFrom(p.t.Context(), pgx.Identifier{"effect"}, []string{"n"}, pgx.CopyFromRows(rows)))(p.t)
		p.exec(tx, "commit")
	}, driver.Proven, true, false},
	{"COMMIT AND CHAIN", func(p *post, tx pgx.Tx) {
		p.exec(tx, "commit and chain")
		p.record(tx, "chained")
		p.exec(tx, "commit")
		p.state("chained", driver.Proven)
		p.arrives("chained", soon)
	}, driver.Proven, true, false},
	{"COMMIT AND CHAIN, then ROLLBACK", func(p *post, tx pgx.Tx) {
		p.exec(tx, "commit and chain")
		p.record(tx, "chained")
		p.exec(tx, "rollback")
		p.state("chained", driver.Void)
		p.absent("chained")
	}, driver.Proven, true, false},
	{"ROLLBACK AND CHAIN", func(p *post, tx pgx.Tx) {
		p.exec(tx, "rollback and chain")
		p.record(tx, "chained")
		p.exec(tx, "commit")
		p.state("chained", driver.Proven)
		p.arrives("chained", soon)
	}, driver.Doubtful, false, false},
	{"PREPARE TRANSACTION, then COMMIT PREPARED", func(p *post, tx pgx.Tx) {
		p.exec(tx, "prepare transaction 'kept "+tx.Conn().Config().Database+"'")
		p.absent("x")
		p.exec(p.plain, "commit prepared 'kept "+tx.Conn().Config().Database+"'")
	}, driver.Void, true, true},
	{"PREPARE TRANSACTION, then ROLLBACK PREPARED", func(p *post, tx pgx.Tx) {
		p.exec(tx, "prepare transaction 'dropped "+tx.Conn().Config().Database+"'")
		p.exec(p.plain, "rollback prepared 'dropped "+tx.Conn().Config().Database+"'")
	}, driver.Void, false, false},
	{"COMMIT of a failed transaction", func(p *post, tx pgx.Tx) {
		if _, err := tx.Exec(p.t.Context(), "select 1/0"); err == nil {
			p.t.Error("it did not fail")
		}
		if err := tx.Commit(p.t.Context()); !errors.Is(err, pgx.ErrTxCommitRollback) {
			p.t.Errorf("COMMIT answered %v", err)
		}
	}, driver.Void, false, false},
	{"COMMIT that fails", func(p *post, tx pgx.Tx) {
		p.exec(tx, "insert into deferred values (1)")
		if err := tx.Commit(p.t.Context()); err == nil {
			p.t.Error("it did not fail")
		}
	}, driver.Void, false, false},
	{"an error behind a savepoint, then COMMIT", func(p *post, tx pgx.Tx) {
		fail(p.t, func(text string) error { _, err := tx.Exec(p.t.Context(), text); return err })
		p.exec(tx, "commit")
	}, driver.Doubtful, true, false},
	{"a transaction longer than the lease", func(p *post, tx pgx.Tx) {
		p.exec(tx, "select pg_sleep("+strconv.FormatFloat((testLease+soon/2).Seconds(), 'f', 1, 64)+")")
		p.exec(tx, "commit")
	}, driver.Proven, true, false},
	{"the connection is closed", func(p *post, tx pgx.Tx) {
		if err := tx.Conn().Close(p.t.Context()); err != nil {
			p.t.Error(err)
		}
	}, driver.Void, false, false},
	{"the session is terminated, then COMMIT", func(p *post, tx pgx.Tx) {
		must(p.plain.Exec(p.t.Context(), "select pg_terminate_backend($1, 5000)", tx.Conn().PgConn().PID()))(p.t)
		if err := tx.Commit(p.t.Context()); err == nil {
			p.t.Error("COMMIT succeeded")
		}
	}, driver.Doubtful, false, false},
}

func TestEveryEndOfATransactionIsSeen(t *testing.T) {
	everyEnd(t, nil, func(t *testing.T) (*pgxpool.Pool, string) { return open(t) })
}

// everyEnd has each ending on a database of its own, that begin opens. Some may be seen otherwise there.
func everyEnd(t *testing.T, otherwise map[string]driver.CommitState, begin func(t *testing.T) (pool *pgxpool.Pool, url string)) {
	for _, ending := range endings {
		t.Run(ending.name, func(t *testing.T) {
			t.Parallel()
			pool, url := begin(t)
			p := openPost(t, pool, url)
			must(pool.Exec(t.Context(), `create table effect (n integer); create table parent (n integer primary key);
				create table deferred (n integer references parent deferrable initially deferred)`))(t)
			c := must(pool.Acquire(t.Context()))(t)
			defer c.Release()
			tx := must(c.Begin(t.Context()))(t)
			p.exec(tx, "savepoint before")
			p.record(tx, "x")
			ending.end(p, tx)
			state, other := otherwise[ending.name]
			if !other {
				state = ending.state
			}
			p.state("x", state)
			switch {
			case ending.late:
				p.arrives("x", inLease)
			case ending.there:
				p.arrives("x", soon)
			default:
				p.absent("x")
			}
			// What is published last is published after whatever should not have been.
			last := must(pool.Begin(t.Context()))(t)
			p.record(last, "last")
			if err := last.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.arrives("last", soon)
		})
	}
}

// A connection that nobody watches cannot record through a client; what the database's own function records there is
// published by the republisher.
func TestUnwatchedConnection(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	tx := must(p.plain.Begin(t.Context()))(t)
	if err := p.client.Record(t.Context(), tx, paid.New([]byte("refused"))); !errors.Is(err, driver.ErrUnwatched) {
		t.Errorf("recorded: %v", err)
	}
	must(tx.Exec(t.Context(), `select pabal_record('order-paid', 'order-paid', null, '"other"')`))(t)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.arrives(`"other"`, inLease)
	p.absent("refused")
}

func TestStoreRefusesUnwatchedPool(t *testing.T) {
	_, url := open(t)
	plain := must(pgxpool.New(t.Context(), url))(t)
	defer plain.Close()
	store := must(pabalpgx.New(plain, nil))(t)
	if err := store.Open(t.Context(), "order"); !errors.Is(err, driver.ErrUnwatched) {
		t.Errorf("Open of an unwatched pool answered %v", err)
	}
	if tx, err := store.Inbox().Begin(context.Background()); !errors.Is(err, driver.ErrUnwatched) {
		t.Errorf("Begin on an unwatched pool answered %v, %v", tx, err)
	}
}
