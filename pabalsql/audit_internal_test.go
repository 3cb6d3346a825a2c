package pabalsql

import (
	"strings"
	"testing"
)

// Each setting by itself; MySQL and MariaDB write the same value differently, and some can only be set when a server starts.
func TestAuditJudgesDurability(t *testing.T) {
	with := func(settings map[string]string, change ...string) map[string]string {
		changed := map[string]string{}
		for name, value := range settings {
			changed[name] = value
		}
		for i := 0; i < len(change); i += 2 {
			changed[change[i]] = change[i+1]
		}
		return changed
	}
	fine := map[string]string{"innodb_doublewrite": "ON", "innodb_flush_log_at_trx_commit": "1", "innodb_flush_method": "fsync",
		"log_bin": "ON", "sync_binlog": "1"}
	wal := map[string]string{"synchronous": "2", "journal_mode": "wal"}
	for _, c := range []struct {
		dialect  *dialect
		settings map[string]string
		want     string // "": nothing
	}{
		{&mysql, fine, ""},
		{&mysql, with(fine, "innodb_doublewrite", "DETECT_AND_RECOVER"), ""},
		{&mysql, with(fine, "log_bin", "OFF", "sync_binlog", "0"), ""},
		{&mysql, with(fine, "innodb_flush_log_at_trx_commit", "0"), "innodb_flush_log_at_trx_commit is 0"},
		{&mysql, with(fine, "innodb_flush_log_at_trx_commit", "2"), "innodb_flush_log_at_trx_commit is 2"},
		{&mysql, with(fine, "sync_binlog", "0"), "sync_binlog is 0"},
		{&mysql, with(fine, "sync_binlog", "1000"), "sync_binlog is 1000"},
		{&mysql, with(fine, "innodb_doublewrite", "OFF"), "innodb_doublewrite is off"},
		{&mysql, with(fine, "innodb_doublewrite", "0"), "innodb_doublewrite is off"},
		{&mysql, with(fine, "innodb_flush_method", "nosync"), "innodb_flush_method is nosync"},
		{&mysql, with(fine, "idle_transaction_timeout", "0", "idle_write_transaction_timeout", "0"), "idle_transaction_timeout is 0"},
		{&mysql, with(fine, "idle_transaction_timeout", "60", "idle_write_transaction_timeout", "0"), ""},
		{&mysql, with(fine, "idle_transaction_timeout", "0", "idle_write_transaction_timeout", "60"), ""},
		{&sqlite, wal, ""},
		{&sqlite, with(wal, "synchronous", "3"), ""},
		{&sqlite, with(wal, "synchronous", "3", "journal_mode", "delete"), ""},
		{&sqlite, with(wal, "synchronous", "0"), "synchronous is off"},
		{&sqlite, with(wal, "synchronous", "1"), "synchronous is normal"},
		{&sqlite, with(wal, "journal_mode", "delete"), "journal_mode is delete with synchronous full"},
		{&sqlite, with(wal, "journal_mode", "memory"), "journal_mode is memory"},
		{&sqlite, with(wal, "journal_mode", "off"), "journal_mode is off"},
	} {
		found := c.dialect.audit(c.settings)
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.HasPrefix(found[0].What, c.want)) {
			t.Errorf("%v: want %q, found %+v", c.settings, c.want, found)
		}
	}
}
