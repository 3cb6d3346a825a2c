package main

import (
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/pabaltest"
)

const outboxTrigger = `
	create function outbox_to_pabal() returns trigger language plpgsql as $$
	begin
		perform pabal_record('order', 'order-pay-done', new.order_no, new.message::json);
		return new;
	end $$;
	create trigger outbox_to_pabal after insert on outbox for each row execute function outbox_to_pabal();
`

const outboxTriggerMariaDB = `
	create trigger outbox_to_pabal after insert on outbox for each row
		call pabal_record('order', 'order-pay-done', new.order_no, new.message)
`

// A program that writes an outbox table, and that nobody wants to touch, records events: in its own transactions.
func TestOutboxTableRecordsEvents(t *testing.T) {
	cfg, err := pgxpool.ParseConfig(servers.Postgres(t, "synchronous_commit=off").URL)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), pabalpgx.Watch(cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pabalpgx.Migrate(t.Context(), pool, nil); err != nil {
		t.Fatal(err)
	}
	store, err := pabalpgx.New(pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pabal.New(t.Context(), store, pabaltest.NewBroker(), "order", nil) // as `pabal relay` does
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "create table outbox (order_no text not null, message text not null);"+outboxTrigger); err != nil {
		t.Fatal(err)
	}
	write := func(no string) {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context()) //nolint:errcheck // after Commit it does nothing
		if _, err := tx.Exec(t.Context(), `insert into outbox values ($1, '{"orderNo": "A1", "amount": 100}')`, no); err != nil {
			t.Fatal(err)
		}
		if no == "A1" {
			err = tx.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("A1")
	write("A2") // and rolls back
	events := pabaltest.RecordedIn(t, client.Operator, OrderPaid)
	if len(events) != 1 || events[0].Key != "A1" || events[0].Data.Amount != 100 || events[0].Position == 0 {
		t.Errorf("recorded %+v", events)
	}
}

// MariaDB's form of the same.
func TestOutboxTableRecordsEventsOnMariaDB(t *testing.T) {
	db, err := pabalsql.OpenMySQL(servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}).Database(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a test
	client := serve(t, db, pabaltest.NewBroker(), "order", func(*pabal.Client[*sql.Tx]) {})
	for _, statement := range []string{
		"create table outbox (order_no varchar(32) not null, message text not null)",
		outboxTriggerMariaDB,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.Exec(`insert into outbox values ('A1', '{"orderNo": "A1", "amount": 100}')`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	events := pabaltest.RecordedIn(t, client.Operator, OrderPaid)
	if len(events) != 1 || events[0].Key != "A1" || events[0].Data.Amount != 100 || events[0].Position == 0 {
		t.Fatalf("recorded %+v", events)
	}
	pabaltest.AwaitConfirmed(t, 30*time.Second, client.Operator, events...)
}
