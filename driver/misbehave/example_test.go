package misbehave_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// A client lives with a store and a broker that misbehave: here ones in memory.
func Example() {
	w := world.Real()
	var store driver.Store[*sim.Tx] = sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)

	trouble := misbehave.New(7, nil)
	client, err := pabal.New(context.Background(), misbehave.Store(store, trouble), misbehave.Broker(broker, trouble), "order", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	trouble.Set(misbehave.Plan{
		"":        {Refused: 0.02, Lost: 0.02, Stalled: 0.05, StallMost: time.Second},
		"Publish": {Late: 0.05, LateMost: 5 * time.Second, HalfFailed: 0.1, Doubled: 0.1},
	})
	_ = client // records, publishes and consumes, and its test ends as it would without trouble, once the faults stop:
	trouble.Calm()
	fmt.Println(len(trouble.Done()), "kinds of fault have come")
	// Output: 0 kinds of fault have come
}

// nothing is a database in which nothing can be done but transactions.
type nothing struct{ sqldriver.Connector }

func (nothing) Connect(context.Context) (sqldriver.Conn, error) { return nothing{}, nil }
func (nothing) Prepare(string) (sqldriver.Stmt, error)          { return nil, errors.New("it does nothing") }
func (nothing) Begin() (sqldriver.Tx, error)                    { return nothing{}, nil }
func (nothing) Commit() error                                   { return nil }
func (nothing) Rollback() error                                 { return nil }
func (nothing) Close() error                                    { return nil }

// A COMMIT takes effect, and nobody knows.
func ExampleConnector() {
	trouble := misbehave.New(7, misbehave.Plan{"Commit": {Lost: 1}})
	db := sql.OpenDB(misbehave.Connector(nothing{}, trouble)) // with pabalsql.Watch around the connector
	tx, err := db.Begin()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tx.Commit())
	fmt.Println(trouble.Done())
	// Output:
	// Commit lost its answer: misbehaves on purpose
	// map[Commit Lost:1]
}

// Suites have a fixed seed, so that a failure can be repeated; PABAL_MISBEHAVE_SEED=7 go test has them meet other trouble.
func ExampleSeed() {
	_ = os.Setenv(misbehave.SeedVariable, "7")
	defer os.Unsetenv(misbehave.SeedVariable) //nolint:errcheck // of a name that is set
	fmt.Println(misbehave.Seed(1))
	// Output: 7
}
