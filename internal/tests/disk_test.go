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
	named := false
	traffic := s.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: time.Minute}, func() {
		before := s.times(startedAgain)
		volume.Fill()
		if named {
			pause(t.Context(), 15*time.Second)
		} else { // that takes a minute
			s.names(2*time.Minute, "order", notAccepted, 3)
			named = true
		}
		volume.Empty()
		s.saysAgain(startedAgain, before)
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
	for _, round := range traffic {
		if round.Repeated == 0 {
			t.Error("no request was refused")
		}
	}
	s.settles(traffic...)
}

// diskOfPostgresIsFull: the server refuses what needs room, and crashes where its own log does, in every second round for certain; it
// recovers by itself, or is started again.
func diskOfPostgresIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 512)
	a := openAvenueOn(t, servers.PostgresOn(t, volume, "fsync=on", "wal_keep_size=1GB"), // no file of the log is used again
		servers.NATS(t, &servers.NATSOptions{SyncAlways: true}).URL)
	a.start()
	round := 0
	a.diskIsFull(volume, a.postgres.Process, func() {
		if round++; round%2 == 0 {
			a.fillsItsLog()
		}
	})
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
	s.diskIsFull(volume, m.Process, func() {})
}

// diskIsFull has no room on a server's disk for a while, in each round.
func (s *street) diskIsFull(volume *servers.Volume, server *servers.Process, meanwhile func()) {
	repeated := int64(0)
	traffic := s.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: 4 * time.Minute}, func() {
		volume.Fill()
		meanwhile()
		pause(s.t.Context(), 15*time.Second)
		paid := len(s.heard.orders())
		volume.Empty()
		s.paysAgain(server, paid)
	})
	for _, round := range traffic {
		repeated += round.Repeated
	}
	if repeated == 0 {
		s.t.Error("no request was refused")
	}
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

// fillsItsLog has the server begin files of its log until it has no room for one, and crashes. It takes no connections then, for a while
// or, without room to recover, until it is started again.
func (a *avenue) fillsItsLog() {
	until(a.t, "PostgreSQL has crashed", func() bool {
		db, err := pgx.Connect(a.t.Context(), a.postgres.URL)
		if err != nil {
			return true
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
