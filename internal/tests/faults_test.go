package tests

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/shop"
)

var (
	brokerAway   = flag.Duration("fault.broker", 75*time.Second, "how long the broker is away; status names an event that is late after a minute")
	databaseAway = flag.Duration("fault.database", 15*time.Second, "how long the database is away")
	faultMariaDB = flag.Bool("fault.mariadb", false, "fill the disk of MariaDB too, as root; it now and then ends of that and, once in a while, cannot read its files then")
	faultRounds  = flag.Int("fault.rounds", 3, "how often each role stands still, and each disk is full; a round takes a minute or more")
)

const notAccepted = "is late: it has not been accepted by the broker" // in the words of pabal status

type fault struct {
	name string
	do   func(*testing.T)
}

// everyFault is what TestFaultsEndInBooksThatAgree does, what takes longest first.
var everyFault = []fault{
	{"DiskOfTheBrokerFull", diskOfTheBrokerIsFull},
	{"DiskOfEmbeddedFull", diskOfTheEmbeddedBrokerIsFull},
	{"RolesStandStill", rolesStandStill},
	{"DiskOfPostgresFull", diskOfPostgresIsFull},
	{"DiskOfDatabasesFull", diskOfTheDatabasesIsFull},
	{"BrokerAway", brokerIsAway},
	{"RedeliveryIsKilled", redeliveryIsKilled},
	{"BrokerAwayFromTheStart", brokerIsAwayFromTheStart},
	{"ProducerStandsStill", producerStandsStill},
	{"DatabaseAway", databaseIsAway},
	{"ClusterLosesItsLeader", clusterLosesItsLeader},
}

// TestFaultsEndInBooksThatAgree has one thing go wrong after the other, on PostgreSQL and NATS, everything in processes of its
// own, under load. While it lasts `pabal status` names it, and in the end nothing is lost and nothing is there twice. Each has
// its own street, and most of their time goes by in waiting: some run side by side.
func TestFaultsEndInBooksThatAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	t.Parallel()
	faults := everyFault
	if *faultMariaDB {
		faults = append(slices.Clip(faults), fault{"DiskOfMariaDBFull", diskOfMariaDBIsFull})
	}
	var all sync.WaitGroup
	streets := make(chan struct{}, 7) // t.Parallel in each would run as many as there are processors
	for _, fault := range faults {
		streets <- struct{}{}
		all.Go(func() {
			defer func() { <-streets }()
			t.Run(fault.name, fault.do)
		})
	}
	all.Wait()
}

// settles waits until all stores are healthy, and reconciles.
func (s *street) settles(total ...*shop.Traffic) {
	s.t.Helper()
	for _, role := range shop.Roles() {
		s.names(3*time.Minute, role, "source "+role+": healthy", 0)
	}
	var sum shop.Progress
	for _, t := range total {
		sum.Paid += t.Paid
		sum.Cancelled += t.Cancelled
	}
	s.reconciled(sum)
}

func brokerIsAway(t *testing.T) {
	a := openAvenue(t, nil)
	a.start()
	traffic := a.during(shop.Load{For: *brokerAway + 10*time.Second, Rate: 10, Patience: time.Minute}, func() {
		back := time.Now().Add(*brokerAway)
		a.nats.Kill()
		a.names(90*time.Second, "order", notAccepted, 3)
		pause(t.Context(), time.Until(back))
		a.nats.Start()
	})
	if traffic.Repeated > 0 { // P3
		t.Errorf("%d requests had to be repeated, though orders need no broker", traffic.Repeated)
	}
	a.settles(traffic)
}

// brokerIsAwayFromTheStart: at their first start services wait for the broker, for what they publish before all queues are
// there reaches nobody. Later they open without it.
func brokerIsAwayFromTheStart(t *testing.T) {
	a := openAvenue(t, nil)
	a.nats.Kill()
	for _, role := range shop.Roles() {
		a.houses[role].launch()
	}
	for _, role := range []string{"order", "notification", "settlement"} { // who has a queue
		a.houses[role].says("broker is not ready, trying again")
		if a.houses[role].isOpen() {
			t.Errorf("%s is open before its queue is subscribed", role)
		}
	}
	a.houses["relay"].launch() // the order service has made the tables
	a.nats.Start()
	for _, name := range a.rows {
		a.houses[name].opens(time.Minute)
	}
	first := a.during(shop.Load{For: 2 * time.Second, Rate: 20}, func() {})
	a.stop()
	a.nats.Kill()
	a.start()
	second := a.during(shop.Load{For: 3 * time.Second, Rate: 20, Patience: time.Minute}, func() {})
	a.names(90*time.Second, "order", notAccepted, 3)
	a.nats.Start()
	a.settles(first, second)
}

// says waits until a process has said something.
func (p *process) says(words string) { p.t.Helper(); p.saysAgain(words, 0) }

// saysAgain waits until a process has said something more often than it had.
func (p *process) saysAgain(words string, before int) {
	p.t.Helper()
	until(p.t, cmp.Or(p.role, "the shop")+" says "+words, func() bool { return p.times(words) > before })
}

// times is how often a process has said something.
func (p *process) times(words string) int { return strings.Count(p.said.String(), words) }

func databaseIsAway(t *testing.T) {
	a := openAvenue(t, nil)
	a.start()
	traffic := a.during(shop.Load{For: *databaseAway + 8*time.Second, Rate: 20, Patience: *databaseAway + time.Minute}, func() {
		back := time.Now().Add(*databaseAway)
		a.postgres.Kill()
		a.names(10*time.Second, "order", "connection refused", 1)
		pause(t.Context(), time.Until(back))
		a.postgres.Start()
	})
	a.settles(traffic)
}

// eachRound has something go wrong in the midst of each round's traffic. One round is over before the next begins.
func (s *street) eachRound(load shop.Load, do func()) (all []*shop.Traffic) {
	s.t.Helper()
	for round := range *faultRounds {
		load.Seed = uint64(round)
		all = append(all, s.during(load, do))
		s.names(3*time.Minute, "order", "source order: healthy", 0)
	}
	return all
}

// diskOfTheBrokerIsFull: what the broker could not store is published again once it has room.
func diskOfTheBrokerIsFull(t *testing.T) {
	volume := servers.SmallVolume(t, 24)
	a := openAvenue(t, &servers.NATSOptions{Store: filepath.Join(volume.Root, "nats")})
	a.start()
	named := false
	a.settles(a.eachRound(shop.Load{For: 20 * time.Second, Rate: 10, Patience: time.Minute}, func() {
		volume.Fill()
		if !named { // that takes a minute
			a.names(2*time.Minute, "order", notAccepted, 3)
			named = true
		}
		until(t, "nothing is accepted", func() bool {
			return len(query(t, a.postgres.Database("shop_order"), "select 'x' from pabal_pending where recorded_at < now() - interval '5 seconds'")) > 10
		})
		volume.Empty()
		a.nats.Kill() // it has turned JetStream off, until it is started again
		a.nats.Start()
	})...)
}

// logged are the statements of a service's process that the server has logged since a moment, by their parameters.
func (a *avenue) logged(service, statement string, from int64) (parameters []string) {
	a.t.Helper()
	text := a.log(from)
	last := map[string]string{} // what a backend logged last
	for _, entry := range strings.Split(text, "\n§") {
		head, what, _ := strings.Cut(strings.TrimPrefix(entry, "§"), "§ ")
		if !strings.HasPrefix(head, service+" ") {
			continue
		}
		if strings.HasPrefix(what, "DETAIL:") && strings.Contains(last[head], statement) {
			parameters = append(parameters, what)
		}
		last[head] = what
	}
	return parameters
}

// log is what the server has logged since it was of a size.
func (a *avenue) log(from int64) string {
	a.t.Helper()
	f, err := os.Open(filepath.Join(a.postgres.Dir, "data", "log", "postgres.log"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.NewSectionReader(f, from, 1<<40))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// logsStatements are settings with which a server logs each statement with its parameters, and whose it was.
var logsStatements = []string{
	"logging_collector=on", "log_filename=postgres.log", "log_rotation_size=0", "log_min_duration_statement=0", "log_line_prefix=§%a %p§ ",
}

// producerStandsStill: the order service stands still, with publish calls in flight, until another process (the relay) has
// claimed its events. When it goes on it writes what became of its calls, and that changes nothing: the claim is the fence.
func producerStandsStill(t *testing.T) {
	a := openAvenue(t, nil, logsStatements...)
	a.start()
	order, relay, database := a.houses["order"], a.houses["relay"], a.postgres.Database("shop_order")
	pending := func(where string) []string {
		return query(t, database, "select id::text || ' ' || claims || ' ' || coalesce(due_at::text, '') || ' ' || coalesce(accepted_at::text, '')"+
			" || ' ' || crashes || ' ' || coalesce(last_error, '') from pabal_pending where "+where+" order by id")
	}
	traffic := a.during(shop.Load{For: 10 * time.Second, Rate: 40, Patience: 3 * time.Minute}, func() {
		// Calls get no answer any more; when the process is halted, none has ended, which takes seconds.
		a.nats.Stop()
		until(t, "calls are in flight", func() bool { return len(pending("claims = 0")) > 3 })
		order.halt()
		until(t, "the relay has claimed everything", func() bool {
			return len(pending("claims = 0")) == 0 && len(pending("true")) > 0
		})
		relay.halt() // so that whatever changes now is the order service's work
		until(t, "the relay's last statement is over", func() bool {
			return len(a.sql(t, "select 'x' from pg_stat_activity where application_name = 'relay' and state <> 'idle'")) == 0
		})
		// However slow the machine is, the relay's claims outlast it: or the order service would claim anew what it is to leave alone.
		query(t, database, "update pabal_pending set due_at = now() + interval '1 hour'")
		before, from := pending("true"), int64(len(a.log(0)))
		order.goOn()
		var late string
		until(t, "the order service writes what became of its calls", func() bool {
			late = fmt.Sprint(a.logged("order", "as v (id, claims, accepted, park, delay, error)", from))
			return slices.ContainsFunc(before, func(row string) bool { return strings.Contains(late, strings.Fields(row)[0]) })
		})
		fenced := 0
		rows := pending("true")
		for _, row := range before {
			switch id := strings.Fields(row)[0]; {
			case !slices.ContainsFunc(rows, func(r string) bool { return strings.HasPrefix(r, id) }):
				// It had come back before the broker stood still, and is confirmed.
			case !slices.Contains(rows, row):
				t.Errorf("a late write changed %s", row)
			case strings.Contains(late, id):
				fenced++
			}
		}
		if fenced == 0 {
			t.Error("of what was written late nothing is the relay's")
		}
		t.Logf("%d of %d events were written late, and are as the relay left them", fenced, len(before))
		query(t, database, "update pabal_pending set due_at = now() where due_at > now() + interval '30 minutes'")
		relay.goOn()
		a.nats.Continue() // before a minute is over: status has nothing to name, for the relay does the work
	})
	a.settles(traffic)
}
