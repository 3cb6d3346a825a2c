package main

import (
	"bufio"
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

const (
	idleSettle = 5 * time.Second
	idleLong   = 30 * time.Second
)

// idleRows looks at what is spent when nothing happens: by the whole shop, five clients in one process, and by one client that
// publishes and consumes, whose statements are counted.
func idleRows(ctx context.Context, b *bench) ([]row, error) {
	statements, err := b.idleStatements(ctx)
	if err != nil {
		return nil, err
	}
	cpu, rss, err := b.idleShop(ctx)
	if err != nil {
		return nil, err
	}
	return []row{
		{"idle client with a consumer, SQLite", fmt.Sprintf("%.2f statements/s", statements), "≤ 1 a store"},
		{"idle shop, five services and the broker in one process", fmt.Sprintf("%.2f %% of a core, %.0f MiB resident", 100*cpu, rss), "≤ 0.5 %, ≤ 60 MiB"},
	}, nil
}

func (b *bench) idleShop(ctx context.Context) (cpu, rss float64, err error) {
	dir, err := b.path("idle")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	shop := exec.CommandContext(ctx, b.binary, "shop", "--data", dir, "--listen", "127.0.0.1:0")
	out, err := shop.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := shop.Start(); err != nil {
		return 0, 0, err
	}
	defer shop.Wait() //nolint:errcheck // it is killed
	defer stop()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, 0, fmt.Errorf("the shop does not open: %w", err)
	}
	time.Sleep(idleSettle)
	before, err := cpuTimeOf(shop.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(idleLong)
	after, err := cpuTimeOf(shop.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	rss, err = residentMiB(shop.Process.Pid)
	return float64(after-before) / float64(idleLong), rss, err
}

func residentMiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(kib)[0], 64)
			return n / 1024, err
		}
	}
	return 0, errors.New("/proc tells no VmRSS")
}

func (b *bench) idleStatements(ctx context.Context) (float64, error) {
	dir, err := b.path("statements")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	inner, err := sqlitedriver.NewConnector(filepath.Join(dir, "order.db") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return 0, err
	}
	counted := &countingConnector{Connector: inner}
	db := sql.OpenDB(pabalsql.Watch(counted))
	defer db.Close() //nolint:errcheck // of a temporary file
	if _, err := pabalsql.Migrate(ctx, db, nil); err != nil {
		return 0, err
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		return 0, err
	}
	quiet := slog.New(slog.DiscardHandler)
	broker, err := pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: quiet})
	if err != nil {
		return 0, err
	}
	defer broker.Close() //nolint:errcheck // it is temporary
	client, err := pabal.New(ctx, store, broker, "order", &pabal.Options{Logger: quiet})
	if err != nil {
		return 0, err
	}
	pabal.Handle(client.Consumer("order", nil), measured, func(context.Context, *sql.Tx, pabal.Received[paid]) error { return nil })
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = client.Run(ctx) })
	if err := client.Ready(ctx); err != nil {
		return 0, err
	}
	time.Sleep(idleSettle)
	before := counted.n.Load()
	time.Sleep(idleLong)
	return float64(counted.n.Load()-before) / idleLong.Seconds(), nil
}

// countingConnector counts the statements of its connections, BEGIN and COMMIT included.
type countingConnector struct {
	sqldriver.Connector
	n atomic.Int64
}

func (c *countingConnector) Connect(ctx context.Context) (sqldriver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: conn, n: &c.n}, nil
}

type countingConn struct {
	sqldriver.Conn
	n *atomic.Int64
}

func (c *countingConn) ExecContext(ctx context.Context, q string, args []sqldriver.NamedValue) (sqldriver.Result, error) {
	c.n.Add(1)
	return c.Conn.(sqldriver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *countingConn) QueryContext(ctx context.Context, q string, args []sqldriver.NamedValue) (sqldriver.Rows, error) {
	c.n.Add(1)
	return c.Conn.(sqldriver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *countingConn) BeginTx(ctx context.Context, o sqldriver.TxOptions) (sqldriver.Tx, error) {
	c.n.Add(2) // and its end
	return c.Conn.(sqldriver.ConnBeginTx).BeginTx(ctx, o)
}

func (c *countingConn) PrepareContext(ctx context.Context, q string) (sqldriver.Stmt, error) {
	s, err := c.Conn.(sqldriver.ConnPrepareContext).PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	return &countingStmt{s, c.n}, nil
}

type countingStmt struct {
	sqldriver.Stmt
	n *atomic.Int64
}

func (s *countingStmt) ExecContext(ctx context.Context, args []sqldriver.NamedValue) (sqldriver.Result, error) {
	s.n.Add(1)
	return s.Stmt.(sqldriver.StmtExecContext).ExecContext(ctx, args)
}

func (s *countingStmt) QueryContext(ctx context.Context, args []sqldriver.NamedValue) (sqldriver.Rows, error) {
	s.n.Add(1)
	return s.Stmt.(sqldriver.StmtQueryContext).QueryContext(ctx, args)
}
