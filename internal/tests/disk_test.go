package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

// alone is a shop in one process, embedded defaults and all.
func alone(t *testing.T, binary, dir, broker string) *street {
	s := &street{rows: []string{"all"}, process: process{
		t: t, binary: binary, dir: dir, address: freeAddress(t), broker: broker,
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
	s := alone(t, buildBinary(t), t.TempDir(), "embedded:"+filepath.Join(volume.Root, "nats"))
	traffic := s.during(shop.Load{For: 80 * time.Second, Rate: 20, Patience: time.Minute}, func() {
		volume.Fill()
		s.names(90*time.Second, "order", notAccepted, 3)
		volume.Empty()
		s.says("NATS server is started again")
	})
	if traffic.Repeated > 0 {
		t.Errorf("%d requests had to be repeated, though orders need no broker", traffic.Repeated)
	}
	s.settles(traffic)
}

// diskOfTheDatabasesIsFull: all that the shop has is on one disk. What was answered is there, and it goes on by itself when there is room.
func diskOfTheDatabasesIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 96)
	s := alone(t, within(t, volume, buildBinary(t)), filepath.Join(volume.Dir, "shop"), "")
	traffic := s.during(shop.Load{For: 25 * time.Second, Rate: 20, Patience: 2 * time.Minute}, func() {
		volume.Fill()
		s.says("database or disk is full") // mostly before the broker's
		pause(t.Context(), 10*time.Second)
		volume.Empty()
	})
	if traffic.Repeated == 0 {
		t.Error("no request was refused")
	}
	s.settles(traffic)
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
