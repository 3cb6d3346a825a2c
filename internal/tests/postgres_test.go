package tests

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

func TestMain(m *testing.M) {
	code := servers.Main(m)
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// openPostgres opens a database that goes by a name, and makes it at first.
func openPostgres(t testing.TB, name string) (*sql.DB, driver.Store[*sql.Tx]) {
	t.Helper()
	return openPostgresOn(t, servers.SharedPostgres(), name, func(url string) string { return url })
}

// openPostgresOn does so on a server, by way of another address.
func openPostgresOn(
	t testing.TB, server *servers.PostgresServer, name string, way func(url string) string,
) (*sql.DB, driver.Store[*sql.Tx]) {
	t.Helper()
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name))
	name = fmt.Sprintf("shop_%x", hash.Sum64())
	pool := func(url string) *pgxpool.Pool {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxConns = 16
		pool, err := pgxpool.NewWithConfig(context.Background(), pabalpgx.Watch(cfg))
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	admin := pool(server.URL)
	defer admin.Close()
	var there bool
	err := admin.QueryRow(t.Context(), `select exists (select from pg_database where datname = $1)`, name).Scan(&there)
	if err == nil && !there {
		_, err = admin.Exec(t.Context(), "create database "+name)
	}
	if err != nil {
		t.Fatal(err)
	}
	shop := pool(way(server.Database(name)))
	t.Cleanup(func() { go shop.Close() }) // its *sql.DB is closed by whoever runs the service
	if _, err := pabalpgx.Migrate(t.Context(), shop, nil); err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(shop)
	store, err := pabalpgx.NewSQL(db, shop, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db, store
}
