package pabalsql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/pabal-go/pabal/driver"
)

// Audit implements driver.StoreAuditor: what the database does with a commit that it has answered. With SQLite these are
// settings of the pool's own connections and of the file: what other programs set for theirs is not to be seen.
func (s *Store) Audit(ctx context.Context) (found []driver.Finding, err error) {
	settings, err := s.settings(ctx, "durability")
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if s.dialect == &sqlite {
		mode := ""
		if err := s.db.QueryRowContext(ctx, "pragma journal_mode").Scan(&mode); err != nil {
			return nil, fmt.Errorf("read journal mode: %w", err)
		}
		settings["journal_mode"] = mode
	}
	found = s.dialect.audit(settings)
	err = s.query(ctx, nil, func(r *sql.Rows) error {
		var table, engine string
		err := r.Scan(&table, &engine)
		found = append(found, driver.Finding{Severity: driver.Broken, Promise: "P2, P4",
			What: fmt.Sprintf("table %s is of engine %s, which has no transactions", table, engine),
			Mend: "alter table " + table + " engine = InnoDB;"})
		return err
	}, "engines")
	if err != nil {
		return nil, fmt.Errorf("read engines: %w", err)
	}
	return found, nil
}

// auditMySQL judges the durability of MySQL and MariaDB, whose values differ in how they are written, and notes what lasts without end.
func auditMySQL(settings map[string]string) (found []driver.Finding) {
	is := func(name string, values ...string) bool {
		for _, v := range values {
			if strings.EqualFold(settings[name], v) {
				return true
			}
		}
		return false
	}
	add := func(what, mend string) {
		found = append(found, driver.Finding{Promise: "P1, P4", What: what, Mend: mend + " # and in the server's configuration"})
	}
	if flush := settings["innodb_flush_log_at_trx_commit"]; flush == "0" || flush == "2" {
		add("innodb_flush_log_at_trx_commit is "+flush+": a power cut loses the newest commits, which were acknowledged",
			"set global innodb_flush_log_at_trx_commit = 1;")
	}
	if sync := settings["sync_binlog"]; is("log_bin", "ON", "1") && sync != "1" {
		add("sync_binlog is "+sync+": after a power cut the binary log lacks commits that the tables have, so replicas and restored "+
			"backups do too", "set global sync_binlog = 1;")
	}
	if is("innodb_doublewrite", "OFF", "0") {
		found = append(found, driver.Finding{Promise: "P1, P4",
			What: "innodb_doublewrite is off: a power cut in the midst of a write leaves pages that cannot be read",
			Mend: "innodb_doublewrite = ON # in the server's configuration, then restart it"})
	}
	if is("innodb_flush_method", "nosync") {
		found = append(found, driver.Finding{Promise: "P1, P4",
			What: "innodb_flush_method is nosync: a power cut loses commits that were acknowledged, or the whole database",
			Mend: "innodb_flush_method = O_DIRECT # in the server's configuration, then restart it"})
	}
	if settings["idle_transaction_timeout"] == "0" && settings["idle_write_transaction_timeout"] == "0" { // MySQL has neither
		found = append(found, driver.Finding{Severity: driver.Note,
			What: "idle_transaction_timeout is 0: a process that stands still within a transaction keeps the keys locked that it records, " +
				"or handles, for as long as it is connected",
			Mend: "set global idle_transaction_timeout = 60; # seconds, longer than any ConsumerOptions.Timeout; and in the server's configuration"})
	}
	return found
}

// auditSQLite judges what https://www.sqlite.org/pragma.html says of synchronous (0 off, 1 normal, 2 full, 3 extra) and of
// journal_mode. Beside a write-ahead log full is enough; a rollback journal that is deleted needs extra, or else "a power
// loss" right after the commit may roll it back.
func auditSQLite(settings map[string]string) (found []driver.Finding) {
	add := func(what string) {
		found = append(found, driver.Finding{Promise: "P1, P4", What: what,
			Mend: "open it with pabalsql.OpenSQLite # or: pragma journal_mode = wal, and for each connection pragma synchronous = full"})
	}
	mode := settings["journal_mode"]
	switch synchronous := settings["synchronous"]; {
	case synchronous == "0":
		add("synchronous is off: a power cut loses commits that were acknowledged, or the whole file")
	case synchronous == "1":
		add("synchronous is normal: a power cut loses the newest commits, which were acknowledged")
	case synchronous == "2" && mode == "delete":
		add("journal_mode is delete with synchronous full: a power cut right after a commit may undo it; and writers and readers wait for " +
			"each other")
	}
	if mode == "memory" || mode == "off" {
		add("journal_mode is " + mode + ": a program that is killed within a transaction leaves a file that cannot be read")
	}
	return found
}
