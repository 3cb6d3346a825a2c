package tests

import (
	"testing"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

// TestKilledRolesLoseNothingAndDoubleNothing runs each role of the shop in a process of its own, on MariaDB, SNS and SQS: the
// engineering note's own stack. Under load it kills all but the databases as a power switch would, one after the other.
func TestKilledRolesLoseNothingAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	m, aws := servers.KillableMariaDB(t, nil), servers.Fauxqs(t, true)
	if aws.Process == nil {
		t.Fatal("PABAL_TEST_FAUXQS names a server, which this test cannot kill: unset it")
	}
	for _, role := range shop.Roles() {
		m.Admin(t, "create database shop_"+role)
	}
	s := openStreet(t, stack{
		db: m.URL("shop_{role}"),
		// What a killed process has received comes again after the hold.
		broker: "sns:shop-?hold=5s&wait=2s",
		env:    []string{"AWS_ENDPOINT_URL=" + aws.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"},
	})
	s.start()
	s.rounds(*killRounds, append(s.inhabitants(), victim{"server of SNS and SQS", aws.Kill, aws.Start}))
}
