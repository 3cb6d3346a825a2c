package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/shop"
)

type shopCommand struct {
	Roles   []string      `arg:"" optional:"" name:"role" help:"order, member, product, notification or settlement; default: all."`
	Data    string        `help:"Directory for databases and the embedded broker." default:"./pabal-data" env:"PABAL_DATA"`
	DB      string        `name:"db" help:"Databases of the roles, instead of files in the data directory: {role} in it stands for a role's name (mysql://USER@HOST/shop_{role})." placeholder:"ADDRESS" env:"PABAL_SHOP_DB"`
	Listen  string        `help:"Address of the HTTP API." default:"127.0.0.1:8080" env:"PABAL_LISTEN"`
	Deliver string        `help:"How notifications go out: log, an http(s) URL, or smtp://USER:PASSWORD@HOST:PORT?from=ADDRESS." default:"log" env:"PABAL_DELIVER"`
	Load    string        `help:"Make traffic, RATE/s or max, then reconcile and exit." placeholder:"RATE"`
	For     time.Duration `help:"How long to make traffic." default:"1m"`
	Seed    uint64        `help:"Seed of the traffic." default:"1"`
	Target  string        `help:"Make traffic on a shop that runs elsewhere, and do not reconcile." placeholder:"URL"`
	Check   bool          `help:"Reconcile the books and exit; the shop may be running."`
	Wait    time.Duration `help:"How long a reconciliation waits for what is on its way. An event that many publishes failed for is next tried after up to 5m." default:"1m"`
	brokerFlags
	endpointFlags
}

// house is the running shop.
type house struct {
	a         *app
	broker    driver.Broker
	endpoints *endpoints
	databases map[string]*database
	services  []shop.Service
	clients   []*pabal.Client[*sql.Tx]
	operators map[string]*pabal.Operator
	mux       *http.ServeMux
}

func (c *shopCommand) Run(a *app) error {
	rate, err := c.check()
	if err != nil {
		return err
	}
	if c.Target != "" {
		_, err := c.load(a, c.Target, rate)
		return err
	}
	if c.Check {
		return c.reconcile(a)
	}
	h, err := c.open(a)
	if err != nil {
		return err
	}
	defer h.close()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return usage("--listen: %w", err)
	}
	address := "http://" + listener.Addr().String()
	if os.Getenv("GOMAXPROCS") == "" {
		// A goroutine that waits for fsync keeps its processor until the runtime takes it away: with two, and six files
		// that are synced, the others wait too. Twice as many made 525 paid orders/s of 470 (bench, -only shop).
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
	ctx, stop := context.WithCancel(a.ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		defer stop() // nobody waits for what has ended
		done <- h.run(ctx, listener)
	}()
	if err := h.ready(ctx); err != nil { // it ends before it was open, which only traffic fails for
		if ended := <-done; ended != nil || c.Load == "" {
			return ended
		}
		return err
	}
	c.greet(a, address)
	if c.Load == "" {
		return <-done
	}
	traffic, err := c.load(a, address, rate)
	if err == nil {
		err = h.reconcile(a, traffic, c.Wait)
	}
	stop()
	return errors.Join(err, <-done)
}

func (c *shopCommand) check() (rate float64, err error) {
	for _, role := range c.Roles {
		if !slices.Contains(shop.Roles(), role) {
			return 0, usage("role %q: one of %s", role, strings.Join(shop.Roles(), ", "))
		}
	}
	if len(c.Roles) == 0 {
		c.Roles = shop.Roles()
	}
	if c.DB != "" && len(c.Roles) != 1 && !strings.Contains(c.DB, "{role}") {
		return 0, usage("--db is of one role; with {role} in it, of each: the roles share no database")
	}
	if c.Broker == "" {
		c.Broker = "embedded:" + filepath.Join(c.Data, "nats")
	}
	switch c.Load {
	case "", "max":
	default:
		number, perSecond := strings.CutSuffix(c.Load, "/s")
		rate, err = strconv.ParseFloat(number, 64)
		if !perSecond || err != nil || !(rate > 0 && rate <= 1e6) { // "NaN" is a number too
			return 0, usage("--load %q: give RATE/s, such as 200/s, or max", c.Load)
		}
	}
	if c.Wait <= 0 {
		return 0, usage("--wait %v: a time above 0", c.Wait)
	}
	if c.Target != "" && c.Load == "" {
		return 0, usage("--target needs --load")
	}
	if c.For <= 0 {
		return 0, usage("--for %v: give a time above 0", c.For)
	}
	return rate, nil
}

func (c *shopCommand) open(a *app) (_ *house, err error) {
	delivery, err := c.delivery(a)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Data, 0o750); err != nil {
		return nil, usage("--data: %w", err)
	}
	h := &house{a: a, databases: map[string]*database{}, operators: map[string]*pabal.Operator{}, mux: http.NewServeMux()}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.endpoints, err = c.endpointFlags.open(a); err != nil {
		return nil, err
	}
	if h.broker, err = openBroker(a, c.Broker); err != nil {
		return nil, err
	}
	for _, role := range c.Roles {
		if err := c.openRole(h, role, delivery); err != nil {
			return nil, fmt.Errorf("role %s: %w", role, err)
		}
	}
	h.endpoints.started()
	return h, nil
}

// address is that of a role's database.
func (c *shopCommand) address(role string) string {
	if c.DB == "" {
		return "sqlite:" + filepath.Join(c.Data, role+".db")
	}
	return strings.ReplaceAll(c.DB, "{role}", role)
}

func (c *shopCommand) openRole(h *house, role string, delivery shop.Delivery) error {
	d, err := openDatabase(c.address(role), "")
	if err != nil {
		return err
	}
	h.databases[role] = d
	observer, metrics, err := h.endpoints.observe(role)
	if err != nil {
		return err
	}
	var client *pabal.Client[*sql.Tx]
	var service shop.Service
	err = patiently(h.a, h.endpoints, role, func() error {
		if _, err := d.migrate(h.a.ctx); err != nil {
			return err
		}
		if _, _, err := shop.Migrate(h.a.ctx, d.db, d.dialect, role); err != nil {
			return err
		}
		client, err = pabal.New(h.a.ctx, d.store, h.broker, role,
			&pabal.Options{Logger: h.a.log, FixedTopology: c.Fixed, Observer: observer})
		if err != nil {
			return err
		}
		service, err = shop.Open(h.a.ctx, role, d.db, client, &shop.Options{Dialect: d.dialect, Delivery: delivery, Logger: h.a.log})
		return err
	})
	if err != nil {
		return err
	}
	if err := h.endpoints.watch(role, client.Operator, h.broker, metrics, client.Reachable, client.Ready); err != nil {
		return err
	}
	service.Mount(h.mux)
	service.Consume(client)
	h.services = append(h.services, service)
	h.clients = append(h.clients, client)
	h.operators[role] = client.Operator
	return nil
}

func (c *shopCommand) delivery(a *app) (shop.Delivery, error) {
	if c.Deliver == "log" {
		level := slog.LevelInfo
		return shop.DeliverByLog(a.log, level), nil
	}
	u, err := url.Parse(c.Deliver)
	if err != nil { // it repeats parts of the URL, perhaps of a password that is not encoded
		return nil, usage("--deliver %s: no URL", redacted(c.Deliver))
	}
	switch u.Scheme {
	case "http", "https":
		if u.Hostname() == "" {
			return nil, usage("--deliver %s: the host is missing", redacted(c.Deliver))
		}
		return shop.DeliverByWebhook(c.Deliver, &http.Client{Timeout: 10 * time.Second}), nil
	case "smtp":
		server := shop.Mail{Addr: u.Host, From: u.Query().Get("from")}
		if password, ok := u.User.Password(); ok {
			server.Auth = smtp.PlainAuth("", u.User.Username(), password, u.Hostname())
		}
		delivery, err := shop.DeliverByMail(server)
		if err != nil {
			return nil, usage("--deliver: %w", err)
		}
		return delivery, nil
	}
	return nil, usage("--deliver %q: log, an http(s) URL or smtp://…", redacted(c.Deliver))
}

// run serves, publishes and consumes until ctx ends or a part fails.
func (h *house) run(ctx context.Context, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := &http.Server{
		Handler: h.mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute,
	}
	errs := make(chan error, len(h.clients)+len(h.services)+2)
	var parts sync.WaitGroup
	start := func(part func() error) {
		parts.Go(func() {
			err := part()
			if err != nil {
				stop() // the others end too
			}
			errs <- err
		})
	}
	// Requests end before the clients do, so that what they commit is still published.
	clients, stopClients := context.WithCancel(context.WithoutCancel(ctx))
	for _, client := range h.clients {
		start(func() error { return client.Run(clients) })
	}
	for _, service := range h.services {
		start(func() error { return service.Run(clients) })
	}
	start(func() error {
		if h.ready(clients) != nil {
			return nil //nolint:nilerr // it ends before it was open, for a reason that another part tells
		}
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	start(func() error {
		<-ctx.Done()
		h.endpoints.drain()
		defer stopClients()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(grace)
	})
	parts.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// ready waits until every queue is subscribed: what is published before would reach nobody.
func (h *house) ready(ctx context.Context) error {
	for _, client := range h.clients {
		if err := client.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h *house) close() {
	h.endpoints.close()
	for _, service := range h.services {
		_ = service.Close()
	}
	if h.broker != nil {
		_ = h.broker.Close()
	}
	for _, d := range h.databases {
		d.close()
	}
}

func (c *shopCommand) greet(a *app, address string) {
	if a.json {
		if c.Load == "" { // else the answer is an account of it
			_ = printJSON(a.stdout, map[string]any{"open": address, "roles": c.Roles})
		}
		return
	}
	_, _ = fmt.Fprintf(a.stdout, "pabal shop (%s) is open at %s\n", strings.Join(c.Roles, ", "), address)
	if len(c.Roles) < len(shop.Roles()) || c.Load != "" {
		return
	}
	_, _ = fmt.Fprintf(a.stdout, `
Things to try:

  1. Offer something, and order it:
     curl -X PUT %[1]s/products/tea/price -H 'Content-Type: application/json' -d '{"sellerId":"kim","name":"Green tea","price":{"amount":12000,"currency":"KRW"}}'
     curl -X POST %[1]s/orders -H 'Content-Type: application/json' -H "Idempotency-Key: first" -d '{"memberId":"lee","lines":[{"productId":"tea","quantity":2}]}'

  2. Pay the order, with the number that the last answer told:
     curl -X POST %[1]s/orders/NUMBER/payment -H 'Content-Type: application/json' -d '{"paymentId":"p-1","amount":{"amount":24000,"currency":"KRW"}}'

  3. See that three services know it:
     curl '%[1]s/notifications?member=lee'; curl %[1]s/settlements/ledger/NUMBER; %[3]s status --db %[2]s

`, address, redacted(c.address("order")), invocation())
}

// invocation is how this program was called, to be called again.
func invocation() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/pabal"
	}
	return os.Args[0]
}

// redacted is an address without its password, or token.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || strings.Count(address, "//") > 1 || strings.Contains(u.Opaque+u.Path+u.Fragment, "@") {
		return userinfo.ReplaceAllString(address, "${1}xxxxx@")
	}
	if _, has := u.User.Password(); !has && u.User != nil && (u.Scheme == "nats" || u.Scheme == "tls") {
		u.User = url.User("xxxxx") // to NATS it is a token
	}
	return u.Redacted()
}

// userinfo is what stands before the last host of an address that is no URL: a list of servers, or a password that is not encoded.
var userinfo = regexp.MustCompile(`(?s)^((?:[a-z+]+:)?(?://)?).*@`)
