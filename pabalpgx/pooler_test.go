package pabalpgx_test

import (
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// Through a pooler in transaction mode every transaction is on another session.
func TestConformanceThroughPgBouncer(t *testing.T) {
	bouncer := must(url.Parse(servers.PgBouncer(t, servers.SharedPostgres()).URL))(t)
	for _, mode := range modes[2:] {
		t.Run(mode, func(t *testing.T) {
			storetest.Run(t, storetest.Harness[pgx.Tx]{Open: func(t *testing.T) storetest.Database[pgx.Tx] {
				_, direct := open(t)
				u := must(url.Parse(direct))(t)
				u.Host = bouncer.Host
				return pgxDatabaseAt(t, u.String(), mode)
			}})
		})
	}
}

// The tables are made, and events travel with COMMIT, through a pooler too.
func TestInTxThroughPgBouncer(t *testing.T) {
	bouncer := must(url.Parse(servers.PgBouncer(t, servers.SharedPostgres()).URL))(t)
	for _, mode := range modes[2:] {
		t.Run(mode, func(t *testing.T) {
			direct := newDatabase(t)
			u := must(url.Parse(direct))(t)
			u.Host = bouncer.Host
			pool := connect(t, u.String()+"&default_query_exec_mode="+mode)
			must(pabalpgx.Migrate(t.Context(), pool, nil))(t)
			p := openPost(t, pool, direct)
			var open []pgx.Tx // at once, so that there are sessions to take turns
			for range 4 {
				open = append(open, must(pool.Begin(t.Context()))(t))
			}
			for _, tx := range open {
				_ = tx.Rollback(t.Context())
			}
			sessions := map[uint32]bool{}
			for n := range 20 {
				name, undone := fmt.Sprint("kept ", n), errors.New("undone")
				for what, end := range map[string]error{name: nil, fmt.Sprint("undone ", n): undone} {
					err := p.store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
						var pid uint32
						if err := tx.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
							return err
						}
						sessions[pid] = true
						tx.Record(paid.New([]byte(what)))
						return end
					})
					if !errors.Is(err, end) {
						t.Fatalf("%s: %v", what, err)
					}
				}
				p.arrives(name, soon)
				p.absent(fmt.Sprint("undone ", n))
			}
			if len(sessions) < 3 {
				t.Errorf("all of it was on %d sessions: that proves nothing", len(sessions))
			}
		})
	}
}
