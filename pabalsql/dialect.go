package pabalsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/driver"
)

// dialect is what differs from database to database: statements, and what its driver's errors mean.
type dialect struct {
	name       string // of its folders in sql and schema
	statements map[string]string
	isolation  sql.IsolationLevel // of the transactions that are Pabal's own
	noTable    func(error) bool
	conflict   func(error) bool
	endangers  func(settings map[string]string) error            // what Open refuses; nil: the statement "settings" is empty
	audit      func(settings map[string]string) []driver.Finding // what Open does not refuse, and lessens what a commit is worth
}

// The dialects, by the names that [Script] takes.
var dialects = map[string]*dialect{"sqlite": &sqlite, "mysql": &mysql, "mariadb": &mysql}

const askTime = 10 * time.Second

// dialectOf finds out what database a pool is of, by its driver; where that is another's wrapper, by asking the database.
func dialectOf(db *sql.DB) (*dialect, error) {
	switch db.Driver().(type) {
	case *sqlitedriver.Driver:
		return &sqlite, nil
	case *mysqldriver.MySQLDriver:
		return &mysql, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	var version string
	isSQLite := db.QueryRowContext(ctx, "select sqlite_version()").Scan(&version)
	if isSQLite == nil {
		return &sqlite, nil
	}
	isMySQL := db.QueryRowContext(ctx, "select @@version").Scan(&version)
	if isMySQL == nil {
		return &mysql, nil
	}
	return nil, fmt.Errorf("pabalsql: driver %T is neither of SQLite nor of MySQL or MariaDB: %w", db.Driver(), errors.Join(isSQLite, isMySQL))
}

// clock tells the time: the database's, at this statement; with a dialect that has no clock, that of the machine it shares.
func (s *Store) clock(ctx context.Context, tx *sql.Tx) (now time.Time, err error) {
	text, err := s.statement("clock")
	if err != nil {
		return now, err
	}
	if text == "" {
		return time.Now().UTC().Truncate(time.Microsecond), nil
	}
	err = s.query(ctx, tx, func(r *sql.Rows) error { return r.Scan(nullTime{&now}) }, "clock")
	return now, err
}

// checkSettings refuses what would break a promise.
func (s *Store) checkSettings(ctx context.Context) error {
	settings, err := s.settings(ctx, "settings")
	if err != nil || s.dialect.endangers == nil {
		return err
	}
	return s.dialect.endangers(settings)
}

// settings reads names and values.
func (s *Store) settings(ctx context.Context, statement string) (map[string]string, error) {
	settings := map[string]string{}
	err := s.query(ctx, nil, func(r *sql.Rows) error {
		var name, value string
		err := r.Scan(&name, &value)
		settings[name] = value
		return err
	}, statement)
	return settings, err
}
