package tests

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/shop"
)

var haltSeed = flag.Uint64("halt.seed", 0, "seed of the order and the moments in which roles stand still; 0: another one each time")

const (
	shortHold = 5 * time.Second  // for which the broker leaves a message to its receiver
	standing  = 12 * time.Second // beyond that, and beyond the 10 s of a publisher's lease
)

// standstill is what a role has in hand, that nobody but its stopped process can have, and how it gets something.
type standstill struct {
	role   string
	inHand func() []string
	given  func()
}

// rolesStandStill has each role stand still in the midst of its work, while another process of it goes on, until all that was in its
// hands has been taken over; then it goes on. The relay's turn comes while the broker is away: else it has little to do. The member
// service has no other process, so that after a minute, in the first round, status has its late events to name; of what only consumes, or
// is taken over, it has nothing.
func rolesStandStill(t *testing.T) {
	seed := *haltSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run %s -fault.rounds %d -halt.seed %d", seed, t.Name(), *faultRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	a := openAvenue(t, nil)
	for _, p := range a.houses {
		p.broker += "?hold=" + shortHold.String()
		if p.line != nil {
			p.line[len(p.line)-1] += "?hold=" + shortHold.String()
		}
	}
	a.start()
	messages := a.received()
	var changes sync.WaitGroup
	defer changes.Wait()
	change := func(path, body string) func() {
		return func() {
			changes.Go(func() { a.put(path, strings.ReplaceAll(body, "#", fmt.Sprint(time.Now().UnixMilli()))) })
		}
	}
	roles := []standstill{
		{"order", func() []string { return a.owned("order") }, nil},
		{"product", func() []string { return a.owned("product") },
			change("/products/still/price", `{"sellerId":"a","name":"Still","price":{"amount":#,"currency":"KRW"}}`)},
		{"settlement", func() []string { return append(a.transactions("settlement"), messages("settlement")...) }, nil},
		{"notification", func() []string { return append(a.transactions("notification"), messages("notification")...) }, nil},
	}
	member := standstill{"member", func() []string { return a.owned("member") },
		change("/members/still/profile", `{"name":"Still #","email":"still@example.com"}`)}
	var all []*shop.Traffic
	for round := range *faultRounds {
		lasting := 30 * time.Second
		if round == 0 {
			lasting = 75 * time.Second // of a minute on status has something to name
		}
		load := shop.Load{For: lasting, Rate: 40, Seed: seed + uint64(round), Patience: 4 * time.Minute,
			Concurrency: 64} // some wait for the member service; they are served before the next round
		all = append(all, a.during(load, func() {
			began := time.Now()
			a.caught(member, random)
			turns := []func(){func() { a.standStill(roles, random) }, a.relayStandsStill}
			random.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
			for _, turn := range turns {
				turn()
			}
			if round == 0 {
				pause(t.Context(), time.Until(began.Add(time.Minute)))
				a.names(30*time.Second, "member", "is late: it", 3)
			}
			a.houses["member"].goOn()
		}))
	}
	a.settles(all...)
}

// standStill catches roles one after the other, each with another process in its place, and has them go on when what they had is
// somebody else's.
func (a *avenue) standStill(roles []standstill, random *rand.Rand) {
	t := a.t
	random.Shuffle(len(roles), func(i, j int) { roles[i], roles[j] = roles[j], roles[i] })
	others, held := map[string]*process{}, map[string][]string{}
	for _, s := range roles {
		held[s.role] = a.caught(s, random)
		was := a.houses[s.role]
		other := &process{
			t: t, binary: a.binary, dir: was.dir, address: freeAddress(t), role: s.role, db: was.db, broker: was.broker, env: was.env,
		}
		other.start()
		a.elsewhere.Store(s.role+"s", other.address)
		others[s.role] = other
	}
	pause(t.Context(), standing)
	for _, role := range []string{"order", "product"} {
		until(t, "what the "+role+" service had is taken over", func() bool {
			return !slices.ContainsFunc(a.owned(role), func(id string) bool { return slices.Contains(held[role], id) })
		})
	}
	for _, s := range roles {
		a.houses[s.role].goOn()
	}
	pause(t.Context(), time.Second) // both at once
	for _, s := range roles {
		a.elsewhere.Store(s.role+"s", a.houses[s.role].address)
		others[s.role].stop()
	}
}

// relayStandsStill: with the broker away and the order service standing still, the relay has all events; then it is the one that
// stands still, and the order service takes them back.
func (a *avenue) relayStandsStill() {
	t, order, relay := a.t, a.houses["order"], a.houses["relay"]
	claimed := func() []string {
		return query(t, a.postgres.Database("shop_order"), "select id::text || ' ' || claims from pabal_pending where claims > 0 and due_at > now()")
	}
	a.nats.Stop() // calls get no answer any more
	until(t, "calls are in flight", func() bool { return len(a.owned("order")) > 10 })
	order.halt()
	var held []string
	// In later rounds one a topic may be all: since the broker was away before, the relay tries whether it accepts (P3).
	until(t, "the relay has claims", func() bool { return len(claimed()) > 0 })
	relay.halt()
	if held = claimed(); len(held) == 0 {
		t.Error("the relay stands still and has nothing in hand")
	}
	t.Logf("relay stands still with %d events claimed", len(held))
	a.nats.Continue()
	order.goOn()
	pause(t.Context(), standing)
	until(t, "the order service has taken over what the relay had", func() bool {
		rows := query(t, a.postgres.Database("shop_order"), "select id::text || ' ' || claims from pabal_pending")
		return !slices.ContainsFunc(rows, func(row string) bool { return slices.Contains(held, row) })
	})
	relay.goOn()
}

// caught has a process stand still at a moment at which it has something in hand, which stays there.
func (a *avenue) caught(s standstill, random *rand.Rand) (held []string) {
	p := a.houses[s.role]
	until(a.t, s.role+" is stopped with something in hand", func() bool {
		if s.given != nil {
			s.given()
		}
		pause(a.t.Context(), time.Duration(random.Int64N(int64(20*time.Millisecond))))
		p.halt()
		before := s.inHand()
		pause(a.t.Context(), 200*time.Millisecond) // what the process had sent is carried out
		after := s.inHand()
		held = slices.DeleteFunc(before, func(what string) bool { return !slices.Contains(after, what) })
		if len(held) == 0 {
			p.goOn()
		}
		return len(held) > 0
	})
	a.t.Logf("%s stands still with %d in hand, such as %s", s.role, len(held), held[0])
	return held
}

// owned are the events that are leased to the process that recorded them.
func (a *avenue) owned(role string) []string {
	a.t.Helper()
	return query(a.t, a.postgres.Database("shop_"+role), "select id::text from pabal_pending where claims = 0")
}

// transactions are those that a role has open, and no statement in.
func (a *avenue) transactions(role string) []string {
	a.t.Helper()
	return a.sql(a.t, "select 'transaction of backend ' || pid || ' since ' || xact_start from pg_stat_activity where application_name = '"+role+
		"' and state = 'idle in transaction'")
}

// received answers what tells which messages of a queue have been received, and are not acknowledged.
func (a *avenue) received() func(queue string) []string {
	t := a.t
	conn, err := nats.Connect(a.nats.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return func(queue string) (messages []string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := js.Consumer(ctx, "pabal", queue)
		if err != nil {
			t.Fatal(err)
		}
		for n := range c.CachedInfo().NumAckPending {
			messages = append(messages, fmt.Sprintf("message %d of queue %s", n+1, queue))
		}
		return messages
	}
}

// put sends a change to whoever has its role, and waits for no more than a moment: it may stand still.
func (a *avenue) put(path, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, a.url(path), strings.NewReader(body))
	if err != nil {
		a.t.Error(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	if answer, err := http.DefaultClient.Do(r); err == nil {
		_ = answer.Body.Close() // only its being done counts
	}
}
