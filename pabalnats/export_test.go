package pabalnats

import (
	"context"

	"github.com/nats-io/nats.go"
)

// Again makes another connection to an embedded server.
func (b *Broker) Again() (*Broker, error) {
	return connect(context.Background(), "", b.o, nats.InProcessServer(b.embedded))
}
