package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pabal-go/pabal/internal/servers"
)

// The scripts in testdata/postgres have the address of a PostgreSQL server's database in PABAL_DB.
func TestPostgresScript(t *testing.T) {
	server := servers.Postgres(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/postgres", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Deadline: time.Now().Add(2 * time.Minute),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PABAL_DB", server.URL)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "shows": shows, "becomes": becomes, "psql": func(ts *testscript.TestScript, _ bool, args []string) {
				if args[0] == "capacity" {
					args[0] = statementFor(ts, "PostgreSQL")
				}
				c, err := pgx.Connect(context.Background(), server.URL)
				ts.Check(err)
				defer c.Close(context.Background()) //nolint:errcheck // of a script
				rows, err := c.Query(context.Background(), args[0])
				ts.Check(err)
				values, err := pgx.CollectRows(rows, pgx.RowTo[any])
				ts.Check(err)
				_, _ = fmt.Fprintln(ts.Stdout(), values...)
			},
		},
	})
}
