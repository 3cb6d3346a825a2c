package rolling_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pabal-go/pabal/internal/rolling"
)

const ends = "\nupdate {p}meta set version = 2 where id = 1;\n"

func TestWhatAnOldProcessLivesWith(t *testing.T) {
	for _, allowed := range []string{
		"create table {p}note (id blob not null primary key, text text not null);",
		"create table if not exists {p}note (id binary(16) not null primary key) engine = innodb;",
		"alter table {p}event add column color text;",
		"alter table {p}event add column if not exists color text;",
		"alter table {p}pending add column priority integer not null default 0;",
		"ALTER TABLE {p}topic\n  ADD COLUMN `shade` varbinary(64) NOT NULL DEFAULT '';",
		`alter table {p}event add column color text collate "C" not null default '';`,
		"create index {p}topic_shade on {p}topic (shade);",
		"create or replace view {p}event_record as select 1 as one;",
		"create or replace function {p}ahead(days integer) returns integer language plpgsql as $$ begin delete from {p}event; end $$;",
		"select {p}ahead(14);",
		rolling.Because + " nobody reads it since version 1\nalter table {p}event drop column color;",
		"-- a comment; with a semicolon\nselect 1; -- another; one\n",
	} {
		if wrong := rolling.Refused(allowed+ends, 2); len(wrong) > 0 {
			t.Errorf("%s\nis refused: %s", allowed, wrong)
		}
	}
}

func TestWhatAnOldProcessCouldNotLiveWith(t *testing.T) {
	for refused, why := range map[string]string{
		"drop table {p}redelivery;":                                         "changed or gone",
		"drop view {p}event_record;":                                        "changed or gone",
		"drop index {p}pending_due;":                                        "changed or gone",
		"alter table {p}event drop column bare;":                            "changed or gone",
		"alter table {p}event rename column bare to naked;":                 "changed or gone",
		"alter table {p}event rename to {p}events;":                         "changed or gone",
		"alter table {p}event alter column headers set not null;":           "changed or gone",
		"alter table {p}event alter column topic type varchar(10);":         "changed or gone",
		"alter table {p}event modify topic varbinary(10) not null;":         "changed or gone",
		"rename table {p}event to {p}events;":                               "changed or gone",
		"truncate table {p}consumer;":                                       "changed or gone",
		"alter table {p}event add column color text not null;":              "without the column",
		"alter table {p}event add `default` text not null;":                 "without the column",
		"alter table {p}event add column color text unique;":                "break the new rule",
		"alter table {p}event add column n integer check (n > 0);":          "break the new rule",
		"alter table {p}event add column color text, drop column bare;":     "one change",
		"alter table {p}event add constraint c check (position > 0);":       "break the new rule",
		"alter table {p}event add unique (topic, key);":                     "break the new rule",
		"create unique index {p}once on {p}event (topic, key);":             "break the new rule",
		"create index {p}event_type on {p}event (type);":                    "nobody records",
		"create trigger x before insert on {p}event for each row set @a=1;": "changes what an old process writes",
		"delete from {p}cursor;":                                            "rows under an old process",
		"update {p}meta set version = 2, source = '' where id = 1;":         "rows under an old process",
		"insert into {p}topic (name) values ('a');":                         "rows under an old process",
		"vacuum;":                          "nobody has said",
		"select 1; drop table {p}event;":   "changed or gone",
		"select ';'; drop table {p}event;": "changed or gone",
		"delimiter //\ndrop procedure {p}record//\ndelimiter ;": "changed or gone",
		rolling.Because + "\ndrop table {p}event;":              "changed or gone", // for no reason
	} {
		if wrong := rolling.Refused(refused+ends, 2); len(wrong) != 1 || !strings.Contains(wrong[0], why) {
			t.Errorf("%s\nis answered with %q, not with %q", refused, wrong, why)
		}
	}
	for _, end := range []string{"", "update {p}meta set version = 3 where id = 1;", "update {p}meta set version = 2 where id = 1; select 1;"} {
		if wrong := rolling.Refused("select 1;"+end, 2); len(wrong) != 1 || !strings.Contains(wrong[0], "the last statement") {
			t.Errorf("a script that ends with %q is answered with %q", end, wrong)
		}
	}
}

// The first versions of the tables are cut into as many statements as they have.
func TestStatementsOfTheSchemasThatThereAre(t *testing.T) {
	for file, want := range map[string]int{
		"../../pabalsql/schema/sqlite/001.sql": 19, "../../pabalsql/schema/mysql/001.sql": 13, "../../pabalpgx/schema/001.sql": 24,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		statements := rolling.Statements(string(text))
		if len(statements) != want {
			t.Errorf("%s has %d statements, not %d", file, len(statements), want)
		}
		for _, s := range statements {
			if first, _, _ := strings.Cut(s.Text, " "); !strings.Contains("create insert select drop", first) {
				t.Errorf("%s: a statement begins with %.40q", file, s.Text)
			}
		}
	}
}

func TestCheckNamesTheFile(t *testing.T) {
	files := fstest.MapFS{
		"001.sql": {Data: []byte("drop table {p}event;")},
		"002.sql": {Data: []byte("select 1;" + ends)},
		"003.sql": {Data: []byte("drop table {p}event; update {p}meta set version = 3 where id = 1;")},
	}
	wrong, err := rolling.Check(files, 3)
	if err != nil || len(wrong) != 1 || !strings.HasPrefix(wrong[0], "003.sql: ") {
		t.Errorf("answered %q, %v", wrong, err)
	}
	if wrong, err = rolling.Check(files, 2); err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "there are 3 files") {
		t.Errorf("answered %q, %v", wrong, err)
	}
	if _, err = rolling.Check(files, 4); err == nil {
		t.Error("a missing file is not noticed")
	}
}
