package pabalsql

import "regexp"

// SchemaVersion is the version that the package speaks.
const SchemaVersion = schemaVersion

// Split is for tests of what an interrupted migration leaves.
var Split = split

var readByMariaDBOnly = regexp.MustCompile(`(?s)/\*M!.*?\*/`)

// AsMySQL leaves out of a store's statements what only MariaDB reads, as MySQL does.
func AsMySQL(s *Store) *Store {
	d := *s.dialect
	d.statements = map[string]string{}
	for name, text := range s.dialect.statements {
		d.statements[name] = readByMariaDBOnly.ReplaceAllString(text, "")
	}
	s.dialect = &d
	return s
}
