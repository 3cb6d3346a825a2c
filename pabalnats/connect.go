package pabalnats

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The connection. A server that goes away is noticed at once when it closes the connection, and after two pings when the
// network merely swallows what is sent; then the servers of the list, and those that a cluster named, are tried for ever.

const (
	pingEvery     = 5 * time.Second // two unanswered: the connection is given up
	writeWait     = 2 * time.Second // how long a write into a network that takes nothing may hold up a Publish
	answerForgot  = time.Minute     // the longest PublishTimeout: nobody waits for an older answer
	publishesMost = 16_384          // that are not answered
	mostUnknown   = 1 << 20         // bytes of a message, NATS's own default, as long as no server has told
)

// Connect connects to servers elsewhere: a URL, or several with commas between. tls:// asks for TLS; certificates and
// credentials are [Options].NATS: nats.Secure, nats.RootCAs, nats.ClientCert, nats.UserCredentials, nats.NkeyOptionFromSeed.
//
// Servers that are away are no error: the log says so, and they are tried for ever, as after a lost connection, also when they
// then refuse us (a password that is being changed); meanwhile Publish waits, and answers Again at its deadline. Servers that refuse us now, or
// have no JetStream, are an error.
func Connect(ctx context.Context, url string, o *Options) (*Broker, error) {
	options, err := o.fill()
	if err != nil {
		return nil, err
	}
	return connect(ctx, url, options)
}

// secrets are what stands before the host of each URL of a list, which may be without a scheme: user and password, or a token.
var secrets = regexp.MustCompile(`((?:^|,)\s*(?:[a-z]+://)?)[^,]*@`)

func withoutSecrets(urls string) string { return secrets.ReplaceAllString(urls, "$1") }

func connect(ctx context.Context, url string, o Options, more ...nats.Option) (*Broker, error) {
	b := &Broker{o: o, queues: map[string]*queue{}, known: map[string]bool{}, most: mostUnknown}
	options := append(b.connection(), append(more, o.NATS...)...)
	conn, err := nats.Connect(url, options...)
	if unreachable(err) {
		o.Logger.Warn("NATS is away, connecting", "url", withoutSecrets(url), "err", err)
		conn, err = nats.Connect(url, append(options, nats.RetryOnFailedConnect(true), nats.ConnectHandler(func(c *nats.Conn) {
			o.Logger.Info("NATS connection is there", "url", c.ConnectedUrlRedacted())
		}))...)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS %s: %w", withoutSecrets(url), explained(err))
	}
	b.conn = conn
	b.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(publishesMost),
		jetstream.WithPublishAsyncTimeout(answerForgot))
	if err == nil && conn.IsConnected() {
		b.most = int(conn.MaxPayload())
		err = answers(ctx, b.js)
	}
	if err != nil {
		b.ending.Store(true)
		conn.Close()
		return nil, fmt.Errorf("JetStream at %s: %w", withoutSecrets(url), err)
	}
	return b, nil
}

// unreachable tells a server that is away from one that answers, and refuses.
func unreachable(err error) bool {
	if errors.Is(err, nats.ErrTLS) { // also a connection that is closed right after the handshake, as our certificate is refused
		return false
	}
	if op := new(net.OpError); errors.As(err, &op) {
		return op.Op != "remote error" && op.Op != "local error" // those are alerts of TLS
	}
	return errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, io.EOF)
}

// explained says which option mends a connection that is refused.
func explained(err error) error {
	var unknown x509.UnknownAuthorityError
	op := new(net.OpError)
	switch {
	case errors.As(err, new(*url.Error)): // it repeats the URL, with its password
		return errors.New("no URL, or one in which the password is not percent-encoded")
	case errors.As(err, &unknown):
		return fmt.Errorf("nobody here vouches for the server's certificate, give its authority's file (nats.RootCAs): %w", err)
	case errors.As(err, &op) && (op.Op == "remote error" || errors.Is(err, nats.ErrTLS)):
		return fmt.Errorf("the server refuses our certificate, or wants one, give it (nats.ClientCert): %w", err)
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("the server refuses user, password, token, key or credentials: %w", err)
	}
	return err
}

// connection is how a connection behaves, and says what happens to it.
func (b *Broker) connection() []nats.Option {
	log, troubles := b.o.Logger, &seldom{}
	return []nats.Option{
		nats.Name("pabal"), nats.Timeout(5 * time.Second),
		nats.MaxReconnects(-1), nats.ReconnectWait(time.Second), nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(writeWait), nats.ReconnectOnFlusherError(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if !b.ending.Load() {
				log.Warn("NATS connection lost, reconnecting", "err", err)
			}
		}),
		nats.ReconnectErrHandler(func(c *nats.Conn, err error) {
			if troubles.say(err) {
				log.Warn("NATS cannot be reached, trying again", "url", withoutSecrets(c.Opts.Url), "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("NATS connection is back", "url", c.ConnectedUrlRedacted()) }),
		nats.ClosedHandler(func(c *nats.Conn) {
			if !b.ending.Load() {
				log.Error("NATS connection is closed for good: restart the process", "err", c.LastError())
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if troubles.say(err) {
				log.Warn("NATS", "err", err)
			}
		}),
	}
}

// seldom keeps an error that comes with every try, each second, from being logged more than once a minute.
type seldom struct {
	mu   sync.Mutex
	last string
	at   time.Time
}

func (s *seldom) say(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := fmt.Sprint(err); text != s.last || time.Since(s.at) >= time.Minute {
		s.last, s.at = text, time.Now()
		return true
	}
	return false
}

// answers asks JetStream whether it is there, more than once: a cluster without a leader, for a moment, answers nothing.
func answers(ctx context.Context, js jetstream.JetStream) error {
	const tries, wait = 5, 2 * time.Second
	var err error
	for range tries {
		call, cancel := context.WithTimeout(ctx, wait)
		_, err = js.AccountInfo(call)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// connected waits, at most until ctx ends, for a connection: one that was lost is mostly back within a second or two, and an event
// that is answered Again meanwhile waits for 10 s, the next time for 20. What nats.go would keep for later, and send by
// itself, comes after its lease.
func (b *Broker) connected(ctx context.Context) error {
	if b.conn.IsConnected() {
		return nil
	}
	changed := b.conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer b.conn.RemoveStatusListener(changed)
	for {
		switch {
		case b.conn.IsConnected():
			return nil
		case b.conn.IsClosed() || ctx.Err() != nil:
			if err := b.conn.LastError(); err != nil {
				return fmt.Errorf("not connected to NATS: %w", err)
			}
			return errors.New("not connected to NATS")
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
