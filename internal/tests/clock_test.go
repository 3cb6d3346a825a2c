package tests

import (
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/doctor"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/driver/misbehave"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

// TestDoctorFindsAClockThatIsWrong: a server's clock that is off by much endangers promises, by minutes is worth a note, and is
// nothing to speak of once it is right.
func TestDoctorFindsAClockThatIsWrong(t *testing.T) {
	server := servers.PostgresWithClock(t, -20*time.Minute, "fsync=on")
	w := openWard(t, "--db", server.URL)
	w.pabal("migrate", "--db", server.URL)
	const mend = "chronyc makestep # or what else sets the clock, on whichever is wrong"
	f := w.finds(driver.AtRisk, "P1, P4", "the database's clock is 20m0s behind this machine's")
	if f.Mend != mend {
		t.Errorf("mend: %s", f.Mend)
	}
	server.SetClock(2 * time.Minute)
	w.notes("the database's clock is 2m0s ahead of this machine's")
	server.SetClock(0)
	r, _ := w.examine()
	if slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return strings.Contains(f.What, "clock") }) {
		t.Errorf("the clock is right: %+v", r.Findings)
	}
}

// TestShopWhereClocksDiffer: the databases of two services are minutes ahead of this machine, the others behind it, and one of those is
// set right while orders come in. What is published, or received, with an answer that is lost is repeated within seconds all the same,
// and in order.
func TestShopWhereClocksDiffer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const off = 7 * time.Minute
	ahead, behind, set := servers.PostgresWithClock(t, off), servers.PostgresWithClock(t, -off), servers.PostgresWithClock(t, -off)
	where := map[string]*servers.PostgresServer{
		"order": ahead, "member": ahead, "notification": behind, "product": set, "settlement": set,
	}
	trouble := misbehave.New(1, nil)
	defer func(was kind) { on = was }(on)
	on = kind{dialect: "postgres", trouble: trouble, open: func(t testing.TB, file string) (*sql.DB, driver.Store[*sql.Tx]) {
		role := strings.TrimSuffix(filepath.Base(file), ".db")
		return openPostgresOn(t, where[role], file, func(url string) string { return url })
	}}
	v := openVillage(t, t.TempDir(), "127.0.0.1:0")
	total := &shop.Traffic{}
	busy := func(d time.Duration) { v.busy(t, total, shop.Load{For: d, Rate: 50, Seed: 1}) }
	busy(100 * time.Millisecond) // the catalogue comes without trouble, for a load does not wait long for it
	trouble.Set(misbehave.Plan{
		"Publish": {Refused: 0.1, Lost: 0.1, Silent: 0.1, Doubled: 0.1}, "Confirm": {Lost: 0.1, Doubled: 0.1},
		"Receive": {Lost: 0.05, Shuffled: 0.5, HeldBack: 0.3}, "Commit": {Lost: 0.02}, "Record": {Doubted: 0.2},
	})
	busy(3 * time.Second)
	set.SetClock(0)
	busy(3 * time.Second)
	trouble.Calm()
	t.Logf("what went wrong: %v", trouble.Done())
	reconciled(t, v, total, time.Minute)
	v.inOrder(t)
}
