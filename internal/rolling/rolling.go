// Package rolling reads the migrations of Pabal's tables as data, and refuses what a process of the release before could not live
// with: while services are replaced one by one, and after a release that is taken back, it works on the newer tables.
// docs/operations.md, "Rolling deploys", has the rules in words.
package rolling

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Because begins a comment before a statement that would be refused; the rest of the line says why old processes live with it.
const Because = "-- old processes live with this:"

// Check reads the files 001.sql, 002.sql, … of a database, of which the first may do anything, and answers what is wrong with the
// others and with their number.
func Check(schemas fs.FS, versions int) (wrong []string, err error) {
	for version := 1; version <= versions; version++ {
		file := fmt.Sprintf("%03d.sql", version)
		text, err := fs.ReadFile(schemas, file)
		if err != nil {
			return nil, err
		}
		if version == 1 {
			continue
		}
		for _, complaint := range Refused(string(text), version) {
			wrong = append(wrong, file+": "+complaint)
		}
	}
	files, err := fs.Glob(schemas, "*.sql")
	if len(files) != versions {
		wrong = append(wrong, fmt.Sprintf("there are %d files, the program speaks version %d", len(files), versions))
	}
	return wrong, err
}

// Refused answers what an old process could not live with in the migration to a version.
func Refused(script string, version int) (wrong []string) {
	statements := Statements(script)
	for _, s := range statements {
		if why := refusal(s.Text); why != "" && s.Because == "" {
			wrong = append(wrong, fmt.Sprintf("%.80q: %s", squeezed(s.Text), why))
		}
	}
	last := fmt.Sprintf("update {p}meta set version = %d where id = 1", version)
	if n := len(statements); n == 0 || squeezed(statements[n-1].Text) != last {
		wrong = append(wrong, "the last statement is not: "+last)
	}
	return wrong
}

const name = "(?:`[^`]+`|\"[^\"]+\"|[a-z0-9_{}]+)"

var (
	versionUpdate = regexp.MustCompile(`^update \{p\}meta set version = [0-9]+ where id = 1$`)
	addsColumn    = regexp.MustCompile(`^alter table (?:if exists )?` + name + ` add (?:column )?(?:if not exists )?` + name + ` (.*)$`)
	createsIndex  = regexp.MustCompile(`^create index (?:if not exists )?` + name + ` on (` + name + `)`)
	constraint    = regexp.MustCompile(`\b(unique|primary key|references|check|generated|collate)\b`)
	addsNoColumn  = regexp.MustCompile(`^alter table (?:if exists )?` + name + ` add (?:constraint|primary|unique|foreign|check|index|key|fulltext)\b`)
	moreActions   = regexp.MustCompile(`, ?(add|drop|alter|modify|change|rename)\b`)
	hot           = []string{"{p}event", "{p}pending", "{p}inbox", "{p}cursor", "{p}counter"}
)

// refusal says why an old process could not live with a statement; "" if it could. What is not known is refused.
func refusal(statement string) string {
	s := squeezed(statement)
	switch {
	case versionUpdate.MatchString(s), begins(s, "select ", "create table ", "create or replace view ", "create view ", "create or replace function "):
		return ""
	case begins(s, "create index "):
		if on := createsIndex.FindStringSubmatch(s); on == nil || slices.Contains(hot, on[1]) {
			return "nobody records or consumes while the index is built"
		}
		return ""
	case begins(s, "create unique index "), addsNoColumn.MatchString(s):
		return "what an old process writes may break the new rule"
	case begins(s, "alter table ") && addsColumn.MatchString(s):
		return refusedColumn(addsColumn.FindStringSubmatch(s)[1])
	case begins(s, "alter table ", "drop ", "rename ", "truncate "):
		return "an old process uses what is changed or gone"
	case begins(s, "create trigger ", "create rule "):
		return "it changes what an old process writes"
	case begins(s, "insert ", "update ", "delete ", "replace ", "merge "):
		return "it changes rows under an old process"
	default:
		return "nobody has said that an old process lives with such a statement"
	}
}

// refusedColumn looks at what follows the name of a new column.
func refusedColumn(definition string) string {
	switch {
	case moreActions.MatchString(definition):
		return "one change in a statement"
	case strings.Contains(definition, "not null") && !strings.Contains(definition, " default "):
		return "an old process inserts rows without the column: it is null, or has a default"
	case constraint.MatchString(strings.ReplaceAll(definition, `collate "c"`, "")):
		return "what an old process writes may break the new rule"
	}
	return ""
}

func begins(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(s, w) })
}

// squeezed is a statement in lower case with single spaces.
func squeezed(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }

// Statement is one of a script.
type Statement struct {
	Text    string // without comments before and in it
	Because string // why old processes live with it, as a comment before it says
}

// Statements cuts a script as the databases' own clients do: at semicolons outside of quotes and $$, or at what a line "delimiter x"
// says.
func Statements(script string) (all []Statement) {
	var s Statement
	delimiter := ";"
	for len(script) > 0 {
		line, rest, _ := strings.Cut(script, "\n")
		trimmed := strings.TrimSpace(line)
		if strings.TrimSpace(s.Text) == "" {
			if d, is := strings.CutPrefix(trimmed, "delimiter "); is {
				delimiter, script = d, rest
				continue
			}
			if why, is := strings.CutPrefix(trimmed, Because); is {
				s.Because, script = strings.TrimSpace(why), rest
				continue
			}
		}
		switch quote := script[0]; {
		case strings.HasPrefix(script, "--"):
			script = rest
			s.Text += "\n"
		case strings.HasPrefix(script, delimiter):
			s.Text = strings.TrimSpace(s.Text)
			all, s, script = append(all, s), Statement{}, script[len(delimiter):]
		case strings.HasPrefix(script, "$$"):
			n := quoted(script, "$$")
			s.Text, script = s.Text+script[:n], script[n:]
		case quote == '\'' || quote == '"' || quote == '`':
			n := quoted(script, string(quote))
			s.Text, script = s.Text+script[:n], script[n:]
		default:
			s.Text, script = s.Text+script[:1], script[1:]
		}
	}
	if s.Text = strings.TrimSpace(s.Text); s.Text != "" {
		all = append(all, s)
	}
	return all
}

// quoted is the length of what stands in quotes at the start of a text, with them.
func quoted(text, quote string) int {
	if end := strings.Index(text[len(quote):], quote); end >= 0 {
		return end + 2*len(quote)
	}
	return len(text)
}
