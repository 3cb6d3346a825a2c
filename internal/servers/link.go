package servers

import (
	"net"
	"sync"
	"testing"
)

// Link is a network between a client and a server that a test may cut. Its methods are safe for concurrent use.
type Link struct {
	Addr string // to connect to instead of the server's

	target string
	mu     sync.Mutex
	state  linkState
	change *sync.Cond
	ends   map[net.Conn]bool // of all connections
}

type linkState int

const (
	linkUp linkState = iota
	linkCut
	linkSilent
	linkEnded
)

// NewLink starts a link to the server at target, "host:port".
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: listener.Addr().String(), target: target, ends: map[net.Conn]bool{}}
	l.change = sync.NewCond(&l.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed below
			}
			running.Go(func() { l.join(client) })
		}
	})
	t.Cleanup(func() {
		l.set(linkEnded)
		_ = listener.Close()
		running.Wait()
	})
	return l
}

// Cut closes all connections and every new one, as a server does that is restarted.
func (l *Link) Cut() { l.set(linkCut) }

// Swallow lets nothing pass and closes nothing, as a firewall does that has forgotten a connection.
func (l *Link) Swallow() { l.set(linkSilent) }

// Mend lets everything pass again, also what was swallowed.
func (l *Link) Mend() { l.set(linkUp) }

func (l *Link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	if s == linkCut || s == linkEnded {
		for c := range l.ends {
			_ = c.Close()
		}
		clear(l.ends)
	}
	l.change.Broadcast()
}

// passes waits until something may pass, and tells whether c is still to be served.
func (l *Link) passes(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.state == linkSilent && l.ends[c] {
		l.change.Wait()
	}
	return l.ends[c]
}

// hold takes a connection in, unless the link is cut.
func (l *Link) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkCut || l.state == linkEnded {
		_ = c.Close()
		return false
	}
	l.ends[c] = true
	return true
}

func (l *Link) join(client net.Conn) {
	if !l.hold(client) || !l.passes(client) {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		l.drop(client)
		return
	}
	if !l.hold(server) {
		l.drop(client)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.carry(client, server) })
	both.Go(func() { l.carry(server, client) })
	both.Wait()
}

// carry moves bytes one way until an end closes, then closes the other.
func (l *Link) carry(from, to net.Conn) {
	defer l.drop(from)
	defer l.drop(to)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !l.passes(from) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ends, c)
	_ = c.Close()
	l.change.Broadcast()
}
