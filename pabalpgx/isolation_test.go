package pabalpgx_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
)

// Record works at every isolation level; where two transactions of a key cannot both be serialized, it is the database that
// says so, to the later one, by an error that Conflict knows.
func TestIsolationLevels(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	store := p.store
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			o := pgx.TxOptions{IsoLevel: level}
			first := must(pool.BeginTx(t.Context(), o))(t)
			second := must(pool.BeginTx(t.Context(), o))(t)
			must(second.Exec(t.Context(), `select count(*) from pabal_counter`))(t) // its snapshot
			p.record(first, "first "+string(level))
			keyed := func(tx pgx.Tx) error {
				r := oneEvent([]byte(string(level)), "shared")
				return store.Store.Record(t.Context(), tx, driver.Recording{Events: r.Events, Outcome: r.Outcome})
			}
			if err := keyed(first); err != nil {
				t.Fatal(err)
			}
			if err := first.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.arrives("first "+string(level), soon)
			err := keyed(second)
			if level == pgx.ReadCommitted {
				if err != nil {
					t.Error(err)
				}
			} else if !store.Inbox().Conflict(err) {
				t.Errorf("answered %v, which is no conflict", err)
			}
			_ = second.Rollback(t.Context())
		})
	}
}

// InTxWith begins with its options however the transaction begins: with a statement, by itself, or together with COMMIT.
func TestInTxWithOptions(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			pool, url := open(t)
			p := openPost(t, pool, url)
			store := must(pabalpgx.New(connect(t, url+"&default_query_exec_mode="+mode), nil))(t)
			must(pool.Exec(t.Context(), "create table level (how text, at text default current_setting('transaction_isolation'))"))(t)
			const insert = "insert into level (how) values ('told')"
			for how, f := range map[string]func(tx *pabalpgx.Tx) error{
				"with a statement": func(tx *pabalpgx.Tx) error {
					_, err := tx.Exec(t.Context(), insert)
					return err
				},
				"by itself": func(tx *pabalpgx.Tx) error {
					_, err := tx.Conn().Exec(t.Context(), insert)
					return err
				},
				"with COMMIT": func(tx *pabalpgx.Tx) error {
					tx.Queue(insert)
					return nil
				},
			} {
				must(pool.Exec(t.Context(), "truncate level"))(t)
				err := store.InTxWith(t.Context(), p.client, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx *pabalpgx.Tx) error {
					tx.Record(paid.New([]byte(how)))
					return f(tx)
				})
				var level string
				if err == nil {
					err = pool.QueryRow(t.Context(), "select at from level").Scan(&level)
				}
				if err != nil || level != "serializable" {
					t.Errorf("%s: level %q, %v", how, level, err)
				}
				p.arrives(how, soon)
			}
		})
	}
}

// Of two transactions that each read what the other writes, one is refused, which its statement or its COMMIT tells; its event is not
// there.
func TestInTxWithRefusesWhatCannotBeSerialized(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	store := must(pabalpgx.New(pool, nil))(t)
	must(pool.Exec(t.Context(), "create table oncall (who text primary key); insert into oncall values ('a'), ('b')"))(t)
	serializable := pgx.TxOptions{IsoLevel: pgx.Serializable}
	leaves := func(who string, meanwhile func()) error { // as long as another is on call
		return store.InTxWith(t.Context(), p.client, serializable, func(tx *pabalpgx.Tx) error {
			var n int
			if err := tx.QueryRow(t.Context(), "select count(*) from oncall").Scan(&n); err != nil || n < 2 {
				t.Fatal(n, err)
			}
			meanwhile()
			tx.Record(paid.New([]byte("leaves: " + who)))
			tx.Queue("delete from oncall where who = $1", who)
			return nil
		})
	}
	err := leaves("a", func() {
		if err := leaves("b", func() {}); err != nil {
			t.Fatal(err)
		}
	})
	if !store.Inbox().Conflict(err) || !strings.Contains(err.Error(), "order-paid/") {
		t.Errorf("answered %v, which is no conflict, or does not name the event", err)
	}
	p.arrives("leaves: b", soon)
	p.absent("leaves: a")
}

// InTxWith begins and commits itself.
func TestInTxWithRefusesOtherQueries(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	store := must(pabalpgx.New(pool, nil))(t)
	for _, o := range []pgx.TxOptions{{BeginQuery: "begin read only"}, {CommitQuery: "commit and chain"}} {
		err := store.InTxWith(t.Context(), p.client, o, func(*pabalpgx.Tx) error {
			t.Error("it began")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "options.BeginQuery and options.CommitQuery") {
			t.Errorf("answered %v", err)
		}
	}
}
