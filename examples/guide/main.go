// Command guide runs the programs of docs/guide, each in a temporary directory, on SQLite and a NATS JetStream in this process:
//
//	go run ./examples/guide ordering
//
// A file holds the program of the chapter of its name; what all of them need is here.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

// chapters are the programs.
var chapters = map[string]func(ctx context.Context, s *street) error{
	"ordering": ordering, "handlers": handlers, "failures": failures, "external-calls": externalCalls, "schemas": schemas,
	"state-or-ids": stateOrIDs, "legacy": legacy,
}

func main() {
	if len(os.Args) != 2 || chapters[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "usage: go run ./examples/guide %s\n", strings.Join(slices.Sorted(maps.Keys(chapters)), "|"))
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "guide:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, chapter string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "pabal-guide-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	s := &street{dir: dir, out: out}
	if s.broker, err = pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: quiet}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(stop)) }()
	return chapters[chapter](ctx, s)
}

var quiet = slog.New(slog.DiscardHandler)

// street is where services of a chapter live: they share a broker, and nothing else.
type street struct {
	dir      string
	out      io.Writer
	broker   *pabalnats.Broker
	services []*service
}

// service is a client with a database of its own.
type service struct {
	*pabal.Client[*sql.Tx]
	db    *sql.DB
	ended chan error // of Run; nil: it was not started
}

// open makes a service whose database has these tables.
func (s *street) open(ctx context.Context, source, tables string) (*service, error) {
	db, err := pabalsql.OpenSQLite(filepath.Join(s.dir, source+".db"), nil)
	if err != nil {
		return nil, err
	}
	v := &service{db: db}
	s.services = append(s.services, v)
	if _, err := db.ExecContext(ctx, tables); err != nil {
		return nil, err
	}
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return nil, err
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return nil, err
	}
	v.Client, err = pabal.New(ctx, store, s.broker, source, &pabal.Options{Logger: quiet, Sweep: 100 * time.Millisecond})
	return v, err
}

// start runs the services' clients, once their handlers are registered, until the chapter ends.
func (s *street) start(ctx context.Context, services ...*service) error {
	for _, v := range services {
		v.ended = make(chan error, 1)
		go func() { v.ended <- v.Run(ctx) }()
		if err := v.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends what runs, with stop, and then what it needs.
func (s *street) close(stop func()) (err error) {
	stop()
	for _, v := range s.services {
		if v.ended != nil {
			err = errors.Join(err, <-v.ended)
		}
	}
	for _, v := range s.services {
		err = errors.Join(err, v.db.Close())
	}
	return errors.Join(err, s.broker.Close())
}

func (s *street) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// record records events in a transaction of their own.
func (v *service) record(ctx context.Context, events ...pabal.Event) error {
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := v.Record(ctx, tx, events...); err != nil {
		return err
	}
	return tx.Commit()
}

// text is what a query for one text answers, "" where that is null.
func (v *service) text(ctx context.Context, query string, args ...any) (string, error) {
	var text sql.NullString
	err := v.db.QueryRowContext(ctx, query, args...).Scan(&text)
	return text.String, err
}

// until waits until a query for one text answers want.
func (v *service) until(ctx context.Context, want, query string, args ...any) error {
	for {
		is, err := v.text(ctx, query, args...)
		if is == want || err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%s answers %q, not %q: %w", query, is, want, err)
		}
	}
}

// kept waits until a consumer has so many events in a state, and answers them.
func (v *service) kept(ctx context.Context, consumer string, state driver.RowState, n int) ([]driver.Row, error) {
	for {
		rows, err := v.Received(ctx, consumer, driver.RowFilter{State: state, Limit: 100})
		if len(rows) == n || err != nil {
			return rows, err
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("%s keeps %d events, not %d: %w", consumer, len(rows), n, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Millisecond):
		return nil
	}
}
