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
