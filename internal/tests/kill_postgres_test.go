package tests

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

// avenue is a street on PostgreSQL and NATS, both in processes of their own, with a relay.
type avenue struct {
	*street
	postgres *servers.PostgresServer
	nats     *servers.NATSServer // nil: it stands on a cluster
}

func openAvenue(t *testing.T, o *servers.NATSOptions, settings ...string) *avenue {
	t.Helper()
	if o == nil {
		o = &servers.NATSOptions{}
	}
	o.SyncAlways = true // as NATS advises where nothing acknowledged may be lost
	n := servers.NATS(t, o)
	a := openAvenueOn(t, servers.Postgres(t, append(settings, "fsync=on")...), n.URL)
	a.nats = n
	return a
}

// openAvenueOn makes one whose servers are there.
func openAvenueOn(t *testing.T, postgres *servers.PostgresServer, broker string) *avenue {
	t.Helper()
	a := &avenue{postgres: postgres}
	for _, role := range shop.Roles() {
		a.sql(t, "create database shop_"+role)
	}
	each := strings.Replace(a.postgres.Database("shop_role"), "/shop_role", "/shop_{role}", 1) // URL writes no braces
	a.street = openStreet(t, stack{
		db: each + "&application_name={role}", broker: broker,
		relay: a.postgres.Database("shop_order") + "&application_name=relay",
	})
	a.prices = &prices{street: a.street, database: a.postgres.Database("shop_order"), answered: map[string]int64{}}
	return a
}

// sql runs a statement as the server's administrator, and answers the texts of its first column.
func (a *avenue) sql(t *testing.T, statement string) []string {
	t.Helper()
	return query(t, a.postgres.URL, statement)
}

func query(t *testing.T, url, statement string) []string {
	t.Helper()
	db, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background()) //nolint:errcheck // the statement's error tells
	rows, err := db.Query(context.Background(), statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return texts
}

// TestKilledProcessesOnPostgresAndNATSLoseNothingAndDoubleNothing kills each role, the relay, the broker and the database.
func TestKilledProcessesOnPostgresAndNATSLoseNothingAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	a := openAvenue(t, nil)
	a.start()
	a.rounds(*killRounds, append(a.inhabitants(),
		victim{"NATS", a.nats.Kill, a.nats.Start},
		victim{"PostgreSQL", a.postgres.Kill, a.postgres.Start},
		victim{"a backend of PostgreSQL", a.killBackend, a.postgres.Answers},
	))
}

// clusterLosesItsLeader has three servers of NATS, streams with three replicas, and kills, beside each role and the relay, whichever server
// leads the stream at that moment.
func clusterLosesItsLeader(t *testing.T) {
	cluster := servers.StartNATSCluster(t, &servers.NATSOptions{SyncAlways: true})
	a := openAvenueOn(t, servers.Postgres(t, "fsync=on"), cluster.URL)
	a.start()
	var leader *servers.NATSServer
	a.rounds(max(1, *killRounds/3), append(a.inhabitants(), victim{"the stream's leader",
		func() { leader = cluster.Leader("pabal"); leader.Kill() },
		func() { leader.Start(); cluster.Current() },
	}))
}

// killBackend kills one of the order service's: the server then ends all others, and recovers as after a crash.
func (a *avenue) killBackend() {
	a.t.Helper()
	pids := a.sql(a.t, "select pid::text from pg_stat_activity where application_name = 'order' limit 1")
	if len(pids) == 0 {
		a.t.Fatal("the order service is not connected")
	}
	other, err := pgx.Connect(a.t.Context(), a.postgres.URL)
	if err != nil {
		a.t.Fatal(err)
	}
	defer other.Close(a.t.Context()) //nolint:errcheck // it is broken
	pid, err := strconv.Atoi(pids[0])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	until(a.t, "the server has noticed", func() bool { // or else it answers until it has
		_, err := other.Exec(a.t.Context(), "select 1")
		return err != nil
	})
}
