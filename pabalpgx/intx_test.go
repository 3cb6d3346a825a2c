package pabalpgx_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalpgx"
)

func TestInTxPublishesWhatItCommits(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			pool, url := open(t)
			p := openPost(t, pool, url)
			count := effects(t, pool)
			store := must(pabalpgx.New(connect(t, url+"&default_query_exec_mode="+mode), nil))(t)
			var rode int64
			var late *pabalpgx.Tx
			err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
				late = tx
				p.exec(tx, "insert into effect values (1)")
				p.record(tx, "at once")
				tx.Record(paid.New([]byte("first")), paid.New([]byte("second")))
				tx.Queue("insert into effect values ($1), ($2)", 2, 3).Exec(func(tag pgconn.CommandTag) error {
					rode = tag.RowsAffected()
					return nil
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"at once", "first", "second"} {
				p.arrives(name, soon)
			}
			if count() != 3 || rode != 2 {
				t.Errorf("%d effects, of which %d rode along", count(), rode)
			}
			if _, err := late.Exec(t.Context(), "select 1"); !errors.Is(err, pgx.ErrTxClosed) {
				t.Errorf("the transaction still works after InTx: %v", err)
			}
		})
	}
}

func TestInTxCommitsWithoutEvents(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	count := effects(t, pool)
	store := must(pabalpgx.New(pool, nil))(t)
	err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
		tx.Queue("insert into effect values (1)")
		return nil
	})
	if err != nil || count() != 1 {
		t.Errorf("%v, %d effects", err, count())
	}
}

func TestInTxRollsBack(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	must(pool.Exec(t.Context(), `create table once (n integer primary key, of integer references once deferrable initially deferred)`))(t)
	store := must(pabalpgx.New(pool, nil))(t)
	wrong := errors.New("wrong")
	for name, c := range map[string]struct {
		f    func(tx *pabalpgx.Tx) error
		want string
	}{
		"an error of the function": {func(*pabalpgx.Tx) error { return wrong }, "wrong"},
		"a failed statement": {func(tx *pabalpgx.Tx) error {
			_, _ = tx.Exec(t.Context(), "select 1/0")
			return nil
		}, "order-paid/"},
		"a statement that rides along": {func(tx *pabalpgx.Tx) error {
			tx.Queue("insert into once values (1), (1)")
			return nil
		}, "1 statements and commit with event order-paid/"},
		"a constraint at COMMIT": {func(tx *pabalpgx.Tx) error {
			p.exec(tx, "insert into once values (2, 3)")
			return nil
		}, "commit with event order-paid/"},
		"a payload that does not encode": {func(tx *pabalpgx.Tx) error {
			tx.Record(broken.New(make(chan int)))
			return nil
		}, "does not encode"},
	} {
		t.Run(name, func(t *testing.T) {
			err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
				p.exec(tx, "insert into once values (7)")
				tx.Record(paid.New([]byte(name)))
				return c.f(tx)
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("answered %v, want %q in it", err, c.want)
			}
			p.absent(name)
			var n int
			if err := pool.QueryRow(t.Context(), "select count(*) from once").Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows were committed (%v)", n, err)
			}
			if free := pool.Stat().AcquiredConns(); free > 4 {
				t.Errorf("%d connections are out of the pool", free)
			}
		})
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
			tx.Record(paid.New([]byte("panic")))
			panic("in the function")
		})
	}()
	p.absent("panic")
}

// What is recorded within InTx is as proven as what a plain Record and COMMIT make.
func TestInTxIsProven(t *testing.T) {
	pool, _ := open(t)
	store := must(pabalpgx.New(pool, nil))(t)
	if err := store.Open(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	r := &plainRecorder{store: store}
	err := store.InTx(t.Context(), r, func(tx *pabalpgx.Tx) error {
		tx.Record(paid.New(nil), paid.New(nil))
		return nil
	})
	if err != nil || !r.returned || len(r.states) != 1 || r.states[0] != driver.Proven {
		t.Errorf("%v; states %v", err, r.states)
	}
}
