package hostile

import (
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// CommitRates are probabilities, from 0 to 1, of what happens to a COMMIT on its way to PostgreSQL.
type CommitRates struct {
	Refused  float64 // its connection is cut before the server gets it
	Lost     float64 // its connection is cut once the server has answered, and before the client knows
	Late     float64 // its client is cut off, and the server gets it after
	LateBy   time.Duration
	Slow     float64 // it waits, up to
	SlowMost time.Duration
}

// Commits is a proxy before a PostgreSQL server that misbehaves when a COMMIT goes by. Its methods are safe for concurrent use.
type Commits struct {
	URL string // of the database, through the proxy

	server string

	mu     sync.Mutex
	random *rand.Rand
	rates  CommitRates
	done   map[string]int
	ends   map[net.Conn]bool
	closed bool
}

// StartCommits starts a proxy in front of a database without TLS; it ends with the test.
func StartCommits(t testing.TB, database string, seed uint64, rates CommitRates) *Commits {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Commits{server: u.Host, random: rand.New(rand.NewPCG(seed, 0)), rates: rates, done: map[string]int{}, ends: map[net.Conn]bool{}}
	u.Host = l.Addr().String()
	c.URL = u.String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed below
			}
			serving.Go(func() { c.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.closeAll()
		serving.Wait()
	})
	return c
}

// Set changes the rates.
func (c *Commits) Set(rates CommitRates) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rates = rates
}

// Done answers how often each misbehaviour happened: refused, lost, late, slow.
func (c *Commits) Done() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.done)
}

func (c *Commits) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for end := range c.ends {
		_ = end.Close()
	}
}

// hold takes an end of a connection in; false once the proxy has ended.
func (c *Commits) hold(end net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[end] = true
	return !c.closed
}

func (c *Commits) drop(end net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, end)
	_ = end.Close()
}

// fate is what becomes of a COMMIT.
type fate struct {
	refused, lost bool
	wait, late    time.Duration // before the server gets it, once its client is cut off
}

func (c *Commits) decide() (f fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.random.Float64() < c.rates.Slow {
		c.done["slow"]++
		f.wait = time.Duration(c.random.Int64N(int64(c.rates.SlowMost) + 1))
	}
	switch n := c.random.Float64(); {
	case n < c.rates.Refused:
		c.done["refused"]++
		f.refused = true
	case n < c.rates.Refused+c.rates.Lost:
		c.done["lost"]++
		f.lost = true
	case n < c.rates.Refused+c.rates.Lost+c.rates.Late:
		c.done["late"]++
		f.lost, f.late = true, c.rates.LateBy
	}
	return f
}

func (c *Commits) serve(client net.Conn) {
	defer c.drop(client)
	if !c.hold(client) {
		return
	}
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer c.drop(server)
	if !c.hold(server) {
		return
	}
	lost := make(chan struct{}) // closed before a COMMIT is forwarded whose answer gets lost
	var answers sync.WaitGroup
	answers.Go(func() {
		defer c.drop(client)
		carryAnswers(client, server, lost)
	})
	c.carryCalls(client, server, lost)
	select {
	case <-lost:
		answers.Wait() // the server has answered, or has gone
	default:
		c.drop(server)
		answers.Wait()
	}
}

func carryAnswers(client io.Writer, server io.Reader, lost <-chan struct{}) {
	b := make([]byte, 1<<16)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		select {
		case <-lost:
			return // it is answered, and nobody will know
		default:
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// carryCalls forwards what the client sends until it ends, or a COMMIT is refused or to be lost.
func (c *Commits) carryCalls(client net.Conn, server io.Writer, losing chan<- struct{}) {
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(bytes.ToLower(b[:n]), []byte("commit\x00")) { // the text of a query ends with a zero
			f := c.decide()
			<-time.After(f.wait)
			if f.refused {
				return
			}
			if f.lost {
				close(losing)
				if f.late > 0 {
					c.drop(client)
					<-time.After(f.late)
				}
				_, _ = server.Write(b[:n]) // if it has gone there is no answer either
				return
			}
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}
