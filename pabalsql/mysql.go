package pabalsql

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// Errors of MySQL and MariaDB, by their numbers.
const (
	noSuchTable     = 1146
	badField        = 1054 // a column of a newer version
	lockWaitTimeout = 1205
	deadlock        = 1213
	recordChanged   = 1020 // MariaDB with innodb_snapshot_isolation: what is to be locked has changed since the snapshot
)

// Pabal's own transactions are READ COMMITTED: they see what is committed, and lock no gaps in which recorders insert.
var mysql = dialect{
	name:       "mysql",
	statements: readStatements("mysql"),
	isolation:  sql.LevelReadCommitted,
	noTable:    func(err error) bool { return isMySQL(err, noSuchTable, badField) },
	conflict:   func(err error) bool { return isMySQL(err, deadlock, lockWaitTimeout, recordChanged) },
	endangers:  mysqlEndangers,
	audit:      auditMySQL,
}

func isMySQL(err error, numbers ...uint16) bool {
	var e *mysqldriver.MySQLError
	if !errors.As(err, &e) {
		return false
	}
	for _, number := range numbers {
		if e.Number == number {
			return true
		}
	}
	return false
}

// mysqlEndangers names the setting of a session that breaks a promise. An operator mends it where the message says, or with a
// parameter of the data source name.
func mysqlEndangers(settings map[string]string) error {
	is := func(name, value string) bool { return strings.EqualFold(settings[name], value) }
	switch {
	case is("autocommit", "OFF") || is("autocommit", "0"):
		return errors.New("pabalsql: autocommit is off: what is written outside of transactions would be committed by chance; " +
			"leave it on (a transaction turns it off for its time)")
	case is("transaction_isolation", "READ-UNCOMMITTED") || is("tx_isolation", "READ-UNCOMMITTED"):
		return errors.New("pabalsql: transaction_isolation is READ-UNCOMMITTED: events would be seen that may never be committed (P2); " +
			"use READ-COMMITTED or REPEATABLE-READ")
	case is("binlog_format", "STATEMENT"):
		return errors.New("pabalsql: binlog_format is STATEMENT, with which InnoDB writes nothing in READ COMMITTED transactions; " +
			"use ROW or MIXED")
	case !strings.Contains(settings["sql_mode"], "STRICT_TRANS_TABLES") && !strings.Contains(settings["sql_mode"], "STRICT_ALL_TABLES"):
		return fmt.Errorf("pabalsql: sql_mode is %q: without STRICT_TRANS_TABLES an event that does not fit is cut, and recorded so; "+
			"add it (sql_mode='STRICT_TRANS_TABLES' in the data source name)", settings["sql_mode"])
	}
	return nil
}

// MySQLOptions of [OpenMySQL]. Nil and zero values are the good defaults.
type MySQLOptions struct {
	// MaxConns bounds the connections of the pool, Pabal's included: at most two at a time for itself and one per consumer
	// lane. Default 32; a server takes 151 of all its clients unless told otherwise (max_connections).
	MaxConns int
}

// Of the pool of OpenMySQL. Load balancers and servers close idle connections after minutes; the pool does before them.
const (
	mysqlConns    = 32
	mysqlIdleTime = 3 * time.Minute
)

// OpenMySQL opens a pool of watched connections to MySQL 8 or MariaDB 10.11 or newer. The address is a data source name of
// go-sql-driver (user:password@tcp(host:port)/name?parameters) or a URL (mysql://user:password@host:port/name?parameters, or
// mariadb://…) with the same parameters; the database must exist. Pabal needs no parameter: neither parseTime nor
// multiStatements. Nothing is sent: what is wrong with the server shows at the first use. Settings that would break a
// promise are refused by name when a store opens.
//
// With a connector of your own, open the pool yourself: sql.OpenDB(pabalsql.Watch(connector)).
func OpenMySQL(address string, o *MySQLOptions) (*sql.DB, error) {
	config, err := mysqlConfig(address)
	if err != nil {
		return nil, fmt.Errorf("open MySQL database: %w", err)
	}
	if config.DBName == "" {
		return nil, errors.New("open MySQL database: the address names no database")
	}
	connector, err := mysqldriver.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("open MySQL database %s at %s: %w", config.DBName, config.Addr, err)
	}
	conns := mysqlConns
	if o != nil && o.MaxConns != 0 {
		conns = o.MaxConns
	}
	if conns < 4 {
		return nil, fmt.Errorf("open MySQL database %s at %s: MaxConns %d: at least 4", config.DBName, config.Addr, conns)
	}
	db := sql.OpenDB(Watch(connector))
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(mysqlIdleTime)
	return db, nil
}

// mysqlConfig reads an address. An error does not repeat it, for it may hold a password.
func mysqlConfig(address string) (*mysqldriver.Config, error) {
	scheme, rest, isURL := strings.Cut(address, "://")
	if !isURL || scheme != "mysql" && scheme != "mariadb" {
		config, err := mysqldriver.ParseDSN(address)
		return config, withoutSecrets(err, address)
	}
	u, err := url.Parse("mysql://" + rest)
	if err != nil {
		return nil, errors.New("the address is no URL: percent-encode what is special in user and password")
	}
	host := u.Host
	if u.Port() == "" {
		host += ":3306"
	}
	config, err := mysqldriver.ParseDSN("tcp(" + host + ")/" + strings.TrimPrefix(u.EscapedPath(), "/") + "?" + u.RawQuery)
	if err != nil {
		return nil, err
	}
	config.User = u.User.Username()
	config.Passwd, _ = u.User.Password()
	return config, nil
}

// withoutSecrets is an error about an address, unless it repeats what stands before an "@" there, as the driver does with what
// it takes for the name of a database. Without a slash too many or too few, that is user and password.
func withoutSecrets(err error, address string) error {
	at := strings.LastIndexByte(address, '@')
	if err == nil || at < 0 {
		return err
	}
	for i, part := range strings.FieldsFunc(address[:at], func(r rune) bool { return strings.ContainsRune(":/@", r) }) {
		if i > 0 && strings.Contains(err.Error(), part) {
			return errors.New("the address is neither user:password@tcp(host:port)/name?parameters nor a URL " +
				"(mysql://user:password@host:port/name?parameters)")
		}
	}
	return err
}
