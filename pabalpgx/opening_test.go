package pabalpgx_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
)

const effect = "insert into effect values ($1)"

// firsts are what a function of InTx may do first. Each has one effect.
var firsts = map[string]func(ctx context.Context, p *post, tx *pabalpgx.Tx) error{
	"a statement": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		tag, err := tx.Exec(ctx, effect, 1)
		if err == nil && tag.RowsAffected() != 1 {
			return errors.New(tag.String())
		}
		return err
	},
	"a statement without arguments": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into effect values (1)")
		return err
	},
	"several statements": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into effect values (1); select 1")
		return err
	},
	"named arguments": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into effect values (@n)", pgx.NamedArgs{"n": 1})
		return err
	},
	"an option": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.Exec(ctx, effect, pgx.QueryExecModeExec, 1)
		return err
	},
	"rows": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		rows, err := tx.Query(ctx, "select * from generate_series(1, $1)", 3)
		if err != nil {
			return err
		}
		for n := 0; rows.Next(); n++ {
			if n > 3 {
				return errors.New("too many rows")
			}
		} // and no Close
		if err := rows.Err(); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, effect, 1)
		return err
	},
	"rows that are not read to their end": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		rows, err := tx.Query(ctx, "select * from generate_series(1, $1)", 3)
		if err != nil {
			return err
		}
		rows.Next()
		rows.Close()
		_, err = tx.Exec(ctx, effect, 1)
		return err
	},
	"a row": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, "select $1::int + 1", 1).Scan(&n); err != nil || n != 2 {
			return errors.Join(err, errors.New("not 2"))
		}
		_, err := tx.Exec(ctx, effect, 1)
		return err
	},
	"no row": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, "select 1 where $1 = 0", 1).Scan(&n); !errors.Is(err, pgx.ErrNoRows) {
			return errors.Join(err, errors.New("not ErrNoRows"))
		}
		_, err := tx.Exec(ctx, effect, 1)
		return err
	},
	"a savepoint": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		nested, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := nested.Exec(ctx, effect, 1); err != nil {
			return err
		}
		return nested.Commit(ctx)
	},
	"a batch": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(effect, 1)
		return tx.SendBatch(ctx, b).Close()
	},
	"a copy": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"effect"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}}))
		return err
	},
	"a prepared statement": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		name := "s" + strings.ReplaceAll(uuid.NewString(), "-", "")
		if _, err := tx.Prepare(ctx, name, effect); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, name, 1)
		return err
	},
	"a large object": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		objects := tx.LargeObjects()
		if _, err := objects.Create(ctx, 0); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, effect, 1)
		return err
	},
	"the connection": func(ctx context.Context, _ *post, tx *pabalpgx.Tx) error {
		_, err := tx.Conn().Exec(ctx, effect, 1)
		return err
	},
	"recording at once": func(ctx context.Context, p *post, tx *pabalpgx.Tx) error {
		if err := p.client.Record(ctx, tx, paid.New([]byte(uuid.NewString()))); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, effect, 1)
		return err
	},
	"nothing": func(_ context.Context, _ *post, tx *pabalpgx.Tx) error {
		tx.Queue(effect, 1)
		return nil
	},
}

// However a function of InTx begins, all of it is one transaction, which is committed, or rolled back.
func TestInTxBeginsWithItsFirstStatement(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			pool, url := open(t)
			p := openPost(t, pool, url)
			count := effects(t, pool)
			store := must(pabalpgx.New(connect(t, url+"&default_query_exec_mode="+mode+"&pool_max_conns=1"), nil))(t)
			for name, first := range firsts {
				before := count()
				wrong := errors.New("wrong")
				err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
					tx.Record(paid.New([]byte("never " + name)))
					return errors.Join(wrong, first(t.Context(), p, tx))
				})
				if !errors.Is(err, wrong) || count() != before {
					t.Errorf("%s, rolled back: %v, %d effects", name, err, count()-before)
				}
				p.absent("never " + name)
				err = store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
					tx.Record(paid.New([]byte(name)))
					return first(t.Context(), p, tx)
				})
				if err != nil || count() != before+1 {
					t.Errorf("%s: %v, %d effects", name, err, count()-before)
					continue
				}
				p.arrives(name, soon)
				p.state(name, driver.Proven)
			}
		})
	}
}

// A first statement that fails is an error of the transaction like any other: what follows is refused, nothing is committed.
func TestInTxWhoseFirstStatementFails(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			pool, url := open(t)
			p := openPost(t, pool, url)
			count := effects(t, pool)
			store := must(pabalpgx.New(connect(t, url+"&default_query_exec_mode="+mode+"&pool_max_conns=1"), nil))(t)
			for _, query := range []string{
				"selec $1::int", "select $1::int from nowhere", "select 1 / $1::int", "insert into effect values (1, $1)",
				"begin; select 1 / 0",
			} {
				args := []any{0}
				if !strings.Contains(query, "$") {
					args = nil
				}
				for how, first := range map[string]func(tx *pabalpgx.Tx) error{
					"Exec": func(tx *pabalpgx.Tx) error { _, err := tx.Exec(t.Context(), query, args...); return err },
					"QueryRow": func(tx *pabalpgx.Tx) error {
						var n int
						return tx.QueryRow(t.Context(), query, args...).Scan(&n)
					},
					"Query": func(tx *pabalpgx.Tx) error {
						rows, _ := tx.Query(t.Context(), query, args...)
						rows.Close()
						return rows.Err()
					},
				} {
					err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
						tx.Record(paid.New([]byte(query)))
						if err := first(tx); err == nil {
							t.Errorf("%s of %s: no error", how, query)
						}
						_, err := tx.Exec(t.Context(), effect, 1)
						if e := new(pgconn.PgError); !errors.As(err, &e) || e.Code != "25P02" { // in_failed_sql_transaction
							t.Errorf("%s of %s: the next statement is answered %v", how, query, err)
						}
						return nil
					})
					if err == nil || count() != 0 {
						t.Errorf("%s of %s: %v, %d effects", how, query, err, count())
					}
					p.absent(query)
				}
			}
			err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
				_, err := tx.Exec(t.Context(), effect, make(chan int)) // pgx cannot send it, and may give up the connection
				return err
			})
			if err == nil {
				t.Error("a channel was inserted")
			}
			err = store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error { _, err := tx.Exec(t.Context(), effect, 1); return err })
			if err != nil || count() != 1 {
				t.Errorf("the next InTx: %v, %d effects", err, count())
			}
		})
	}
}

// stateRecorder records one event in a transaction of InTx, and notes what became of it.
type stateRecorder struct {
	store  *pabalpgx.Store
	states []driver.CommitState
}

func (r *stateRecorder) Record(ctx context.Context, tx pgx.Tx, _ ...pabal.Event) error {
	recording := oneEvent(nil, "")
	recording.Outcome = func(s driver.CommitState) { r.states = append(r.states, s) }
	return r.store.Record(ctx, tx, recording)
}

// An outcome comes exactly once, also where the database refuses what travels with BEGIN before it has begun.
func TestInTxThatNeverBegins(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			_, url := open(t)
			store := must(pabalpgx.New(connect(t, url+"&default_query_exec_mode="+mode+"&pool_max_conns=1"), nil))(t)
			r := &stateRecorder{store: store}
			err := store.InTx(t.Context(), r, func(tx *pabalpgx.Tx) error {
				tx.Record(pabal.Event{})
				tx.Queue("selec 1")
				return nil
			})
			if err == nil || len(r.states) != 1 || r.states[0] != driver.Void {
				t.Errorf("%v; states %v", err, r.states)
			}
			err = store.InTx(t.Context(), r, func(tx *pabalpgx.Tx) error {
				tx.Record(pabal.Event{})
				return nil
			})
			if err != nil || len(r.states) != 2 || r.states[1] != driver.Proven {
				t.Errorf("the next: %v; states %v", err, r.states)
			}
		})
	}
}

// turns counts how often something is sent after something was read: round trips.
type turns struct {
	net.Conn
	sent  *atomic.Int64
	reads atomic.Bool
}

func (c *turns) Write(b []byte) (int, error) {
	if c.reads.Swap(false) {
		c.sent.Add(1)
	}
	return c.Conn.Write(b)
}

func (c *turns) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.reads.Store(n > 0)
	return n, err
}

func TestInTxTakesFewRoundTrips(t *testing.T) {
	_, url := open(t)
	var sent atomic.Int64
	cfg := must(pgxpool.ParseConfig(url + "&pool_max_conns=1"))(t)
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &turns{Conn: c, sent: &sent}, err
	}
	pool := must(pgxpool.NewWithConfig(t.Context(), pabalpgx.Watch(cfg)))(t)
	defer pool.Close()
	store := must(pabalpgx.New(pool, nil))(t)
	effects(t, pool)
	for name, c := range map[string]struct {
		f    func(tx *pabalpgx.Tx) error
		want int64
	}{
		"one statement": {func(tx *pabalpgx.Tx) error { _, err := tx.Exec(t.Context(), effect, 1); return err }, 2},
		"one row": {func(tx *pabalpgx.Tx) error {
			var n int
			return tx.QueryRow(t.Context(), "select $1::int", 1).Scan(&n)
		}, 2},
		"one that rides along": {func(tx *pabalpgx.Tx) error { tx.Queue(effect, 1); return nil }, 1},
	} {
		for prepared := range 2 {
			before := sent.Load()
			r := &stateRecorder{store: store}
			err := store.InTx(t.Context(), r, func(tx *pabalpgx.Tx) error { tx.Record(pabal.Event{}); return c.f(tx) })
			if took := sent.Load() - before; err != nil || prepared == 1 && took != c.want {
				t.Errorf("%s: %d round trips, want %d (%v)", name, took, c.want, err)
			}
		}
	}
}
