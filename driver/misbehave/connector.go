package misbehave

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
)

// Connector wraps a connector of database/sql: a COMMIT on its connections is slow, refused, or not answered, as the plan says of
// "Commit" (Stalled, Refused, Lost). It stands below whatever watches commits, and that asks by Unwrap for the methods that the
// wrapper hides: sql.OpenDB(pabalsql.Watch(misbehave.Connector(connector, trouble))).
func Connector(c sqldriver.Connector, t *Trouble) sqldriver.Connector { return &connector{c, t} }

type connector struct {
	sqldriver.Connector
	t *Trouble
}

// Connect implements driver.Connector of database/sql.
func (c *connector) Connect(ctx context.Context) (sqldriver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{inner, c.t}, nil
}

type conn struct {
	sqldriver.Conn
	t *Trouble
}

// Unwrap is the connection with all of its methods.
func (c *conn) Unwrap() sqldriver.Conn {
	if u, ok := c.Conn.(interface{ Unwrap() sqldriver.Conn }); ok {
		return u.Unwrap()
	}
	return c.Conn
}

// BeginTx implements driver.ConnBeginTx of database/sql.
func (c *conn) BeginTx(ctx context.Context, o sqldriver.TxOptions) (sqldriver.Tx, error) {
	var tx sqldriver.Tx
	var err error
	switch b, ok := c.Conn.(sqldriver.ConnBeginTx); {
	case ok:
		tx, err = b.BeginTx(ctx, o)
	case o.ReadOnly || o.Isolation != 0:
		err = errors.New("the driver knows no transactions but its default")
	default:
		tx, err = c.Begin() //nolint:staticcheck // what database/sql does for such a driver
	}
	if err != nil {
		return nil, err
	}
	return &transaction{tx, c.t}, nil
}

type transaction struct {
	sqldriver.Tx
	t *Trouble
}

// Commit implements driver.Tx of database/sql.
func (x *transaction) Commit() error {
	c := x.t.call("Commit")
	_ = c.stall(context.Background()) // it has no context to end
	if c.is("Refused", c.Refused) {
		_ = x.Rollback()
		return c.err("is refused")
	}
	err := x.Tx.Commit()
	if err == nil && c.is("Lost", c.Lost) {
		return c.err("lost its answer")
	}
	return err
}
