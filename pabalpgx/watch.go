package pabalpgx

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal/driver"
)

// Watch returns a copy of cfg whose connections Pabal watches: it reads along what the database answers, and so sees
// what becomes of every transaction, whatever call or text began and ended it. It adds nothing to what is sent, and keeps
// cfg's tracers, BuildFrontend and DialFunc. It works with TLS. A BuildFrontend, DialFunc or AfterNetConnect that is set
// later, or that hides the connection from the one before it, leaves connections unwatched, which a store refuses.
//
// The copy serves database/sql as well: stdlib.OpenDBFromPool, or stdlib.OpenDB(*Watch(cfg).ConnConfig).
func Watch(cfg *pgxpool.Config) *pgxpool.Config {
	cfg = cfg.Copy()
	c := &cfg.ConnConfig.Config
	dial, build := c.DialFunc, c.BuildFrontend
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		inner, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &wire{Conn: inner}, nil
	}
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		conn, _ := w.(net.Conn)
		beneath := wireOf(conn)
		if beneath == nil { // somebody's BuildFrontend or AfterNetConnect hides it: an unwatched connection
			return build(r, w)
		}
		watch := &watch{close: beneath.Close}
		watch.sent.started = true
		beneath.watch.set(watch)
		return build(&watchedReader{r, watch}, &watchedWriter{w, watch})
	}
	return cfg
}

// wire is the network connection beneath a watched connection; pgx leads from a pgx.Conn to it, also through TLS.
type wire struct {
	net.Conn
	watch guarded
}

// guarded is a watch that is set once, while the connection is made.
type guarded struct {
	mu sync.Mutex
	w  *watch
}

func (g *guarded) set(w *watch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = w
}

func (g *guarded) get() *watch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.w
}

// Write implements net.Conn. pgx writes some batches past its frontend, so that only here it is seen that something was asked;
// what, TLS hides.
func (c *wire) Write(p []byte) (int, error) {
	if w := c.watch.get(); w != nil && string(p) != terminate {
		w.writes()
	}
	return c.Conn.Write(p)
}

// terminate is the message with which pgx takes its leave.
const terminate = "X\x00\x00\x00\x04"

// Close implements net.Conn. Every way in which pgx drops a connection ends here.
func (c *wire) Close() error {
	err := c.Conn.Close()
	if w := c.watch.get(); w != nil {
		w.gone()
	}
	return err
}

// wireOf looks for a wire beneath a connection.
func wireOf(c net.Conn) *wire {
	for c != nil {
		if w, ok := c.(*wire); ok {
			return w
		}
		inner, ok := c.(interface{ NetConn() net.Conn }) // *tls.Conn
		if !ok {
			return nil
		}
		c = inner.NetConn()
	}
	return nil
}

// watchOf returns the watch of a connection, nil if nobody watches it.
func watchOf(c *pgx.Conn) *watch {
	if c == nil {
		return nil
	}
	return watchOfRaw(c.PgConn())
}

func watchOfRaw(c *pgconn.PgConn) *watch {
	if beneath := wireOf(c.Conn()); beneath != nil {
		return beneath.watch.get()
	}
	return nil
}

// watch turns the messages of a connection into the signals of driver.CommitWatch.
type watch struct {
	close func() error // cuts the connection

	mu     sync.Mutex // pgx closes a connection from elsewhere
	commit driver.CommitWatch
	tx     *transaction // the open one, or the last
	got    messages
	sent   messages
	asked  int  // requests that wait for their ReadyForQuery
	asking bool // something was written since the last ReadyForQuery
	lost   bool
	ahead  func(driver.CommitState) // the outcome of a Recording whose BEGIN travels with it; nil: none
}

// transaction remembers how it ended.
type transaction struct {
	ended bool
	how   driver.CommitSignal
}

// record notes a Recording, which outcome ends.
func (w *watch) record(outcome func(driver.CommitState)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost || !w.commit.Recording(outcome) {
		return driver.ErrNoTransaction
	}
	return nil
}

// recordAhead notes a Recording that is sent together with its transaction's BEGIN, or in an open one.
func (w *watch) recordAhead(outcome func(driver.CommitState)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost {
		return driver.ErrNoTransaction
	}
	if !w.commit.Recording(outcome) {
		w.ahead = outcome
	}
	return nil
}

// neverBegan ends a Recording whose BEGIN was refused, or never sent. Where something is not answered pgx is closing the
// connection, and gone tells.
func (w *watch) neverBegan() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if outcome := w.ahead; outcome != nil && w.asked == 0 && !w.asking {
		w.ahead = nil
		outcome(driver.Void)
	}
}

// current is the open transaction; nil if there is none.
func (w *watch) current() *transaction {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tx == nil || w.tx.ended {
		return nil
	}
	return w.tx
}

// ending says how t ended; false while it is open.
func (w *watch) ending(t *transaction) (how driver.CommitSignal, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.how, t.ended
}

// see passes on a signal. The caller holds mu.
func (w *watch) see(s driver.CommitSignal) {
	switch {
	case s == driver.SawBegin:
		w.tx = &transaction{}
	case s != driver.SawDoubt && w.tx != nil && !w.tx.ended:
		w.tx.ended, w.tx.how = true, s
	}
	w.commit.See(s)
	if outcome := w.ahead; s == driver.SawBegin && outcome != nil {
		w.ahead = nil
		w.commit.Recording(outcome)
	}
}

func (w *watch) writes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking = true
}

// gone notes that the connection is lost. What was asked and not answered may have been a COMMIT.
func (w *watch) gone() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost {
		return
	}
	w.lost = true
	if w.ahead != nil { // BEGIN is not answered either
		w.see(driver.SawBegin)
	}
	switch {
	case !w.commit.Open():
	case w.asked > 0 || w.asking:
		w.see(driver.SawCommitLost)
	default:
		w.see(driver.SawEnd)
	}
}

// answered takes in a message from the database (PostgreSQL manual, 55.7). An error needs no notice: what it leaves of a
// transaction ends with ROLLBACK, of all or to a savepoint, or with a COMMIT that answers so.
func (w *watch) answered(kind byte, body []byte) {
	switch kind {
	case 'C': // CommandComplete
		w.completed(string(body))
	case 'Z': // ReadyForQuery, with the state of the transaction
		w.asked, w.asking = max(0, w.asked-1), false
		open := len(body) == 1 && body[0] != 'I'
		switch {
		case open && !w.commit.Open(): // COMMIT AND CHAIN
			w.see(driver.SawBegin)
		case !open && w.commit.Open(): // ROLLBACK, a failed COMMIT, PREPARE TRANSACTION
			w.see(driver.SawEnd)
		}
	}
}

// completed takes in the tag of a command. ROLLBACK stands for a whole transaction, for a savepoint, and for the COMMIT of
// a failed transaction; whether one is still open the next ReadyForQuery says, and if so, nobody knows which.
func (w *watch) completed(tag string) {
	switch tag {
	case "BEGIN\x00", "START TRANSACTION\x00":
		if !w.commit.Open() { // else it was only a warning
			w.see(driver.SawBegin)
		}
	case "COMMIT\x00":
		w.see(driver.SawCommit)
	case "ROLLBACK\x00":
		w.see(driver.SawDoubt)
	case "PREPARE TRANSACTION\x00":
		w.see(driver.SawEnd)
	}
}

// watchedReader is what the database sends.
type watchedReader struct {
	io.Reader
	w *watch
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.w.mu.Lock()
	r.w.got.walk(p[:n], r.w.answered)
	r.w.mu.Unlock()
	var timeout net.Error
	if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
		r.w.gone()
	}
	return n, err
}

// watchedWriter is what is sent to the database.
type watchedWriter struct {
	io.Writer
	w *watch
}

func (s *watchedWriter) Write(p []byte) (int, error) {
	s.w.mu.Lock() // noted before it is sent: the answer may be read before Write returns
	s.w.sent.walk(p, func(kind byte, _ []byte) {
		switch kind {
		case 'Q', 'S', 'F': // Query, Sync, FunctionCall: each ends with a ReadyForQuery
			s.w.asked++
		}
	})
	s.w.mu.Unlock()
	return s.Writer.Write(p)
}

// messages walks over a stream of protocol messages: a byte that tells the kind, four bytes of length, the body.
type messages struct {
	started bool // the client's first message has no kind
	header  [5]byte
	have    int // bytes of header
	left    int // bytes of the body
	body    [24]byte
	kept    int // bytes of body, as many as there is room for: the longest that matters is PREPARE TRANSACTION
}

// walk takes in the next bytes of the stream, cut anywhere, and calls end at the end of each message, with its body if
// that is short. What end gets is only valid during the call.
func (m *messages) walk(b []byte, end func(kind byte, body []byte)) {
	if m.started {
		m.started, m.have = false, 1
	}
	for len(b) > 0 {
		if m.have < len(m.header) {
			n := copy(m.header[m.have:], b)
			m.have += n
			b = b[n:]
			if m.have < len(m.header) {
				return
			}
			m.left = int(binary.BigEndian.Uint32(m.header[1:])) - 4
			m.kept = 0
		} else {
			n := min(m.left, len(b))
			m.kept += copy(m.body[m.kept:], b[:n])
			m.left -= n
			b = b[n:]
		}
		if m.left <= 0 {
			end(m.header[0], m.body[:m.kept])
			m.header[0], m.have = 0, 0
		}
	}
}
