package pabalnats_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

// Servers elsewhere: here one that the example starts by itself.
func ExampleConnect() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of an example
	elsewhere, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir,
		Username: "order", Password: "secret", NoLog: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	elsewhere.Start()
	defer elsewhere.WaitForShutdown()
	defer elsewhere.Shutdown()
	elsewhere.ReadyForConnections(10 * time.Second)

	broker, err := pabalnats.Connect(context.Background(), elsewhere.ClientURL(),
		&pabalnats.Options{NATS: []nats.Option{nats.UserInfo("order", "secret")}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	fmt.Println(broker.Limits().Message, "bytes a message")
	fmt.Println(broker.Close())
	// Output:
	// 1048576 bytes a message
	// <nil>
}

// Three nodes, of which one may be lost, with credentials in a file.
func ExampleConnect_cluster() {
	broker, err := pabalnats.Connect(context.Background(), "tls://nats-1.example.com:4222,tls://nats-2.example.com:4222",
		&pabalnats.Options{Replicas: 3, NATS: []nats.Option{nats.UserCredentials("order.creds")}})
	if err != nil {
		return
	}
	defer broker.Close() //nolint:errcheck // of an example
}
