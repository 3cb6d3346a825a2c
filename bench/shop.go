package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalsql"
	"github.com/pabal-go/pabal/shop"
)

// shopRows compares the whole shop, with five databases, a broker and a reconciliation, against its order service alone:
// the same requests and the same transactions, but no events.
func shopRows(ctx context.Context, b *bench) ([]row, error) {
	var syncs, plain, whole, ratio []float64
	for range b.rounds {
		n, err := b.syncRate()
		if err != nil {
			return nil, err
		}
		p, err := b.withoutEvents(ctx)
		if err != nil {
			return nil, fmt.Errorf("without events: %w", err)
		}
		w, err := b.withEvents(ctx)
		if err != nil {
			return nil, fmt.Errorf("with events: %w", err)
		}
		syncs, plain, whole, ratio = append(syncs, n), append(plain, p), append(whole, w), append(ratio, w/p)
	}
	return []row{
		{"fsync of 4 KiB appended to a file", spread(syncs, "%.0f") + " a second", ""},
		{"order service alone, no events", spread(plain, "%.0f") + " paid orders/s", ""},
		{"pabal shop --load max, reconciled", spread(whole, "%.0f") + " paid orders/s", ""},
		{"ratio of the two", spread(ratio, "%.2f"), "≥ 0.5"},
	}, nil
}

// syncRate is how many appends of 4 KiB a second the disk makes durable, one after the other.
func (b *bench) syncRate() (float64, error) {
	f, err := os.CreateTemp(b.dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it is temporary
	n, start := 0, time.Now()
	for block := make([]byte, 4096); time.Since(start) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

var paidRate = regexp.MustCompile(`(\d+) paid orders/s`)

// withEvents runs the shop as a user would.
func (b *bench) withEvents(ctx context.Context) (float64, error) {
	dir, err := b.path("shop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	out, err := exec.CommandContext(ctx, b.binary, "shop", "--data", dir, "--listen", "127.0.0.1:0",
		"--load", "max", "--for", b.each.String()).Output()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	m := paidRate.FindSubmatch(out)
	if m == nil || !strings.Contains(string(out), "reconciled:") {
		return 0, fmt.Errorf("the shop did not reconcile: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// nobody records nothing.
type nobody struct{}

func (nobody) Record(context.Context, *sql.Tx, ...pabal.Event) error { return nil }

// withoutEvents makes the same traffic on the services that it meets, whose events nobody records. Of prices the order
// service, which would hear of them by events, is told at first.
func (b *bench) withoutEvents(ctx context.Context) (float64, error) {
	dir, err := b.path("plain")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	mux := http.NewServeMux()
	for _, role := range []string{"order", "member", "product"} {
		db, err := pabalsql.OpenSQLite(filepath.Join(dir, role+".db"), nil)
		if err != nil {
			return 0, err
		}
		defer db.Close() //nolint:errcheck // of a temporary file
		if _, _, err := shop.Migrate(ctx, db, "sqlite", role); err != nil {
			return 0, err
		}
		service, err := shop.Open(ctx, role, db, nobody{}, &shop.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return 0, err
		}
		defer service.Close() //nolint:errcheck // of a temporary file
		service.Mount(mux)
		if orders, ok := service.(*shop.Orders); ok {
			if err := tellPrices(ctx, db, orders); err != nil {
				return 0, err
			}
		}
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	traffic, err := shop.Load{URL: server.URL, For: b.each, Seed: 1}.Run(ctx)
	if err != nil {
		return 0, err
	}
	if traffic.Wrong > 0 {
		return 0, fmt.Errorf("%d answers were wrong: %v", traffic.Wrong, traffic.Complaints)
	}
	return float64(traffic.Paid) / traffic.Elapsed.Seconds(), nil
}

func tellPrices(ctx context.Context, db *sql.DB, orders *shop.Orders) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	var events []pabal.Received[shop.PriceChanged]
	for _, p := range shop.LoadPrices() {
		events = append(events, pabal.Received[shop.PriceChanged]{ID: uuid.New(), Key: p.ProductID, Data: p})
	}
	if err := orders.Priced(ctx, tx, events); err != nil {
		return err
	}
	return tx.Commit()
}
