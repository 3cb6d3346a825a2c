package pabalpgx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// killing answers the database's address behind a proxy that cuts its connections when a COMMIT goes by: before the server gets
// it, or before its answer gets to the client.
func killing(t *testing.T, url string, after bool) string {
	rates := hostile.CommitRates{Refused: 1}
	if after {
		rates = hostile.CommitRates{Lost: 1}
	}
	return hostile.StartCommits(t, url, 0, rates).URL
}

func TestConnectionIsKilledDuringCommit(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("committed %v", after), func(t *testing.T) {
			t.Parallel()
			pool, url := open(t)
			p := openPost(t, pool, url)
			proxied := connect(t, killing(t, url, after))
			tx := must(proxied.Begin(t.Context()))(t)
			p.record(tx, "x")
			if err := tx.Commit(t.Context()); err == nil {
				t.Error("COMMIT was answered")
			}
			p.state("x", driver.Doubtful)
			if after {
				p.arrives("x", soon)
			} else {
				p.absent("x")
			}
		})
	}
}

// A COMMIT that the server gets when the event was looked for already, and was not there: it is published when it is due.
func TestCommitTakesEffectAfterItsClaimLooked(t *testing.T) {
	pool, url := open(t)
	p := openPost(t, pool, url)
	late := hostile.StartCommits(t, url, 0, hostile.CommitRates{Late: 1, LateBy: soon})
	tx := must(connect(t, late.URL).Begin(t.Context()))(t)
	p.record(tx, "x")
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("COMMIT was answered")
	}
	p.state("x", driver.Doubtful)
	if there := must(pgx.CollectExactlyOneRow(must(pool.Query(t.Context(), "select count(*) from pabal_event"))(t), pgx.RowTo[int]))(t); there != 0 {
		t.Error("COMMIT has taken effect")
	}
	p.arrives("x", inLease)
}

// With InTx, COMMIT travels with the events; when no answer comes, not even Record's, what was committed is claimed at once.
func TestConnectionIsKilledDuringInTx(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("committed %v", after), func(t *testing.T) {
			t.Parallel()
			pool, url := open(t)
			p := openPost(t, pool, url)
			store := must(pabalpgx.New(connect(t, killing(t, url, after)+"&default_query_exec_mode=exec"), nil))(t)
			err := store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
				tx.Record(paid.New([]byte("x")))
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), "order-paid/") || !strings.Contains(err.Error(), "commit") {
				t.Errorf("InTx answered %v, which names no event", err)
			}
			if after {
				p.arrives("x", soon)
			} else {
				p.absent("x")
			}
		})
	}
}

// serveTLS has the test's server answer with TLS, by a certificate of its own.
func serveTLS(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	authority := servers.NewAuthority(t)
	for from, to := range map[string]string{"server.pem": "server.crt", "server.key": "server.key"} { // as in its data directory by default
		text := string(must(os.ReadFile(authority.File(from)))(t))
		rows := "select unnest(string_to_array('" + strings.TrimSpace(text) + "', E'\\n'))"
		must(pool.Exec(t.Context(), "copy ("+rows+") to program 'umask 077; cat > "+to+"'"))(t)
	}
	for _, text := range []string{"alter system set ssl = on", "select pg_reload_conf()"} {
		must(pool.Exec(t.Context(), text))(t)
	}
}

// What goes by is seen as it is, not as it is encrypted, in batches, pipelines, COPY and InTx too.
func TestTLS(t *testing.T) {
	plain, address := open(t)
	serveTLS(t, plain)
	secured := func(address string) string { return address + "&sslmode=require" }
	for deadline := time.Now().Add(10 * time.Second); ; { // until the server has read its settings again
		c, err := pgx.Connect(t.Context(), secured(address))
		if err == nil {
			_ = c.Close(t.Context())
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Run("InTx", func(t *testing.T) {
		_, address := open(t)
		p := openPost(t, connect(t, secured(address)), address)
		undone := errors.New("undone")
		for name, end := range map[string]error{"kept": nil, "dropped": undone} {
			err := p.store.InTx(t.Context(), p.client, func(tx *pabalpgx.Tx) error {
				var encrypted bool
				if err := tx.QueryRow(t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&encrypted); err != nil || !encrypted {
					t.Fatalf("the connection is not encrypted (%v)", err)
				}
				tx.Record(paid.New([]byte(name)))
				return end
			})
			if !errors.Is(err, end) {
				t.Errorf("%s: %v", name, err)
			}
		}
		p.arrives("kept", soon)
		p.absent("dropped")
	})
	t.Run("Endings", func(t *testing.T) {
		// The last message before the end is written past the frontend: all that is seen of it is encrypted.
		otherwise := map[string]driver.CommitState{"the connection is closed": driver.Doubtful}
		everyEnd(t, otherwise, func(t *testing.T) (*pgxpool.Pool, string) {
			_, address := open(t)
			return connect(t, secured(address)), address
		})
	})
}

// kept counts what it is asked, and asks the next.
type kept struct{ dials, frontends, queries atomic.Int64 }

func (k *kept) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	k.queries.Add(1)
	return ctx
}

func (k *kept) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestWatchKeepsWhatTheConfigurationHas(t *testing.T) {
	_, url := open(t)
	var k kept
	cfg := must(pgxpool.ParseConfig(url))(t)
	dial, build := cfg.ConnConfig.DialFunc, cfg.ConnConfig.BuildFrontend
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		k.dials.Add(1)
		return dial(ctx, network, addr)
	}
	cfg.ConnConfig.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		k.frontends.Add(1)
		return build(r, w)
	}
	cfg.ConnConfig.Tracer = &k
	watched := pabalpgx.Watch(pabalpgx.Watch(cfg)) // twice is as good as once
	pool := must(pgxpool.NewWithConfig(t.Context(), watched))(t)
	defer pool.Close()
	store := must(pabalpgx.New(pool, nil))(t)
	if err := store.Open(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	if k.dials.Load() == 0 || k.frontends.Load() == 0 || k.queries.Load() == 0 {
		t.Errorf("%d dials, %d frontends, %d traced queries", k.dials.Load(), k.frontends.Load(), k.queries.Load())
	}
	if cfg.ConnConfig.Tracer != watched.ConnConfig.Tracer {
		t.Error("the tracer is another one")
	}
}
