package mutants

import "testing"

func TestMutantsFitTheCode(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i := range all {
		if _, err := all[i].Patch("../.."); err != nil {
			t.Error(err)
		}
		if names[all[i].Name] {
			t.Errorf("two mutants are called %s", all[i].Name)
		}
		names[all[i].Name] = true
	}
}
