package pabalsql

import (
	"context"
	sqldriver "database/sql/driver"
	"strings"
)

// own marks statements of Pabal's own. A watched connection keeps them prepared: database/sql would prepare a statement anew
// in each transaction whose connection is not the one that first prepared it, one more round trip to a server.
const own = "/* pabal */ "

// preparedMax bounds what a connection keeps prepared, as servers do (MySQL: max_prepared_stmt_count, 16,382 of all
// connections); beyond, the one used longest ago is closed.
const preparedMax = 64

// prepared are the statements that a connection keeps.
type prepared struct {
	kept map[string]*kept
	used uint64
}

type kept struct {
	*stmt
	last uint64
}

// ownStatement returns a statement of Pabal's own, kept prepared; nil for any other.
func (c *conn) ownStatement(ctx context.Context, query string) (*stmt, error) {
	text, isOwn := strings.CutPrefix(query, own)
	if !isOwn {
		return nil, nil
	}
	p := &c.prepared
	p.used++
	if k := p.kept[text]; k != nil {
		k.last = p.used
		return k.stmt, nil
	}
	s, err := c.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if p.kept == nil {
		p.kept = map[string]*kept{}
	}
	for len(p.kept) >= preparedMax {
		p.forget(p.oldest())
	}
	k := &kept{stmt: s.(*stmt), last: p.used}
	p.kept[text] = k
	return k.stmt, nil
}

func (p *prepared) oldest() (text string) {
	for name, k := range p.kept {
		if text == "" || k.last < p.kept[text].last {
			text = name
		}
	}
	return text
}

// forget closes a statement: the next use prepares it again.
func (p *prepared) forget(text string) {
	if k := p.kept[text]; k != nil {
		delete(p.kept, text)
		_ = k.Close() // of no use any more
	}
}

func (p *prepared) close() {
	for text := range p.kept {
		p.forget(text)
	}
}

// execOwn and queryOwn run a statement of Pabal's own; ErrSkip for any other. One that failed is not kept: a server forgets
// statements too.
func (c *conn) execOwn(ctx context.Context, query string, args []sqldriver.NamedValue) (sqldriver.Result, error) {
	s, err := c.ownStatement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, sqldriver.ErrSkip
	}
	r, err := s.ExecContext(ctx, args)
	if err != nil {
		c.prepared.forget(s.query)
	}
	return r, err
}

func (c *conn) queryOwn(ctx context.Context, query string, args []sqldriver.NamedValue) (sqldriver.Rows, error) {
	s, err := c.ownStatement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, sqldriver.ErrSkip
	}
	r, err := s.QueryContext(ctx, args)
	if err != nil {
		c.prepared.forget(s.query)
	}
	return r, err
}
