package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// postgresSettings are what a production server has on a machine of this size; the rest is PostgreSQL's defaults, so that each
// COMMIT waits for its fsync. Statements are counted only in rounds that say so.
var postgresSettings = []string{
	"fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=15min",
	"shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=none",
}

const pgConns = 40 // of a pool, whoever uses it

const services = 3 // consumers, each with a database of its own

// stand is the servers of the PostgreSQL part. All that is compared runs on them, in turn.
type stand struct {
	pg    *servers.PostgresServer
	nats  *servers.NATSServer
	admin *pgxpool.Pool
	runs  int
}

func openStand(ctx context.Context, t testing.TB) (*stand, error) {
	s := &stand{pg: servers.Postgres(t, postgresSettings...), nats: servers.NATS(t, nil)}
	var err error
	if s.admin, err = pgxpool.New(ctx, s.pg.URL); err != nil {
		return nil, err
	}
	t.Cleanup(s.admin.Close)
	_, err = s.admin.Exec(ctx, `create extension pg_stat_statements`)
	return s, err
}

// site is what one run finds: a producer's database, one for each service, and a name of its own at the broker.
type site struct {
	*stand
	name    string
	order   *pgxpool.Pool
	service [services]*pgxpool.Pool
	nc      *nats.Conn
	js      jetstream.JetStream
	trips   atomic.Int64 // writes to the producer's database: one for each round trip
	journal *journal
	closes  []func()
}

const (
	createOrder   = `create table orders (no bigint primary key, status text not null)`
	createEffects = `create table effect (no bigint not null)`
)

// open makes the databases of a run. watched: pools are Pabal's; others do without.
func (s *stand) open(ctx context.Context, watched, counted bool, journal *journal) (*site, error) {
	s.runs++
	t := &site{stand: s, name: fmt.Sprintf("run%d", s.runs), journal: journal}
	var err error
	if t.order, err = t.database(ctx, "order", createOrder, watched, counted); err != nil {
		return nil, err
	}
	for i := range t.service {
		if t.service[i], err = t.database(ctx, fmt.Sprintf("service%d", i+1), createEffects, watched, counted); err != nil {
			return nil, err
		}
	}
	if t.nc, err = nats.Connect(s.nats.URL, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return nil, err
	}
	t.closes = append(t.closes, t.nc.Close)
	t.js, err = jetstream.New(t.nc, jetstream.WithPublishAsyncMaxPending(4096))
	t.closes = append(t.closes, func() { _ = t.js.DeleteStream(context.Background(), t.name) }) // which is each contender's
	return t, err
}

func (t *site) database(ctx context.Context, role, create string, watched, counted bool) (*pgxpool.Pool, error) {
	name := t.name + "_" + role
	if _, err := t.admin.Exec(ctx, "create database "+name); err != nil {
		return nil, err
	}
	t.closes = append(t.closes, func() { _, _ = t.admin.Exec(context.Background(), "drop database "+name+" with (force)") })
	if counted {
		if _, err := t.admin.Exec(ctx, "alter database "+name+" set pg_stat_statements.track = 'top'"); err != nil {
			return nil, err
		}
	}
	cfg, err := pgxpool.ParseConfig(t.pg.Database(name))
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = pgConns
	if role == "order" {
		dial := cfg.ConnConfig.DialFunc
		cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return countedConn{c, &t.trips}, err
		}
	}
	if watched {
		cfg = pabalpgx.Watch(cfg)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.closes = append(t.closes, pool.Close)
	_, err = pool.Exec(ctx, create)
	return pool, err
}

// countedConn counts what is written in one piece: pgx sends what one round trip takes at once.
type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

func (t *site) close() {
	for n := len(t.closes) - 1; n >= 0; n-- {
		t.closes[n]()
	}
}

// usage is what has been used so far.
type usage struct {
	self, postgres, nats time.Duration // of processors
	wal, trips           int64
	statements           int64 // in the producer's database
}

func (u usage) minus(v usage) usage {
	return usage{u.self - v.self, u.postgres - v.postgres, u.nats - v.nats, u.wal - v.wal, u.trips - v.trips, u.statements - v.statements}
}

func (u usage) cpu() time.Duration { return u.self + u.postgres + u.nats }

func (t *site) usage(ctx context.Context) (u usage, err error) {
	err = t.admin.QueryRow(ctx, `select (pg_current_wal_lsn() - '0/0')::bigint, coalesce((select sum(s.calls) from pg_stat_statements s
		join pg_database d on d.oid = s.dbid where d.datname = $1), 0)::bigint`, t.name+"_order").Scan(&u.wal, &u.statements)
	u.self, u.postgres, u.nats, u.trips = cpuTime(), treeTime(t.pg.PID()), treeTime(t.nats.PID()), t.trips.Load()
	return u, err
}

// exact checks that each service has the effect of each event once.
func (t *site) exact(ctx context.Context, events int) error {
	for i, pool := range t.service {
		var all, distinct int
		if err := pool.QueryRow(ctx, `select count(*), count(distinct no) from effect`).Scan(&all, &distinct); err != nil {
			return err
		}
		if all != events || distinct != events {
			return fmt.Errorf("service %d has %d effects of %d events, %d were committed", i+1, all, distinct, events)
		}
	}
	return nil
}

// holds checks that a count in the producer's database is what it must be.
func (t *site) holds(ctx context.Context, want int, query string) error {
	var n int
	if err := t.order.QueryRow(ctx, query).Scan(&n); err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%d, expected %d: %s", n, want, query)
	}
	return nil
}

// buy is the transaction that all have in common: an order, and what is to be recorded with it.
func (t *site) buy(ctx context.Context, n int, record func(tx pgx.Tx) error) error {
	tx, err := t.order.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after Commit it does nothing
	if _, err := tx.Exec(ctx, insertOrder, n); err != nil {
		return err
	}
	if err := record(tx); err != nil {
		return err
	}
	err = tx.Commit(ctx)
	t.journal.commit(n)
	return err
}

const insertOrder = `insert into orders values ($1, 'paid')`

// quiet is where contenders log to.
var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))
