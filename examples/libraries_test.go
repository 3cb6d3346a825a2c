package examples

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/examples/orders"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// Paid is the payload of an event.
type Paid struct {
	OrderNo string `json:"orderNo"`
}

var orderPaid = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))

// house has an order to pay, and a client that records.
type house struct {
	db     *sql.DB
	client *pabal.Client[*sql.Tx]
}

// silent is a broker of a client that does not run: its events are due at once for `pabal relay`.
type silent struct{ driver.Broker }

func (silent) Limits() driver.Limits { return driver.Limits{} }

func open(t *testing.T) house {
	t.Helper()
	db, err := pabalsql.OpenMySQL(servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}).Database(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("create table orders (no varchar(32) not null primary key, status varchar(16) not null)"); err != nil {
		t.Fatal(err)
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pabal.New(t.Context(), store, silent{}, "order", nil)
	if err != nil {
		t.Fatal(err)
	}
	return house{db, client}
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
func TestSQLC(t *testing.T) {
	h := open(t)
	queries := orders.New(h.db)
	if err := queries.PlaceOrder(t.Context(), "A-1"); err != nil {
		t.Fatal(err)
	}
	pay := func(ctx context.Context, no string) error {
		tx, err := h.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		n, err := queries.WithTx(tx).PayOrder(ctx, no)
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
	if status, err := queries.StatusOf(t.Context(), "A-1"); err != nil || status != "paid" {
		t.Errorf("the order is %s, %v", status, err)
	}
	if is := h.events(t); is != "[A-1]" {
		t.Errorf("events of %s are recorded", is)
	}
}

// With gorm, the transaction is under its Statement.ConnPool.
func TestGorm(t *testing.T) {
	h := open(t)
	g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: h.db}), &gorm.Config{Logger: logger.Discard})
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
