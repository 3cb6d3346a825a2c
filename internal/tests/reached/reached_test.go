package main

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/cover"
)

const source = `package pabal

func (c *Client[X]) one(n int) error {
	if n < 0 {
		// too low
		return errLow
	}
	if n < 0 {
		return errLow
	}
	switch {
	case n > 9:
		n = 9
	}
	return nil
}

func two() { println(2) }
`

// profile is what the go command writes of the source: of each block whether it was reached.
func profile(first, low, lowAgain, high, last, two int) []cover.ProfileBlock {
	return []cover.ProfileBlock{
		{StartLine: 3, StartCol: 38, EndLine: 4, EndCol: 11, NumStmt: 1, Count: first},
		{StartLine: 18, StartCol: 12, EndLine: 18, EndCol: 26, NumStmt: 1, Count: two},
		{StartLine: 4, StartCol: 11, EndLine: 7, EndCol: 3, NumStmt: 1, Count: low},
		{StartLine: 8, StartCol: 11, EndLine: 10, EndCol: 3, NumStmt: 1, Count: lowAgain},
		{StartLine: 12, StartCol: 13, EndLine: 13, EndCol: 8, NumStmt: 1, Count: high},
		{StartLine: 15, StartCol: 2, EndLine: 15, EndCol: 12, NumStmt: 1, Count: last},
	}
}

func named(t *testing.T, counts ...int) []block {
	t.Helper()
	found, err := blocksOf("a.go", []byte(source), profile(counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestBlocksAreNamedByHowTheyBegin(t *testing.T) {
	var names []string
	for _, b := range named(t, 1, 0, 0, 1, 1, 1) {
		names = append(names, b.name)
	}
	want := []string{
		"a.go Client.one: func (c *Client[X]) one(n int) error { if n < 0 {",
		"a.go Client.one: if n < 0 { return errLow",
		"a.go Client.one: if n < 0 { return errLow #2",
		"a.go Client.one: case n > 9: n = 9",
		"a.go Client.one: return nil",
		"a.go two: func two() { println(2) }",
	}
	if !slices.Equal(names, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
}

func TestListIsHeldAgainstWhatIsReached(t *testing.T) {
	const low, again = "a.go Client.one: if n < 0 { return errLow", "a.go Client.one: if n < 0 { return errLow #2"
	for name, x := range map[string]struct {
		counts         []int
		list           string
		unlisted, over []string
	}{
		"all is reached":              {[]int{1, 1, 1, 1, 1, 1}, "", nil, nil},
		"listed":                      {[]int{1, 0, 1, 1, 1, 1}, "= why\n" + low, nil, nil},
		"not listed":                  {[]int{1, 0, 1, 1, 1, 1}, "", []string{low}, nil},
		"another one is listed":       {[]int{1, 0, 1, 1, 1, 1}, "= why\n" + again, []string{low}, []string{again}},
		"reached by now":              {[]int{1, 1, 1, 1, 1, 1}, "= why\n" + low, nil, []string{low}},
		"gone":                        {[]int{1, 1, 1, 1, 1, 1}, "= why\na.go three", nil, []string{"a.go three"}},
		"rarely, and not this time":   {[]int{1, 0, 1, 1, 1, 1}, "= why\n~ " + low, nil, nil},
		"rarely, and this time":       {[]int{1, 1, 1, 1, 1, 1}, "= why\n~ " + low, nil, nil},
		"a whole function":            {[]int{1, 1, 1, 1, 1, 0}, "= why\na.go two", nil, nil},
		"a whole one, not listed":     {[]int{1, 1, 1, 1, 1, 0}, "", []string{"a.go two"}, nil},
		"a whole one, reached by now": {[]int{1, 0, 1, 1, 1, 1}, "= why\na.go Client.one", []string{low}, []string{"a.go Client.one"}},
		"rarely, a whole one":         {[]int{1, 0, 1, 1, 1, 1}, "= why\n~ a.go Client.one", nil, nil},
	} {
		excused, err := parse(x.list)
		if err != nil {
			t.Fatal(err)
		}
		c := compare(named(t, x.counts...), excused)
		var unlisted []string
		for _, b := range c.unlisted {
			unlisted = append(unlisted, b.name)
		}
		if !slices.Equal(unlisted, x.unlisted) || !slices.Equal(c.over, x.over) || (c.err() == nil) != (len(x.unlisted)+len(x.over) == 0) {
			t.Errorf("%s: unlisted %q, over %q, %v", name, unlisted, c.over, c.err())
		}
	}
}

func TestEveryLineOfTheListHasAReason(t *testing.T) {
	for _, wrong := range []string{"a.go two", "= why\na.go two\n= else\n~ a.go two", "=\na.go two"} {
		if _, err := parse(wrong); err == nil {
			t.Errorf("taken: %q", wrong)
		}
	}
}

func TestReasonMayTakeSeveralLines(t *testing.T) {
	excused, err := parse("= why\n= and wherefore\na.go one\n\n= else\n~ a.go two")
	if err != nil || excused["a.go one"] != (excuse{"why and wherefore", false}) || excused["a.go two"] != (excuse{"else", true}) {
		t.Errorf("%v: %v", excused, err)
	}
}

func TestDropTakesOutWhatIsReached(t *testing.T) {
	const text = "# comment\n= why\na.go one\n~ a.go two\na.go three\n"
	if got, want := drop(text, []string{"a.go two", "a.go three"}), "# comment\n= why\na.go one\n"; got != want {
		t.Errorf("%q", got)
	}
}
