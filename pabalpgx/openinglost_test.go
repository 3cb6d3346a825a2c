package pabalpgx

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A connection that is gone says so, whatever is sent first: "the transaction is closed" would tell nobody where to look.
func TestOpeningOnALostConnectionSaysWhy(t *testing.T) {
	for what, send := range map[string]func(context.Context, *opening) error{
		"batch": func(ctx context.Context, o *opening) error {
			b := &pgx.Batch{}
			b.Queue("select 1")
			return o.SendBatch(ctx, b).Close()
		},
		"exec": func(ctx context.Context, o *opening) error {
			_, err := o.Exec(ctx, "select 1")
			return err
		},
		"query": func(ctx context.Context, o *opening) error {
			rows, _ := o.Query(ctx, "select 1") // as pgx's own functions take it
			_, err := pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		},
		"row": func(ctx context.Context, o *opening) error { return o.QueryRow(ctx, "select 1").Scan(new(int)) },
	} {
		pool, _ := migrated(t)
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), "select pg_terminate_backend($1, 5000)", c.Conn().PgConn().PID()); err != nil {
			t.Fatal(err)
		}
		o := &opening{ctx: t.Context(), conn: c.Conn()}
		err = send(t.Context(), o)
		c.Release()
		if err == nil || errors.Is(err, pgx.ErrTxClosed) || !strings.Contains(err.Error(), "begin") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
