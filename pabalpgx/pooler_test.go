package pabalpgx_test

import (
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver/storetest"
	"github.com/pabal-go/pabal/internal/servers"
)

// Through a pooler in transaction mode every transaction may be on another session.
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
