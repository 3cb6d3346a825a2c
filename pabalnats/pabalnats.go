// Package pabalnats carries Pabal's events over NATS JetStream, in this process or on servers elsewhere.
//
//	broker, err := pabalnats.Open("./data/nats", nil)                 // embedded, no listening port
//	broker, err := pabalnats.Connect(ctx, "nats://127.0.0.1:4222", nil)
//
// An installation is one stream: a subject for each topic, a subject for each queue, and a durable pull consumer for each
// queue, whose filter subjects are its subscriptions. Interest retention removes a message once every queue has it
// acknowledged, and at once when no queue is subscribed.
package pabalnats

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pabal-go/pabal/driver"
)

// Options of [Open] and [Connect]. Nil and zero values are the good defaults.
type Options struct {
	// Stream is the installation's name, of up to 64 letters, digits, '-' and '_', default "pabal". Installations of different
	// names share nothing.
	Stream string
	// Retention bounds how long a message waits for a queue whose service is away. 1 h to 90 days, default 14 days.
	Retention time.Duration
	// Hold is how long a received message is left to its receiver before it is delivered again. Default 30 s.
	Hold time.Duration
	// Replicas of the stream, its bucket and its queues: 1, 3 or 5. Check makes them so, and raises what was made with fewer; it
	// never lowers. Default 3 on a cluster, else 1, for what Check makes; what is there then stays as it is.
	Replicas int
	// Relaxed, for Open: a message counts as stored before it is synced to disk. A power cut may lose the newest ones
	// (the republisher finds them), kill -9 of the process does not.
	Relaxed bool
	// NATS are further options of the connection, such as nats.UserCredentials or nats.Secure.
	NATS []nats.Option
	// Logger gets the server's warnings and errors, and what happens to the connection. Default slog.Default().
	Logger *slog.Logger
}

const (
	receiveWait = 5 * time.Second
	closeWait   = 10 * time.Second
	givenBack   = time.Millisecond // after which a message that is given back is delivered again
	prefetch    = 512              // messages of a queue that lie here, received and not asked for yet
	inFlight    = 8192             // messages of a queue that are not acknowledged

	// For how long the server knows a message that is sent once more, in memory: 230 bytes each. An event is published again under an id of
	// its own, so that a copy of the same id comes within one call of Publish, from a batch that was stored although it was refused.
	rememberIDs = 30 * time.Second
)

var streamForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (o *Options) fill() (Options, error) {
	f := Options{}
	if o != nil {
		f = *o
	}
	if f.Stream == "" {
		f.Stream = "pabal"
	}
	if f.Retention == 0 {
		f.Retention = 14 * 24 * time.Hour
	}
	if f.Hold == 0 {
		f.Hold = 30 * time.Second
	}
	if f.Logger == nil {
		f.Logger = slog.Default()
	}
	switch {
	case !streamForm.MatchString(f.Stream):
		return f, fmt.Errorf("pabalnats: Options.Stream is %q: up to 64 letters, digits, '-' and '_'", f.Stream)
	case f.Retention < time.Hour || f.Retention > 90*24*time.Hour:
		return f, fmt.Errorf("pabalnats: Options.Retention is %v: from 1 h to 90 days", f.Retention)
	case f.Hold < time.Second || f.Hold > time.Hour:
		return f, fmt.Errorf("pabalnats: Options.Hold is %v: from 1 s to 1 h", f.Hold)
	case f.Replicas != 0 && f.Replicas != 1 && f.Replicas != 3 && f.Replicas != 5:
		return f, fmt.Errorf("pabalnats: Options.Replicas is %d: 1, 3 or 5", f.Replicas)
	}
	return f, nil
}

// Broker is a connection to an installation. It implements driver.Broker.
type Broker struct {
	o        Options
	conn     *nats.Conn
	js       jetstream.JetStream
	embedded *embedded   // nil: servers elsewhere
	most     int         // bytes of a message when we connected
	ending   atomic.Bool // Close was called
	atomic   atomic.Bool // the stream takes atomic batches, and they are of use

	subscribing sync.Mutex // held while a queue's subscriptions change

	mu     sync.Mutex
	queues map[string]*queue
	known  map[string]bool // queues that exist
}

var _ driver.Broker = (*Broker)(nil)

// Limits implements driver.Broker.
func (b *Broker) Limits() driver.Limits {
	return driver.Limits{
		Message: b.most, InFlight: inFlight, Name: 64, Hold: b.o.Hold, Wait: receiveWait, Redelivery: b.o.Retention,
	}
}

// Close implements driver.Broker.
func (b *Broker) Close() error {
	if b.ending.Swap(true) {
		return nil
	}
	b.mu.Lock()
	queues := b.queues
	b.queues = map[string]*queue{}
	b.mu.Unlock()
	var closing sync.WaitGroup
	for _, q := range queues {
		closing.Go(q.close)
	}
	closing.Wait()
	err := b.conn.FlushTimeout(5 * time.Second)
	b.conn.Close()
	if b.embedded != nil {
		err = errors.Join(err, b.embedded.close())
	}
	return err
}
