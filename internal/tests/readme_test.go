package tests

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsql"
)

// The README's ten lines, and what is around them. TestReadmeShowsThisProgram compares.

type Paid struct {
	OrderNo string `json:"orderNo"`
	Amount  int    `json:"amount"`
}

// README begins
var OrderPaid = pabal.Define("order-pay-done", pabal.Key(func(p Paid) string { return p.OrderNo }))

// README ends

func readme(ctx context.Context, db *sql.DB, store driver.Store[*sql.Tx], broker driver.Broker, stop func()) (err error) {
	// README begins
	client, err := pabal.New(ctx, store, broker, "order", nil)

	// README ends
	if err != nil {
		return err
	}
	record := func(tx *sql.Tx, paid Paid) error {
		// README begins
		// in the order service: the caller's own transaction
		_, err = tx.ExecContext(ctx, "update orders set status = 'paid' where no = ?", paid.OrderNo)
		err = client.Record(ctx, tx, OrderPaid.New(paid))
		err = tx.Commit() // published; nothing else to call

		// README ends
		return err
	}
	pay := func() {
		if err := client.Ready(ctx); err != nil {
			panic(err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err == nil {
			err = record(tx, Paid{"A1", 100})
		}
		if err != nil {
			panic(err)
		}
	}
	// The ledger has one entry: stop.
	go func() {
		pay()
		for n := 0; n == 0 && ctx.Err() == nil; {
			_ = db.QueryRowContext(ctx, "select count(*) from ledger").Scan(&n)
		}
		stop()
	}()
	// README begins
	// in the settlement service
	settlement := client.Consumer("settlement", nil)
	pabal.Handle(settlement, OrderPaid, func(ctx context.Context, tx *sql.Tx, e pabal.Received[Paid]) error {
		_, err := tx.ExecContext(ctx, "insert into ledger (order_no, amount) values (?, ?)", e.Data.OrderNo, e.Data.Amount)
		return err
	})
	err = client.Run(ctx)
	// README ends
	return err
}

func TestReadmeProgramHandlesItsEvent(t *testing.T) {
	dir := t.TempDir()
	db, err := pabalsql.OpenSQLite(filepath.Join(dir, "order.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"create table orders (no text primary key, status text)", "create table ledger (order_no text, amount integer)",
		"insert into orders values ('A1', 'placed')",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	broker, err := pabalnats.Open(filepath.Join(dir, "nats"), &pabalnats.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broker.Close() }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := readme(ctx, db, store, broker, stop); err != nil {
		t.Fatal(err)
	}
	var amount int
	if err := db.QueryRowContext(t.Context(), "select sum(amount) from ledger").Scan(&amount); err != nil || amount != 100 {
		t.Fatalf("the ledger's sum is %d, %v", amount, err)
	}
}

const top = "../.."

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the code blocks of a page in a language.
func blocks(page, language string) (found []string) {
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		found = append(found, m[1])
	}
	return found
}

// flat removes indentation and alignment.
func flat(code string) string {
	var lines []string
	for line := range strings.Lines(code) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

func TestReadmeShowsThisProgram(t *testing.T) {
	var program []string
	for _, m := range regexp.MustCompile(`(?s)// README begins\n(.*?)\s*// README ends\n`).FindAllStringSubmatch(text(t, "internal/tests/readme_test.go"), -1) {
		program = append(program, flat(m[1]))
	}
	want := strings.Join(program, "\n\n")
	for _, name := range []string{"README.md", "README.ko.md"} {
		if got := flat(blocks(text(t, name), "go")[0]); got != want {
			t.Errorf("%s shows another program than readme_test.go:\n%s\n--- and not\n%s", name, got, want)
		}
	}
}

func TestReadmesSayTheSame(t *testing.T) {
	english, korean := text(t, "README.md"), text(t, "README.ko.md")
	for _, of := range []string{`(?m)^## `, `(?m)^\|`, "(?m)^```", `(?m)^- `} {
		pattern := regexp.MustCompile(of)
		if e, k := len(pattern.FindAllString(english, -1)), len(pattern.FindAllString(korean, -1)); e != k {
			t.Errorf("README.md has %d of %q, README.ko.md %d", e, of, k)
		}
	}
}

func TestLinksOfThePagesResolve(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(top, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"*.md", "docs/decisions/*.md", "docs/guide/*.md"} {
		found, _ := filepath.Glob(filepath.Join(top, more))
		pages = append(pages, found...)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(string(content), "") // code has brackets of its own
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}
