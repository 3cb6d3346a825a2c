package pabalpgx

import (
	"strings"
	"testing"
)

// FuzzTablePrefix: what goes into statements as it is can end no name, and fits where the longest name does (63 bytes in PostgreSQL).
func FuzzTablePrefix(f *testing.F) {
	for _, prefix := range []string{"", "pabal_", "a", "A", `a"b`, "a;b", "ä_", strings.Repeat("a", 31), strings.Repeat("a", 32), "a\n", "{p}", "a$b", "1a"} {
		f.Add(prefix)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		o := &Options{TablePrefix: prefix}
		got, err := o.prefix()
		if err != nil {
			return
		}
		if got == "" || len(got) > 31 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || got[0] < 'a' {
			t.Fatalf("%q is taken", got)
		}
		if script, err := Script(o); err != nil || strings.Contains(script, "{p}") || !strings.Contains(script, got+"event") {
			t.Fatalf("the script with %q is not one: %v", got, err)
		}
	})
}
