// Command tutorial walks through docs/tutorial-order-payment.md: an order is paid, a settlement service shall hear of it, and
// each of four ways of telling it meets the same two accidents. It runs in a temporary directory and needs no server.
//
//	go run ./tutorial inside     # publish inside the transaction
//	go run ./tutorial after      # publish after it
//	go run ./tutorial polling    # an outbox table and a relay that polls it
//	go run ./tutorial pabal      # record in the transaction, publish after commit, confirm, republish, inbox
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

// ways are the subcommands.
var ways = map[string]func(*town) error{"inside": inside, "after": after, "polling": polling, "pabal": withPabal}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "dies" { // a child of this program, see town.childDies
		die(os.Args[2])
	}
	if len(os.Args) != 2 || ways[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go run ./tutorial inside|after|polling|pabal")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

func run(way string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "pabal-tutorial-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	t, err := open(dir, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	return ways[way](t)
}

// town is an order service's database, a settlement service's, and a broker between them that can be away.
type town struct {
	dir        string
	out        io.Writer
	orders     *sql.DB
	settlement *sql.DB
	broker     *moody
}

func open(dir string, out io.Writer) (t *town, err error) {
	t = &town{dir: dir, out: out}
	if t.orders, err = openDatabase(filepath.Join(dir, "orders.db"), "create table orders (no text primary key, status text not null)"); err != nil {
		return nil, err
	}
	t.settlement, err = openDatabase(filepath.Join(dir, "settlement.db"), "create table ledger (order_no text not null, amount integer not null)")
	if err != nil {
		return nil, err
	}
	b, err := pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	t.broker = &moody{Broker: b}
	return t, b.Check(context.Background(), driver.Topology{Topics: []driver.TopicSpec{{Name: topic}},
		Queues: []driver.QueueSpec{{Name: "settlement", Topics: []string{topic}}}}, true)
}

const topic = "order-pay-done"

func openDatabase(file, tables string) (*sql.DB, error) {
	db, err := pabalsql.OpenSQLite(file, nil)
	if err == nil {
		_, err = db.Exec(tables)
	}
	return db, err
}

func (t *town) close() error {
	return errors.Join(t.broker.Close(), t.orders.Close(), t.settlement.Close())
}

func (t *town) say(format string, args ...any) { _, _ = fmt.Fprintf(t.out, format+"\n", args...) }

// place places an order to be paid.
func (t *town) place(no string) error {
	_, err := t.orders.Exec("insert into orders values (?, 'placed')", no)
	return err
}

func (t *town) status(no string) (status string) {
	if err := t.orders.QueryRow("select status from orders where no = ?", no).Scan(&status); err != nil {
		return err.Error()
	}
	return status
}

func (t *town) ledger(no string) (n int) {
	if err := t.settlement.QueryRow("select count(*) from ledger where order_no = ?", no).Scan(&n); err != nil {
		return -1
	}
	return n
}

// settle is a settlement service without an inbox: it books what is in its queue, and acknowledges.
func (t *town) settle() error {
	ctx, stop := context.WithTimeout(context.Background(), time.Second) // what was published is there long before
	defer stop()
	for {
		deliveries, err := t.broker.Receive(ctx, "settlement", 10)
		if err != nil || ctx.Err() != nil {
			return err
		}
		for _, d := range deliveries {
			if _, err := t.settlement.Exec("insert into ledger values (?, 100)", string(d.Body)); err != nil {
				return err
			}
		}
		if err := t.broker.Ack(context.Background(), "settlement", deliveries); err != nil {
			return err
		}
	}
}

var errAway = errors.New("the broker is away")

// moody is a broker that can be away.
type moody struct {
	driver.Broker
	away atomic.Bool
}

func (m *moody) Publish(ctx context.Context, to driver.Destination, messages []driver.Message) []driver.Verdict {
	if m.away.Load() {
		verdicts := make([]driver.Verdict, len(messages))
		for i := range verdicts {
			verdicts[i].Err = errAway
		}
		return verdicts
	}
	return m.Broker.Publish(ctx, to, messages)
}

// publish sends the number of an order, as one would by hand.
func (m *moody) publish(no string) error {
	id := uuid.New()
	v := m.Publish(context.Background(), driver.Destination{Topic: topic}, []driver.Message{{ID: id, Dedup: id.String(), Body: []byte(no)}})
	if v[0].Kind != driver.Accepted {
		return v[0].Err
	}
	return nil
}

// childDies runs a child of this program that pays an order with a way of recording, and is killed (kill -9) as soon as its
// transaction has committed.
func (t *town) childDies(way string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, "dies", way)
	child.Env = append(os.Environ(), "TUTORIAL_DATABASE="+filepath.Join(t.dir, "orders.db"))
	err = child.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("the child should have been killed: %w", err)
}

// die is the child.
func die(way string) {
	db, err := pabalsql.OpenSQLite(os.Getenv("TUTORIAL_DATABASE"), nil)
	if err == nil {
		err = payAndCommit(db, way, "A2")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // committed, and nothing published yet
}
