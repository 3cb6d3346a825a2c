package pabalsql

import (
	"errors"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// dialect is what differs from database to database.
type dialect struct {
	name     string
	clock    func() time.Time // the database's, at the statement
	noTable  func(error) bool
	conflict func(error) bool
}

var sqlite = dialect{
	name: "sqlite",
	// SQLite runs in this process: its clock is the machine's, and finer asked directly than through SQL.
	clock: func() time.Time { return time.Now().UTC().Truncate(time.Microsecond) },
	noTable: func(err error) bool {
		var e *sqlitedriver.Error
		return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_ERROR && missingTable.MatchString(e.Error())
	},
	conflict: func(err error) bool {
		var e *sqlitedriver.Error
		if !errors.As(err, &e) {
			return false
		}
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
	},
}
