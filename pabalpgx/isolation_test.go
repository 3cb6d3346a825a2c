package pabalpgx_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
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
