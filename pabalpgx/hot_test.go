package pabalpgx

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
)

// What moves with each event of a key is written into the row's own page, and into no index (HOT; PostgreSQL manual, 73.7).
func TestCountersAndCursorsMoveInPlace(t *testing.T) {
	pool, b := migrated(t)
	const keys = 400
	key := func(i int) string { return fmt.Sprint("A", i) }
	record := func(tx pgx.Tx, nth int) error {
		r := driver.Recording{Lease: time.Second}
		for i := 0; i < keys; i += nth {
			r.Events = append(r.Events, driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: "paid", Key: key(i)})
		}
		query, args := recording(r, nil)
		return session{b: b, pgx: tx}.query(t.Context(), func(scanner) error { return nil }, query, args[1:]...)
	}
	place := func(tx pgx.Tx, nth int) error {
		s := session{b: b, pgx: tx}
		var cursors []driver.Cursor
		for i := 0; i < keys; i += nth {
			c := driver.Cursor{CursorKey: driver.CursorKey{Source: "order", Topic: "paid", Key: key(i)}, Begun: true}
			c.Last = driver.Ref{ID: uuid.Must(uuid.NewV7()), Position: int64(i + 1), RecordedAt: time.Now()}
			cursors = append(cursors, c)
		}
		l := driver.Load{Consumer: "settlement"}
		for i := range cursors {
			l.Keys = append(l.Keys, cursors[i].CursorKey)
		}
		if _, err := load(t.Context(), s, l); err != nil {
			return err
		}
		return save(t.Context(), s, driver.Save{Consumer: "settlement", Cursors: cursors})
	}
	for _, c := range []struct {
		what, table string
		do          func(tx pgx.Tx, nth int) error
		nth, want   int
	}{
		{"counters are inserted", "pabal_counter", record, 1, 0}, {"counters are moved", "pabal_counter", record, 8, keys / 8},
		{"cursors are inserted, and moved", "pabal_cursor", place, 1, keys}, {"cursors are moved", "pabal_cursor", place, 8, keys / 8},
	} {
		var updated, hot, wasUpdated, wasHot int
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if err := moved(t.Context(), tx, c.table, &wasUpdated, &wasHot); err != nil {
				return err
			}
			if err := c.do(tx, c.nth); err != nil {
				return err
			}
			return moved(t.Context(), tx, c.table, &updated, &hot)
		})
		updated, hot = updated-wasUpdated, hot-wasHot // the server may have counted earlier transactions along
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if updated != c.want || hot < updated*9/10 {
			t.Errorf("%s: %d updates, not %d; %d of them HOT", c.what, updated, c.want, hot)
		}
	}
}

// moved says how many rows of a table the transaction has updated, and how many of them in place.
func moved(ctx context.Context, tx pgx.Tx, table string, updated, hot *int) error {
	return tx.QueryRow(ctx, `select pg_stat_get_xact_tuples_updated($1::text::regclass), pg_stat_get_xact_tuples_hot_updated($1::text::regclass)`,
		table).Scan(updated, hot)
}
