package pabalnats_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/pabal-go/pabal/pabalnats"
)

// A JetStream server in this process, without a port. What it has accepted is synced to disk.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)                 //nolint:errcheck // of an example
	broker, err := pabalnats.Open(dir, nil) // for pabal.New
	if err != nil {
		panic(err)
	}
	fmt.Println(broker.Limits().Message, "bytes a message")
	fmt.Println(broker.Close())
	// Output:
	// 1048576 bytes a message
	// <nil>
}

// Servers elsewhere, with credentials. Three replicas survive the loss of one server.
func ExampleConnect() {
	broker, err := pabalnats.Connect(context.Background(), "tls://nats-1.example.com:4222,tls://nats-2.example.com:4222",
		&pabalnats.Options{Replicas: 3, NATS: []nats.Option{nats.UserCredentials("order.creds")}})
	if err != nil {
		return
	}
	defer broker.Close() //nolint:errcheck // of an example
}
