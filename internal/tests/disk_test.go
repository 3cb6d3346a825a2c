package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

const startedAgain = "NATS server is started again"

// alone is a shop in one process, embedded defaults where db or broker are "".
func alone(t *testing.T, binary, dir, db, broker string) *street {
	s := &street{rows: []string{"all"}, process: process{
		t: t, binary: binary, dir: dir, address: freeAddress(t), db: db, broker: broker,
		heard: &heard{Transport: http.Transport{MaxIdleConnsPerHost: 32}, paid: map[string]bool{}},
	}}
	t.Cleanup(s.heard.CloseIdleConnections)
	s.houses = map[string]*process{"all": &s.process}
	s.start()
	return s
}

// diskOfTheEmbeddedBrokerIsFull: orders go on (P3), status names what is late, and the broker stores again by itself once it has room.
func diskOfTheEmbeddedBrokerIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 24)
	s := alone(t, buildBinary(t), t.TempDir(), "", "embedded:"+filepath.Join(volume.Root, "nats"))
	before := 0
	traffic := s.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: time.Minute}, func() {
		volume.Fill()
		if before == 0 {
			s.names(2*time.Minute, "order", notAccepted, 3)
		} else {
			pause(t.Context(), 15*time.Second)
		}
		volume.Empty()
		s.saysAgain(startedAgain, before)
		before++
	})
	for _, round := range traffic {
		if round.Repeated > 0 {
			t.Errorf("%d requests had to be repeated, though orders need no broker", round.Repeated)
		}
	}
	s.settles(traffic...)
}

// diskOfTheDatabasesIsFull: all that the shop has is on one disk. What was answered is there, and it goes on by itself when there is room.
func diskOfTheDatabasesIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 96)
	s := alone(t, within(t, volume, buildBinary(t)), filepath.Join(volume.Dir, "shop"), "", "")
	const full = "database or disk is full"
	traffic := s.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: 2 * time.Minute}, func() {
		before := s.times(full)
		volume.Fill()
		s.saysAgain(full, before) // mostly before the broker's
		pause(t.Context(), 10*time.Second)
		volume.Empty()
	})
	s.refused(traffic)
	s.settles(traffic...)
}

// diskOfPostgresIsFull: the server refuses what needs room, and in every second round ends, for its own log needs some; then it is
// started again once there is.
func diskOfPostgresIsFull(t *testing.T) {
	const full = "No space left on device"
	volume := servers.SmallVolume(t, 512)
	a := openAvenueOn(t, servers.PostgresOn(t, volume, "fsync=on", "wal_keep_size=1GB"), // no file of the log is used again
		servers.NATS(t, &servers.NATSOptions{SyncAlways: true}).URL)
	a.start()
	round := 0
	traffic := a.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: 2 * time.Minute}, func() {
		before := a.houses["order"].times(full)
		volume.Fill()
		a.houses["order"].saysAgain(full, before)
		if round++; round%2 == 0 {
			a.fillsItsLog()
		}
		pause(t.Context(), 5*time.Second)
		paid := len(a.heard.orders())
		volume.Empty()
		a.paysAgain(a.postgres.Process, paid)
	})
	a.refused(traffic)
	a.settles(traffic...)
}

// diskOfMariaDBIsFull: statements are refused, a COMMIT waits for room in the log, for which MariaDB looks once a minute, and now and then
// MariaDB ends.
func diskOfMariaDBIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 320)
	m := servers.KillableMariaDB(t, &servers.MariaDBOptions{On: volume})
	for _, role := range shop.Roles() {
		m.Admin(t, "create database shop_"+role)
	}
	s := alone(t, buildBinary(t), t.TempDir(), m.URL("shop_{role}"), "")
	traffic := s.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: 4 * time.Minute}, func() {
		volume.Fill()
		pause(t.Context(), 15*time.Second)
		paid := len(s.heard.orders())
		volume.Empty()
		s.paysAgain(m.Process, paid)
	})
	s.refused(traffic)
	s.settles(traffic...)
}

// paysAgain waits until there is one more order than were paid, and starts a server again that has ended.
func (s *street) paysAgain(server *servers.Process, paid int) {
	s.t.Helper()
	untilWithin(s.t, 4*time.Minute, "orders are paid again", func() bool {
		if server.Ended() {
			s.t.Log("the server has ended")
			server.Start()
		}
		return len(s.heard.orders()) > paid
	})
}

// refused: some requests were.
func (s *street) refused(traffic []*shop.Traffic) {
	for _, round := range traffic {
		if round.Repeated > 0 {
			return
		}
	}
	s.t.Error("no request was refused")
}

// fillsItsLog has the server begin files of its log until it has no room for one. That ends all connections; whether it recovers by itself
// or is gone depends on what is left of the last file.
func (a *avenue) fillsItsLog() {
	until(a.t, "PostgreSQL has crashed", func() bool {
		db, err := pgx.Connect(a.t.Context(), a.postgres.URL)
		if err != nil {
			return a.postgres.Ended()
		}
		defer db.Close(a.t.Context()) //nolint:errcheck // it is closed
		_, err = db.Exec(a.t.Context(), "select pg_switch_wal(), pg_logical_emit_message(true, '', repeat('x', 1000000))")
		return err != nil && db.IsClosed()
	})
}

// within is a program that runs another where a volume is.
func within(t *testing.T, v *servers.Volume, binary string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "within")
	line := "#!/bin/sh\nexec " + strings.Join(v.Within(), " ") + " " + binary + ` "$@"` + "\n"
	if err := os.WriteFile(file, []byte(line), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}
