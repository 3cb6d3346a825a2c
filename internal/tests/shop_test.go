package tests

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/shop"
)

// station is a running service of the shop, and what lies beneath it.
type station struct {
	db      *sql.DB
	client  *pabal.Client[*sql.Tx]
	service shop.Service
}

// village is a whole shop in one process: a database per service, one embedded broker.
type village struct {
	stations map[string]*station
	server   *httptest.Server
	stop     func()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// openVillage opens a shop in dir, listening at addr, and runs it until stop is called, or the test ends.
func openVillage(t testing.TB, dir, addr string) *village {
	t.Helper()
	nats := pabalnats.Options{Logger: quiet()}
	if on.trouble != nil {
		nats.Hold = 2 * time.Second // what is lost on its way to a consumer comes again soon
	}
	embedded, err := pabalnats.Open(filepath.Join(dir, "nats"), &nats)
	if err != nil {
		t.Fatal(err)
	}
	var broker driver.Broker = embedded
	if on.trouble != nil {
		broker = misbehave.Broker(embedded, on.trouble)
	}
	o := shop.Options{Logger: quiet()}
	v := &village{stations: map[string]*station{}}
	var services []shop.Service
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	for _, role := range shop.Roles() {
		s := openStation(t, filepath.Join(dir, role+".db"), role, broker, o)
		v.stations[role] = s
		services = append(services, s.service)
		s.service.Consume(s.client)
		tasks.Go(func() {
			if err := s.client.Run(ctx); err != nil {
				t.Errorf("run %s: %v", role, err)
			}
		})
		tasks.Go(func() {
			if err := s.service.Run(ctx); err != nil {
				t.Errorf("run %s: %v", role, err)
			}
		})
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	v.server = httptest.NewUnstartedServer(shop.Handler(services...))
	_ = v.server.Listener.Close() // the one of httptest
	v.server.Listener = listener
	v.server.Start()
	v.stop = sync.OnceFunc(func() {
		v.server.Close()
		cancel()
		tasks.Wait()
		for role, s := range v.stations {
			if err := s.service.Close(); err != nil {
				t.Errorf("close %s: %v", role, err)
			}
			if err := s.db.Close(); err != nil {
				t.Errorf("close database of %s: %v", role, err)
			}
		}
		if err := broker.Close(); err != nil {
			t.Errorf("close broker: %v", err)
		}
	})
	t.Cleanup(v.stop)
	return v
}

// openStation opens a service without running it. Its database is closed by whoever runs it.
func openStation(t testing.TB, file, role string, broker driver.Broker, o shop.Options) *station {
	t.Helper()
	db, store := on.open(t, file)
	o.Dialect = on.dialect
	if _, _, err := shop.Migrate(t.Context(), db, on.dialect, role); err != nil {
		t.Fatal(err)
	}
	options := pabal.Options{Logger: quiet()}
	if on.trouble != nil {
		store = misbehave.Store(store, on.trouble)
		options.PublishTimeout, options.Lease, options.Sweep = time.Second, 3*time.Second, 200*time.Millisecond
		options.RepublishAfter = 2 * time.Minute
	}
	client, err := pabal.New(t.Context(), store, broker, role, &options)
	if err != nil {
		t.Fatal(err)
	}
	service, err := shop.Open(t.Context(), role, db, client, &o)
	if err != nil {
		t.Fatal(err)
	}
	return &station{db: db, client: client, service: service}
}

// books are the village's books.
func (v *village) books(wait time.Duration) shop.Books {
	return shop.Books{
		Order: v.stations["order"].db, Notification: v.stations["notification"].db, Settlement: v.stations["settlement"].db,
		Dialect: on.dialect, Wait: wait, Owed: v.owed,
		Events: func(ctx context.Context) (map[string]shop.Tally, error) {
			return tally(ctx, v.stations["order"].client.Operator)
		},
	}
}

// owed says which events are unconfirmed, held or parked.
func (v *village) owed(ctx context.Context) (string, error) {
	var owed []string
	for _, role := range shop.Roles() {
		s, err := v.stations[role].client.Status(ctx)
		if err != nil {
			return "", err
		}
		for _, topic := range s.Topics {
			if n := topic.Waiting + topic.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%d events of %s/%s unconfirmed", n, role, topic.Name))
			}
		}
		for _, c := range s.Consumers {
			if n := c.Held + c.Parked; n > 0 {
				owed = append(owed, fmt.Sprintf("%d events held or parked by %s", n, c.Consumer))
			}
		}
	}
	return strings.Join(owed, ", "), nil
}

// tally counts a store's events by type.
func tally(ctx context.Context, o *pabal.Operator) (map[string]shop.Tally, error) {
	counts := map[string]shop.Tally{}
	f := driver.EventFilter{Limit: 1000}
	for {
		found, err := o.Events(ctx, f)
		if err != nil || len(found) == 0 {
			return counts, err
		}
		for i := range found {
			c := counts[found[i].Event.Type]
			c.Recorded++
			if found[i].Pending == nil && !found[i].Event.PublishedAt.IsZero() {
				c.Confirmed++
			}
			counts[found[i].Event.Type] = c
		}
		f.After = found[len(found)-1].Event.Ref()
	}
}

func TestBooksAgreeAfterTraffic(t *testing.T) {
	v := openVillage(t, t.TempDir(), "127.0.0.1:0")
	traffic, err := shop.Load{URL: v.server.URL, For: 2 * time.Second, Seed: 1}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reconciled(t, v, traffic, time.Minute)
}

func TestBooksAgreeAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	v := openVillage(t, dir, "127.0.0.1:0")
	addr := v.server.Listener.Addr().String()
	var traffic *shop.Traffic
	var loading sync.WaitGroup
	seconds := make(chan shop.Progress, 100)
	loading.Go(func() {
		var err error
		load := shop.Load{URL: "http://" + addr, For: 4 * time.Second, Seed: 2, Rate: 200,
			Progress: func(p shop.Progress) { seconds <- p }}
		if traffic, err = load.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		<-seconds
		v.stop()
		v = openVillage(t, dir, addr)
	}
	loading.Wait()
	if traffic.Repeated == 0 {
		t.Error("the shop was never away")
	}
	reconciled(t, v, traffic, time.Minute)
}

// reconciled fails the test unless the books agree, with each other and with what the load was answered.
func reconciled(t *testing.T, v *village, traffic *shop.Traffic, wait time.Duration) {
	t.Helper()
	for _, complaint := range traffic.Complaints {
		t.Error(complaint)
	}
	r, err := shop.Reconcile(t.Context(), v.books(wait))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *r)
	for _, difference := range r.Differences {
		t.Error(difference)
	}
	if int64(r.Paid) != traffic.Paid || int64(r.Placed) != traffic.Placed || int64(r.Cancelled) != traffic.Cancelled {
		t.Errorf("books: %d placed, %d paid, %d cancelled; answered: %d, %d, %d",
			r.Placed, r.Paid, r.Cancelled, traffic.Placed, traffic.Paid, traffic.Cancelled)
	}
	if r.Paid == 0 || r.Refunded == 0 {
		t.Errorf("a load without payments or refunds proves nothing: %+v", *r)
	}
}
