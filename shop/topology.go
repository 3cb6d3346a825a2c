package shop

import (
	"slices"

	"github.com/pabal-go/pabal/driver"
)

// flow is what a role publishes and consumes.
type flow struct {
	publishes []driver.TopicSpec
	consumes  []string
}

var flows = map[string]flow{
	"order": {
		publishes: []driver.TopicSpec{{Name: OrderPlaced.Topic()}, {Name: OrderPaid.Topic(), Ordered: true}},
		consumes:  []string{ProductPriceChanged.Topic()},
	},
	"member": {publishes: []driver.TopicSpec{{Name: MemberProfileChanged.Topic(), Ordered: true}}},
	"product": {publishes: []driver.TopicSpec{
		{Name: ProductPriceChanged.Topic(), Ordered: true}, {Name: ProductRestocked.Topic(), Ordered: true},
	}},
	"notification": {consumes: []string{OrderPaid.Topic(), MemberProfileChanged.Topic(), ProductRestocked.Topic()}},
	"settlement":   {consumes: []string{OrderPaid.Topic()}},
}

// Topology is what the roles need at the broker: the topics that they publish to or consume, the record queue of each that
// publishes, the queue of each that consumes. Without roles: of all.
func Topology(roles ...string) driver.Topology {
	if len(roles) == 0 {
		roles = Roles()
	}
	var t driver.Topology
	need := func(topic string) {
		for _, role := range Roles() { // only who publishes to a topic knows whether it is ordered
			for _, spec := range flows[role].publishes {
				if spec.Name == topic && !slices.Contains(t.Topics, spec) {
					t.Topics = append(t.Topics, spec)
				}
			}
		}
	}
	for _, role := range roles {
		f := flows[role]
		record := driver.QueueSpec{Name: "event-record-" + role}
		for _, spec := range f.publishes {
			need(spec.Name)
			record.Topics = append(record.Topics, spec.Name)
		}
		t.Queues = append(t.Queues, record)
		for _, topic := range f.consumes {
			need(topic)
		}
		if len(f.consumes) > 0 {
			t.Queues = append(t.Queues, driver.QueueSpec{Name: role, Topics: f.consumes})
		}
	}
	return t
}
