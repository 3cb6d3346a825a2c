package mutants

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func everyMutant(t *testing.T) []Mutant {
	t.Helper()
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMutantsFitTheCode(t *testing.T) {
	names := map[string]bool{}
	for _, m := range everyMutant(t) {
		if _, err := m.Patch(root); err != nil {
			t.Error(err)
		}
		if names[m.Name] {
			t.Errorf("two mutants are called %s", m.Name)
		}
		names[m.Name] = true
	}
}

// What no seed finds is no promise of its own, says why, and is found by a small test.
func TestMutantsThatTheSimulationCannotFindHaveATest(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	for _, m := range everyMutant(t) {
		if m.Seed > 0 == (m.Test != "" || m.Why != "") {
			t.Errorf("mutant %s: it has a seed, or a test and a reason", m.Name)
		}
		if m.Seed == 0 && (m.Why == "" || !strings.Contains(tests.String(), "func "+m.Test+"(")) {
			t.Errorf("mutant %s: there is no %q, or no reason", m.Name, m.Test)
		}
	}
}

// Their tests are red with them, and green without.
func TestMutantsThatTheSimulationCannotFindAreFoundByTheirTests(t *testing.T) {
	all := everyMutant(t)
	program, err := BuildTests(t.Context(), root, all)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if passed, said, err := program.Test(t.Context(), -1); err != nil || !passed {
		t.Fatalf("a test is red without its mutant: %v\n%s", err, said)
	}
	for i := range all {
		if all[i].Test == "" {
			continue
		}
		if passed, said, err := program.Test(t.Context(), i); err != nil {
			t.Errorf("%v\n%s", err, said)
		} else if passed {
			t.Errorf("mutant %s survives %s", all[i].Name, all[i].Test)
		}
	}
}

func TestPromisesPageNamesEveryMutantAndItsSeedAndTheMedian(t *testing.T) {
	wrong, err := CheckPage(root, everyMutant(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range wrong {
		t.Error(what)
	}
}

// All are built, which shows that each compiles, and the ten that are found soonest are run.
func TestTheTenCheapestMutantsAreFound(t *testing.T) {
	all := everyMutant(t)
	program, err := Build(t.Context(), root, all)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	var cheapest []int
	for i := range all {
		if all[i].Seed > 0 {
			cheapest = append(cheapest, i)
		}
	}
	slices.SortStableFunc(cheapest, func(a, b int) int { return cmp.Compare(all[a].Seed, all[b].Seed) })
	for _, i := range cheapest[:10] {
		found, err := program.Simulate(t.Context(), i, 1, 24)
		switch {
		case err != nil:
			t.Error(err)
		case found.Seed == 0:
			t.Errorf("mutant %s survives 24 seeds, not %d", all[i].Name, all[i].Seed)
		default:
			t.Logf("%s: seed %d, %v: %s", all[i].Name, found.Seed, found.Took, found.What)
		}
	}
}

func TestSummaryNamesMedianAndHighest(t *testing.T) {
	all := []Mutant{{Seed: 9}, {Seed: 1}, {Test: "TestA"}, {Seed: 2}, {Seed: 3}}
	const want = "Of 5 mutants the simulation finds 4, the median by seed 2, the last by seed 9; 1 are found by their tests."
	if got := Summary(all); got != want {
		t.Error(got)
	}
}

func TestMutantsOfDatabasesFitTheCode(t *testing.T) {
	all, err := Databases()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if _, err := all[i].Patch(root); err != nil {
			t.Error(err)
		}
		if all[i].Why == "" && (i == 0 || all[i-1].Name != all[i].Name) {
			t.Errorf("mutant %s does not say what its rule is", all[i].Name)
		}
	}
	if err := CheckDatabases(root, all); err != nil {
		t.Error(err)
	}
}
