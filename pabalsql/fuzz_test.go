package pabalsql

import (
	"strings"
	"testing"
)

// FuzzTablePrefix: what goes into statements as it is can end no name, and fits where the longest name does (64 characters in
// MySQL).
func FuzzTablePrefix(f *testing.F) {
	for _, prefix := range []string{"", "pabal_", "a", "A", "a`b", "a;b", "ä_", strings.Repeat("a", 32), "a\n"} {
		f.Add(prefix)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		got, err := (&Options{TablePrefix: prefix}).prefix()
		if err != nil {
			return
		}
		if got == "" || len(got) > 31 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || got[0] < 'a' {
			t.Fatalf("%q is taken", got)
		}
	})
}

// FuzzMySQLAddress: no address makes it panic, and no error repeats the password of one.
func FuzzMySQLAddress(f *testing.F) {
	for _, address := range []string{
		"mysql://u:secret@h:3306/db?tls=true", "u:secret@tcp(h:3306)/db?parseTime=1", "mariadb://u:secret@[::1]/db", "mysql:/%:secret@0",
		"mysql:/u:secret@h/db", "u:secret@h", "u:secret@tcp(h:1)/db?parseTime=secretly", "mysql://%zz", "/", "",
	} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		db, err := OpenMySQL(address, nil)
		if err == nil {
			_ = db.Close() // nothing was sent
			return
		}
		if before, _, found := strings.Cut(address, ":secret@"); found && !strings.Contains(before, "secret") && strings.Count(address, "secret") == 1 &&
			strings.Contains(err.Error(), "secret") {
			t.Fatalf("the error of %q is %q", address, err)
		}
	})
}
