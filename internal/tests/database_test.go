package tests

import (
	"crypto/sha1"
	"database/sql"
	"encoding/hex"
	"testing"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsql"
)

// kind is a kind of database for the shop: its dialect, and how one with Pabal's tables is opened that is named by a file.
type kind struct {
	dialect string
	open    func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx])
	trouble *misbehave.Trouble // unless nil, services live with stores and brokers that misbehave
}

var onSQLite = kind{dialect: "sqlite", open: func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
	db, err := pabalsql.OpenSQLite(file, nil)
	return migrated(t, db, err)
}}

// migrated makes Pabal's tables in a database that was just opened.
func migrated(t testing.TB, db *sql.DB, err error) (*sql.DB, driver.Store[*sql.Tx]) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pabalsql.Migrate(t.Context(), db, nil); err != nil {
		t.Fatal(err)
	}
	store, err := pabalsql.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db, store
}

// on is where the tests that run now keep their databases. Tests of this package do not run in parallel.
var on = onSQLite

func openDatabase(t testing.TB, file string) *sql.DB {
	t.Helper()
	db, _ := on.open(t, file)
	return db
}

// databaseOf names the database of a server that stands for a file.
func databaseOf(file string) string {
	sum := sha1.Sum([]byte(file)) // a name, no secret
	return "shop_" + hex.EncodeToString(sum[:12])
}

// newMariaDB makes the database of a server that stands for a file, unless it is there.
func newMariaDB(t testing.TB, m *servers.MariaDB, file string) string {
	t.Helper()
	name := databaseOf(file)
	m.Admin(t, "create database if not exists "+name)
	t.Cleanup(func() { m.Admin(t, "drop database if exists "+name) })
	return name
}

// TestShopOnMariaDB runs the shop's tests once more, on a server.
func TestShopOnMariaDB(t *testing.T) {
	m := servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true})
	defer func() { on = onSQLite }()
	on = kind{dialect: "mysql", open: func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
		db, err := pabalsql.OpenMySQL(m.DSN(newMariaDB(t, m, file), ""), nil)
		return migrated(t, db, err)
	}}
	runShopTests(t)
}

// TestShopOnPostgres does the same on PostgreSQL.
func TestShopOnPostgres(t *testing.T) {
	defer func() { on = onSQLite }()
	on = kind{dialect: "postgres", open: openPostgres}
	runShopTests(t)
}

func runShopTests(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"BooksAgreeAfterTraffic":                  TestBooksAgreeAfterTraffic,
		"BooksAgreeAcrossRestarts":                TestBooksAgreeAcrossRestarts,
		"SameKeyPlacesOneOrder":                   TestSameKeyPlacesOneOrder,
		"OrdersAreRefused":                        TestOrdersAreRefused,
		"OneOfManyPaymentsWins":                   TestOneOfManyPaymentsWins,
		"PaymentAndCancellationAgreeWhoWasFirst":  TestPaymentAndCancellationAgreeWhoWasFirst,
		"ListsGoOnWhereTheyEnded":                 TestListsGoOnWhereTheyEnded,
		"ProfileThatStaysIsNoEvent":               TestProfileThatStaysIsNoEvent,
		"SameRestockAlertTwiceIsOne":              TestSameRestockAlertTwiceIsOne,
		"MigrateIsSafeToRepeat":                   TestMigrateIsSafeToRepeat,
		"LedgerEndsRightInWhateverOrder":          TestLedgerEndsRightInWhateverOrder,
		"BatchOfPaymentsIsBookedBySellerAndDay":   TestBatchOfPaymentsIsBookedBySellerAndDay,
		"EachWhoAskedHearsOfARestockOnce":         TestEachWhoAskedHearsOfARestockOnce,
		"ReconcileFindsEveryDifference":           TestReconcileFindsEveryDifference,
		"EndpointsAnswerWithTheRightStatus":       TestEndpointsAnswerWithTheRightStatus,
		"AnswersSayWhereTheThingIs":               TestAnswersSayWhereTheThingIs,
		"WebhookGetsEachMessageWithItsEventAsKey": TestWebhookGetsEachMessageWithItsEventAsKey,
		"MessageThatFailsIsTriedAgainLater":       TestMessageThatFailsIsTriedAgainLater,
		"MailCarriesItsEventAndNoForeignHeader":   TestMailCarriesItsEventAndNoForeignHeader,
	} {
		t.Run(name, test)
	}
}
