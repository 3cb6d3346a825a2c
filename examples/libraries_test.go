package examples

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	gormmysql "gorm.io/driver/mysql"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/examples/orders"
	"github.com/pabal-go/pabal/examples/orders/postgres"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
	"github.com/pabal-go/pabal/pabalsql"
)

// Paid is the payload of an event.
type Paid struct {
	OrderNo string `json:"orderNo"`
}

var orderPaid = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))

// house is a database with orders, and a client that records in it.
type house struct {
	db      *sql.DB
	client  *pabal.Client[*sql.Tx]
	queries func(orders.DBTX) queries
	gorm    gorm.Dialector
}

// queries is what sqlc makes of queries.sql and queries_postgres.sql.
type queries interface {
	PlaceOrder(ctx context.Context, no string) error
	PayOrder(ctx context.Context, no string) (int64, error)
	StatusOf(ctx context.Context, no string) (string, error)
}

// silent is a broker of a client that does not run: its events are due at once for `pabal relay`.
type silent struct{ driver.Broker }

func (silent) Limits() driver.Limits { return driver.Limits{} }

func onMariaDB(t *testing.T) house {
	t.Helper()
	db, err := pabalsql.OpenMySQL(servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}).Database(t, ""), nil)
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
	h := furnished(t, db, store)
	h.queries = func(tx orders.DBTX) queries { return orders.New(tx) }
	h.gorm = gormmysql.New(gormmysql.Config{Conn: db})
	return h
}

// On PostgreSQL, database/sql works over a pool of watched connections of pgx.
func onPostgres(t *testing.T) house {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(servers.Postgres(t, "synchronous_commit=off").URL)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), pabalpgx.Watch(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pabalpgx.Migrate(t.Context(), pool, nil); err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { _ = db.Close() })
	store, err := pabalpgx.NewSQL(db, pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := furnished(t, db, store)
	h.queries = func(tx orders.DBTX) queries { return postgres.New(tx) }
	h.gorm = gormpostgres.New(gormpostgres.Config{Conn: db})
	return h
}

func furnished(t *testing.T, db *sql.DB, store driver.Store[*sql.Tx]) house {
	t.Helper()
	if _, err := db.Exec("create table orders (no varchar(32) not null primary key, status varchar(16) not null)"); err != nil {
		t.Fatal(err)
	}
	client, err := pabal.New(t.Context(), store, silent{}, "order", nil)
	if err != nil {
		t.Fatal(err)
	}
	return house{db: db, client: client}
}

func onEach(t *testing.T, f func(t *testing.T, h house)) {
	t.Run("MariaDB", func(t *testing.T) { f(t, onMariaDB(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, onPostgres(t)) })
}

// events answers the keys of the events that are recorded, and fails unless each has its row in the work list.
func (h house) events(t *testing.T) string {
	t.Helper()
	found, err := h.client.Events(t.Context(), driver.EventFilter{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, f := range found {
		keys = append(keys, f.Event.Key)
		if f.Pending == nil {
			t.Errorf("event %s is not pending", f.Event.ID)
		}
	}
	return fmt.Sprint(keys)
}

// With sqlc, the transaction is the caller's.
func TestSQLC(t *testing.T) { onEach(t, withSQLC) }

func withSQLC(t *testing.T, h house) {
	if err := h.queries(h.db).PlaceOrder(t.Context(), "A-1"); err != nil {
		t.Fatal(err)
	}
	pay := func(ctx context.Context, no string) error {
		tx, err := h.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		n, err := h.queries(tx).PayOrder(ctx, no)
		if err != nil {
			return err
		}
		if err := h.client.Record(ctx, tx, orderPaid.New(Paid{OrderNo: no})); err != nil {
			return err
		}
		if n == 0 {
			return errors.New("no such order") // rolls the event back
		}
		return tx.Commit()
	}
	if err := pay(t.Context(), "A-1"); err != nil {
		t.Fatal(err)
	}
	if err := pay(t.Context(), "A-2"); err == nil {
		t.Error("an order was paid that there is not")
	}
	if status, err := h.queries(h.db).StatusOf(t.Context(), "A-1"); err != nil || status != "paid" {
		t.Errorf("the order is %s, %v", status, err)
	}
	if is := h.events(t); is != "[A-1]" {
		t.Errorf("events of %s are recorded", is)
	}
}

// With gorm, the transaction is under its Statement.ConnPool.
func TestGorm(t *testing.T) { onEach(t, withGorm) }

func withGorm(t *testing.T, h house) {
	g, err := gorm.Open(h.gorm, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	type Order struct {
		No     string `gorm:"primaryKey"`
		Status string
	}
	if err := g.Create(&Order{No: "A-1", Status: "placed"}).Error; err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	pay := func(no string, refuse bool) error {
		return g.WithContext(t.Context()).Transaction(func(tx *gorm.DB) error {
			if err := tx.Model(&Order{}).Where("no = ?", no).Update("status", "paid").Error; err != nil {
				return err
			}
			if err := h.client.Record(t.Context(), tx.Statement.ConnPool.(*sql.Tx), orderPaid.New(Paid{OrderNo: no})); err != nil {
				return err
			}
			if refuse {
				return refused
			}
			return nil
		})
	}
	if err := pay("A-1", false); err != nil {
		t.Fatal(err)
	}
	if err := pay("A-1", true); !errors.Is(err, refused) {
		t.Error(err)
	}
	// A nested transaction is a savepoint of gorm's; what it rolls back takes its event along.
	err = g.Transaction(func(tx *gorm.DB) error {
		inner := tx.Transaction(func(tx *gorm.DB) error {
			if err := h.client.Record(t.Context(), tx.Statement.ConnPool.(*sql.Tx), orderPaid.New(Paid{OrderNo: "inner"})); err != nil {
				return err
			}
			return refused
		})
		if !errors.Is(inner, refused) {
			return inner
		}
		return h.client.Record(t.Context(), tx.Statement.ConnPool.(*sql.Tx), orderPaid.New(Paid{OrderNo: "A-1"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if is := h.events(t); is != "[A-1 A-1]" {
		t.Errorf("events of %s are recorded", is)
	}
}

// With nothing but database/sql, the transaction is the caller's, at any isolation.
func TestDatabaseSQL(t *testing.T) {
	onEach(t, func(t *testing.T, h house) {
		for _, end := range []func(tx *sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
			tx, err := h.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.client.Record(t.Context(), tx, orderPaid.New(Paid{OrderNo: "A-1"})); err != nil {
				t.Fatal(err)
			}
			if err := end(tx); err != nil {
				t.Fatal(err)
			}
		}
		if is := h.events(t); is != "[A-1]" {
			t.Errorf("events of %s are recorded", is)
		}
	})
}

// With bun, the transaction is in its bun.Tx.
func TestBun(t *testing.T) {
	h := onPostgres(t)
	b := bun.NewDB(h.db, pgdialect.New())
	refused := errors.New("refused")
	pay := func(no string, answer error) error {
		return b.RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.NewInsert().Model(&map[string]any{"no": no, "status": "paid"}).TableExpr("orders").Exec(ctx)
			if err != nil {
				return err
			}
			return errors.Join(h.client.Record(ctx, tx.Tx, orderPaid.New(Paid{OrderNo: no})), answer)
		})
	}
	if err := pay("A-1", nil); err != nil {
		t.Fatal(err)
	}
	if err := pay("A-2", refused); !errors.Is(err, refused) {
		t.Error(err)
	}
	if is := h.events(t); is != "[A-1]" {
		t.Errorf("events of %s are recorded", is)
	}
}
