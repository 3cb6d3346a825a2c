package tests

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/pabal-go/pabal/shop"
)

// redeliveryIsKilled: it goes on in the next process, from where it was, and its copies have no second effect. On SQLite, and an embedded
// NATS.
func redeliveryIsKilled(t *testing.T) {
	p := &process{
		t: t, binary: buildBinary(t), dir: t.TempDir(), address: freeAddress(t),
		heard: &heard{Transport: http.Transport{MaxIdleConnsPerHost: 32}, paid: map[string]bool{}},
	}
	defer p.heard.CloseIdleConnections()
	p.start()
	load := shop.Load{URL: p.url(""), For: 4 * time.Second, Rate: 50, Client: &http.Client{Transport: p.heard, Timeout: 10 * time.Second}}
	traffic, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.check() // all of it is confirmed
	var ordered struct{ Redelivery string }
	p.json(&ordered, "events", "redeliver", "--db", p.database("order"), "--topic", "order-pay-done", "--rate", "5", "--why", "a test")
	sent := func() (sent int, finished bool) {
		var jobs []struct {
			ID         string
			Sent       int
			FinishedAt time.Time
		}
		p.json(&jobs, "events", "redeliveries", "--db", p.database("order"))
		for _, job := range jobs {
			if job.ID == ordered.Redelivery {
				return job.Sent, !job.FinishedAt.IsZero()
			}
		}
		t.Fatalf("redelivery %s is not among %v", ordered.Redelivery, jobs)
		return 0, false
	}
	var before int
	until(t, "some of it is sent", func() bool { before, _ = sent(); return before > 0 })
	p.kill()
	before, finished := sent()
	if paid := int(traffic.Paid); finished || before >= paid {
		t.Fatalf("%d of %d were sent before the kill: it killed nothing", before, paid)
	}
	p.start()
	for end := time.Now().Add(2 * time.Minute); ; pause(t.Context(), time.Second) {
		var all int
		if all, finished = sent(); finished {
			t.Logf("%d of %d were sent before the kill, %d in all", before, traffic.Paid, all)
			if paid := int(traffic.Paid); all < paid || all > paid+100 { // a part of it may have been sent and not counted
				t.Errorf("%d were sent, of %d", all, paid)
			}
			break
		} else if time.Now().After(end) {
			t.Fatalf("after two minutes %d of %d are sent", all, traffic.Paid)
		}
	}
	p.books(shop.Progress{Paid: traffic.Paid, Cancelled: traffic.Cancelled}, p.stop)
}

// json reads the answer of a command.
func (p *process) json(answer any, arguments ...string) {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), p.binary, append(arguments, "--json")...).Output()
	if err == nil {
		err = json.Unmarshal(out, answer)
	}
	if err != nil {
		p.t.Fatalf("%v: %v\n%s", arguments, err, out)
	}
}
