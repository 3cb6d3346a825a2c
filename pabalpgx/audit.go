package pabalpgx

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// aheadLeast is for how many days a client that runs has partitions made, with a week's grace: it makes them every hour.
const aheadLeast = ahead - 7

const (
	// Settings as this session has them, and as other roles or databases of the server begin theirs with.
	sqlSettings = `select name, setting, '' from pg_settings
			where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names',
				'idle_in_transaction_session_timeout')
		union all
		select split_part(c.entry, '=', 1), split_part(c.entry, '=', 2), coalesce('role ' || quote_ident(r.rolname), 'all roles')
		from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) c (entry)
		where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
			and split_part(c.entry, '=', 1) = 'synchronous_commit'
		order by 3, 1`
	sqlUnlogged = `select c.relname from pg_class c
		where c.relnamespace = (select relnamespace from pg_class where oid = '{p}meta'::regclass)
			and starts_with(c.relname, '{p}') and c.relkind in ('r', 'p') and c.relpersistence <> 'p' order by 1`
	sqlStandbys = `select count(*) from pg_stat_replication`
	// The last day with a partition, and whether there is one for today.
	sqlDays = `select coalesce(max(d.day), ''), coalesce(bool_or(d.day = to_char(n.now, 'YYYYMMDD')), false), n.now
		from (select clock_timestamp() at time zone 'UTC') n (now)
		left join (select right(c.relname, 8) from pg_inherits i join pg_class c on c.oid = i.inhrelid
			where i.inhparent = '{p}event'::regclass and c.relname ~ '^{p}event_[0-9]{8}$') d (day) on true
		group by n.now`
)

// setting is one of PostgreSQL's, of this session or of those of somebody else.
type setting struct{ name, value, whose string }

// Audit implements driver.StoreAuditor: durability, tables that a crash empties, partitions that nobody makes, locks without end.
func (b *base) Audit(ctx context.Context) ([]driver.Finding, error) {
	var settings []setting
	var unlogged []string
	standbys := 0
	var p partitions
	for _, st := range []statement{
		{name: "read settings", query: sqlSettings, scan: func(row scanner) error {
			var s setting
			err := row.Scan(&s.name, &s.value, &s.whose)
			settings = append(settings, s)
			return err
		}},
		{name: "look for unlogged tables", query: sqlUnlogged, scan: func(row scanner) error {
			name := ""
			err := row.Scan(&name)
			unlogged = append(unlogged, name)
			return err
		}},
		{name: "count standbys", query: sqlStandbys, scan: func(row scanner) error { return row.Scan(&standbys) }},
		{name: "read partitions", query: sqlDays, scan: func(row scanner) error { return row.Scan(&p.last, &p.today, &p.now) }},
	} {
		if err := b.own().query(ctx, st.scan, st.query); err != nil {
			return nil, fmt.Errorf("%s: %w", st.name, err)
		}
	}
	found := auditSettings(settings, standbys)
	for _, name := range unlogged {
		found = append(found, driver.Finding{Promise: "P1, P4", What: "table " + name + " is unlogged: a crash of the server empties it",
			Mend: "alter table " + name + " set logged;"})
	}
	return append(found, p.audit(b.prefix)...), nil
}

// auditSettings judges durability, and notes what lasts without end. That a standby may be behind is none of a single server's
// settings, and noted.
func auditSettings(settings []setting, standbys int) (found []driver.Finding) {
	synchronous := ""
	for _, s := range settings {
		if s.name == "synchronous_standby_names" {
			synchronous = s.value
		}
	}
	for _, s := range settings {
		f := driver.Finding{Promise: "P1, P4", Mend: fmt.Sprintf("alter system set %s = on; select pg_reload_conf();", s.name)}
		switch {
		case s.name == "fsync" && s.value == "off":
			f.What = "fsync is off: a power cut loses commits that were acknowledged, or the whole database"
		case s.name == "full_page_writes" && s.value == "off":
			f.What = "full_page_writes is off: a power cut in the midst of a write leaves pages that cannot be read"
		case s.name == "synchronous_commit" && s.value == "off":
			f.What = "synchronous_commit is off: a crash of the server loses its newest commits, which were acknowledged"
		case s.name == "idle_in_transaction_session_timeout" && s.value == "0":
			f = driver.Finding{Severity: driver.Note, What: s.name + " is 0: a process that stands still within a transaction keeps the keys " +
				"locked that it records, or handles, for as long as it is connected",
				Mend: "alter system set " + s.name + " = '60s'; select pg_reload_conf(); # longer than any ConsumerOptions.Timeout"}
		case s.name == "synchronous_commit" && s.value == "local" && synchronous != "":
			f.What = "synchronous_commit is local although there are synchronous standbys: a failover loses commits that were acknowledged"
		default:
			continue
		}
		if s.whose != "" {
			f.What = "for " + s.whose + " " + f.What
			f.Mend = fmt.Sprintf("alter %s reset %s; # in this database: alter %s in database … reset %s", s.whose, s.name, s.whose, s.name)
			if s.whose == "all roles" {
				f.Mend = fmt.Sprintf("alter database … reset %s;", s.name)
			}
		}
		found = append(found, f)
	}
	if standbys > 0 && synchronous == "" {
		found = append(found, driver.Finding{Severity: driver.Note,
			What: fmt.Sprintf("%d standbys replicate asynchronously: a failover to one loses its newest commits, which were acknowledged", standbys),
			Mend: "set synchronous_standby_names, or run pabal restored after such a failover"})
	}
	return found
}

// partitions of the event table, by the database's clock in UTC.
type partitions struct {
	last  string // the last day that has one, as in its name; "": none
	today bool   // it has one
	now   time.Time
}

// audit: the clients of a source make partitions ahead, so that the last one also tells when the last of them was there.
func (p *partitions) audit(prefix string) []driver.Finding {
	mend := "pabal relay # or any client of the source: it makes them within the hour; at once: select " + prefix + "ahead(14);"
	if !p.today {
		return []driver.Finding{{Promise: "P1", Mend: mend,
			What: "today has no partition: no client of the source has run for a fortnight, so nothing is published again; events go to " +
				"the default partition, from which they are deleted one by one"}}
	}
	least := p.now.AddDate(0, 0, aheadLeast).Format("20060102")
	if strings.Compare(p.last, least) >= 0 {
		return nil
	}
	return []driver.Finding{{Promise: "P1", Mend: mend,
		What: fmt.Sprintf("partitions are missing: the last one is of %s, so no client of the source has run for a week, "+
			"and nothing is published again", p.last)}}
}
