package pabalsql_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/pabalsql"
)

// A COMMIT that fails below the watch is doubtful, whether or not it took effect, and the connection goes on.
func TestCommitThatMisbehavesIsDoubtful(t *testing.T) {
	trouble := misbehave.New(1, nil)
	connector, err := sqlitedriver.NewConnector("file:" + filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(pabalsql.Watch(misbehave.Connector(connector, trouble)))
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	migrate(t, db, nil)
	s, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		rates     misbehave.Rates
		fails     bool
		committed int
		state     driver.CommitState
	}{
		{"nothing", misbehave.Rates{}, false, 1, driver.Proven},
		{"slow", misbehave.Rates{Stalled: 1, StallMost: time.Millisecond}, false, 1, driver.Proven},
		{"refused", misbehave.Rates{Refused: 1}, true, 0, driver.Doubtful},
		{"lost", misbehave.Rates{Lost: 1}, true, 1, driver.Doubtful},
	} {
		state := driver.Void
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		events := []driver.Event{{ID: uuid.New(), Topic: "paid", Type: "paid", Payload: []byte("{}")}}
		if err := s.Record(t.Context(), tx, driver.Recording{Events: events, Outcome: func(s driver.CommitState) { state = s }}); err != nil {
			t.Fatal(err)
		}
		trouble.Set(misbehave.Plan{"Commit": c.rates})
		err = tx.Commit()
		trouble.Calm()
		var committed int
		if err := db.QueryRow("select count(*) from pabal_event where id = ?", events[0].ID[:]).Scan(&committed); err != nil {
			t.Fatal(err)
		}
		if c.fails != errors.Is(err, misbehave.Err) || committed != c.committed || state != c.state {
			t.Errorf("%s: %v, %d events are committed, which is %v", c.name, err, committed, state)
		}
	}
}
