package pabalpgx_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalpgx"
)

// Whoever reads hears that nothing can be written on a server that follows another; not of a role that is there for looking.
func TestReadSaysThatTheDatabaseOnlyReads(t *testing.T) {
	server := servers.Postgres(t, "hot_standby=on") // of its own
	server.URL += "&connect_timeout=5"
	pool := connect(t, server.URL)
	must(pabalpgx.Migrate(t.Context(), pool, nil))(t)
	says := func(url string, want bool) {
		t.Helper()
		store := must(pabalpgx.New(connect(t, url), nil))(t)
		for _, q := range []driver.Query{{}, {Topics: true}} {
			if got := must(store.Read(t.Context(), q))(t).ReadOnly; got != want {
				t.Errorf("with topics %v it only reads: %v", q.Topics, got)
			}
		}
	}
	says(server.URL, false)
	says(server.URL+"&options=-c%20default_transaction_read_only%3Don", false)

	server.Kill()
	if err := os.WriteFile(filepath.Join(server.Dir, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	server.Start()
	standby := connect(t, server.URL)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-ticker.C { // until it has read what it wrote
		err := standby.Ping(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	says(server.URL, true)
}
