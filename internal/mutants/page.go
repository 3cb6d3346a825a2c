package mutants

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Page is where the promises are, from the root of the module, each with its mutant.
const Page = "docs/promises.md"

var (
	tableRow = regexp.MustCompile("(?m)^(\\| .* \\| `([a-z0-9-]+)` \\| )([^|]*)( \\|)$")
	fileOf   = regexp.MustCompile("`([\\w/]+\\.go)`")
)

// found is what the page says of how a mutant is found.
func (m *Mutant) found() string {
	if m.Seed == 0 {
		return "by its test"
	}
	return fmt.Sprint(m.Seed)
}

var summaryLine = regexp.MustCompile(`(?m)^Of \d+ mutants .*$`)

// Summary says how many seeds it takes to find the mutants.
func Summary(all []Mutant) string {
	var seeds []int
	for i := range all {
		if all[i].Seed > 0 {
			seeds = append(seeds, all[i].Seed)
		}
	}
	if len(seeds) == 0 {
		return fmt.Sprintf("Of %d mutants the simulation finds none.", len(all))
	}
	slices.Sort(seeds)
	return fmt.Sprintf("Of %d mutants the simulation finds %d, the median by seed %d, the last by seed %d; %d are found by their tests.",
		len(all), len(seeds), seeds[(len(seeds)-1)/2], seeds[len(seeds)-1], len(all)-len(seeds))
}

// CheckPage compares the page's tables with the mutants: each is there once, with its file and the seed that finds it. What the
// page says of all of them is what they come to.
func CheckPage(root string, all []Mutant) (wrong []string, err error) {
	page, err := os.ReadFile(filepath.Join(root, Page))
	if err != nil {
		return nil, err
	}
	if said := summaryLine.FindString(string(page)); said != Summary(all) {
		wrong = append(wrong, fmt.Sprintf("the page says %q, and it should %q", said, Summary(all)))
	}
	rows := map[string]int{}
	byName := map[string]*Mutant{}
	for i := range all {
		byName[all[i].Name] = &all[i]
	}
	for _, row := range tableRow.FindAllStringSubmatch(string(page), -1) {
		m := byName[row[2]]
		if rows[row[2]]++; m == nil {
			wrong = append(wrong, fmt.Sprintf("there is no mutant %s", row[2]))
			continue
		}
		if file := fileOf.FindStringSubmatch(row[1]); file == nil || file[1] != m.File {
			wrong = append(wrong, fmt.Sprintf("mutant %s is in %s: %s", m.Name, m.File, row[0]))
		}
		if row[3] != m.found() {
			wrong = append(wrong, fmt.Sprintf("mutant %s is found %s, the page says %s", m.Name, m.found(), row[3]))
		}
		if m.Test != "" && !strings.Contains(row[1], strings.TrimPrefix(m.Test, "Test")) {
			wrong = append(wrong, fmt.Sprintf("mutant %s is found by %s, which the page does not name", m.Name, m.Test))
		}
	}
	for i := range all {
		if n := rows[all[i].Name]; n != 1 {
			wrong = append(wrong, fmt.Sprintf("mutant %s is %d times in %s", all[i].Name, n, Page))
		}
	}
	return wrong, nil
}

// Note writes down, beside the mutants and in the page, the seeds that have found some of them.
func Note(root string, all []Mutant, seeds map[string]int) error {
	if err := rewrite(filepath.Join(root, "internal/mutants/mutants.txt"), regexp.MustCompile(`(?m)^(= (\S+) \S+ )(\d+)()$`), seeds); err != nil {
		return err
	}
	if err := rewrite(filepath.Join(root, Page), tableRow, seeds); err != nil {
		return err
	}
	return noteSummary(root, all, seeds)
}

// noteSummary writes into the page how many seeds it takes to find the mutants, with those that have found some of them now.
func noteSummary(root string, all []Mutant, seeds map[string]int) error {
	all = slices.Clone(all)
	for i := range all {
		if seed := seeds[all[i].Name]; seed > 0 && all[i].Seed > 0 {
			all[i].Seed = seed
		}
	}
	file := filepath.Join(root, Page)
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, summaryLine.ReplaceAll(page, []byte(Summary(all))), 0o644) //nolint:gosec // as it was
}

// rewrite puts seeds in the place of what the third group of a pattern matches.
func rewrite(file string, pattern *regexp.Regexp, seeds map[string]int) error {
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	after := pattern.ReplaceAllStringFunc(string(before), func(row string) string {
		m := pattern.FindStringSubmatch(row)
		if seed := seeds[m[2]]; seed > 0 {
			return m[1] + fmt.Sprint(seed) + m[4]
		}
		return row
	})
	return os.WriteFile(file, []byte(after), 0o644) //nolint:gosec // as it was
}
