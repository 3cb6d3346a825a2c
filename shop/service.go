package shop

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/pabal-go/pabal"
)

// Roles are the names of the services: the sources of their events, the names of their consumers, what the command line
// takes.
func Roles() []string { return []string{"order", "member", "product", "notification", "settlement"} }

// Service is one of the shop's services.
type Service interface {
	// Mount registers the service's HTTP endpoints.
	Mount(mux *http.ServeMux)
	// Consume registers what the service does with events, before the client runs. Services that consume none do nothing.
	Consume(client *pabal.Client[*sql.Tx])
	// Run does the service's tasks until ctx ends. Services without any return at once.
	Run(ctx context.Context) error
	// Close releases what the service holds of its database, which it leaves open.
	Close() error
}

// Recorder records events in a transaction: a pabal.Client, or, in a benchmark, nothing.
type Recorder interface {
	Record(ctx context.Context, tx *sql.Tx, events ...pabal.Event) error
}

// Options of [Open]. Nil and zero values are the good defaults.
type Options struct {
	// Dialect names the folder with the SQL of the database. Default "sqlite".
	Dialect string
	// Consumer has the options of the service's consumer. Default: one transaction at a time, of up to 256 events, which
	// suits a database with one writer.
	Consumer *pabal.ConsumerOptions
	// Delivery is how the notification service delivers messages. Default: it logs them at level debug, for they are many.
	Delivery Delivery
	Logger   *slog.Logger // default slog.Default()
}

// Open opens a service on a database that has been migrated. Its events go to rec, which the caller makes of the same
// database, with the role as source.
func Open(ctx context.Context, role string, db *sql.DB, rec Recorder, o *Options) (Service, error) {
	switch role {
	case "order":
		return OpenOrders(ctx, db, rec, o)
	case "member":
		return OpenMembers(ctx, db, rec, o)
	case "product":
		return OpenProducts(ctx, db, rec, o)
	case "notification":
		return OpenNotifications(ctx, db, o)
	case "settlement":
		return OpenSettlements(ctx, db, o)
	}
	return nil, fmt.Errorf("shop has no role %q: one of %v", role, Roles())
}

// base is what services share.
type base struct {
	*database
	role     string
	rec      Recorder
	consumer pabal.ConsumerOptions
	log      *slog.Logger
}

func open(ctx context.Context, role string, db *sql.DB, rec Recorder, o *Options) (base, error) {
	f := Options{}
	if o != nil {
		f = *o
	}
	if f.Consumer == nil {
		f.Consumer = &pabal.ConsumerOptions{Concurrency: 1, Batch: 256}
	}
	if f.Logger == nil {
		f.Logger = slog.Default()
	}
	d, err := openDatabase(ctx, db, f.Dialect, role)
	if err != nil {
		return base{}, fmt.Errorf("open database of service %s: %w", role, err)
	}
	return base{database: d, role: role, rec: rec, consumer: *f.Consumer, log: f.Logger.With("role", role)}, nil
}

// Consume and Run do nothing for services that have nothing to do there.
func (b *base) Consume(*pabal.Client[*sql.Tx]) {}
func (b *base) Run(context.Context) error      { return nil }

// now is the moment of a state change, in the resolution that every database keeps.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Times are stored as milliseconds since 1970, which every database has a type for.
func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func fromNullMillis(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := fromMillis(ms.Int64)
	return &t
}
