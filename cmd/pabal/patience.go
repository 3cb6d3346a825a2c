package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// A process that is to run for long waits for a database that is away when it starts, alive and not ready, as it does for one that
// goes away later. What the database answers, a wrong password or missing tables, ends it at once.

const (
	openAgain     = 250 * time.Millisecond
	openAgainMost = 5 * time.Second
)

// patiently repeats what opens a source's database until that is there, or ctx ends.
func patiently(a *app, e *endpoints, source string, open func() error) error {
	for pause := openAgain; ; pause = min(2*pause, openAgainMost) {
		err := open()
		switch {
		case err != nil && a.ctx.Err() != nil:
			return errEnded
		case err == nil || !away(err):
			return err
		}
		a.log.Warn("database is away, trying again", "source", source, "err", err)
		e.waits(source + ": database: " + strings.Join(strings.Fields(err.Error()), " "))
		select {
		case <-time.After(pause):
		case <-a.ctx.Done():
			return errEnded
		}
	}
}

// errEnded: the process was told to end before it had begun; that is no failure.
var errEnded = &exit{}

// away reports whether an error says that nobody answers, or not yet.
func away(err error) bool {
	var unreachable *net.OpError
	var answer interface{ SQLState() string }
	switch {
	case errors.As(err, &answer):
		return answer.SQLState() == "57P03" // cannot_connect_now: it starts up or recovers
	case errors.As(err, &unreachable), errors.Is(err, context.DeadlineExceeded):
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn)
}
