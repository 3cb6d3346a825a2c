package tests

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/shop"
)

// TestShopTopologyIsWhatItsServicesUse: what pabal topology makes for the shop is what its clients ask for, and a shop under load
// publishes to nothing else.
func TestShopTopologyIsWhatItsServicesUse(t *testing.T) {
	v := openVillage(t, t.TempDir(), "127.0.0.1:0", shop.Options{})
	traffic, err := shop.Load{URL: v.server.URL, For: 3 * time.Second, Seed: 1}.Run(t.Context())
	if err != nil || traffic.Wrong > 0 {
		t.Fatal(traffic, err)
	}
	for _, role := range shop.Roles() {
		client, want := v.stations[role].client, shop.Topology(role)
		s, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		record := want.Queues[0]
		if record.Name != "event-record-"+role {
			t.Fatalf("first queue of %s is %s", role, record.Name)
		}
		for _, topic := range s.Topics {
			if !slices.Contains(record.Topics, topic.Name) || !slices.Contains(want.Topics, driver.TopicSpec{Name: topic.Name, Ordered: topic.Ordered}) {
				t.Errorf("%s publishes to %s (ordered %v), shop.Topology has %+v", role, topic.Name, topic.Ordered, want)
			}
		}
		if got := client.Topology().Queues[1:]; len(got)+len(want.Queues[1:]) > 0 && !reflect.DeepEqual(got, want.Queues[1:]) {
			t.Errorf("%s consumes %+v, shop.Topology has %+v", role, got, want.Queues[1:])
		}
	}
}
