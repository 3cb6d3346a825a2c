package main

import (
	"fmt"
	"slices"
	"strings"
)

// excuse is why a block may be unreached.
type excuse struct {
	reason string
	rarely bool // it is reached now and then: by a few seeds
}

const listFile = "internal/tests/reached/unreached.txt"

// parse reads the list: reasons, each in lines that begin with "=", and under each the blocks that it excuses. A "~" before a
// block says that it is reached by few seeds, and so by chance. Lines that begin with "#" are comments.
func parse(text string) (map[string]excuse, error) {
	excused := map[string]excuse{}
	reason, begins := "", true // the next "=" begins a reason
	for n, line := range strings.Split(text, "\n") {
		name, rarely := strings.CutPrefix(line, "~ ")
		switch _, twice := excused[name]; {
		case line == "" || line[0] == '#':
		case line[0] == '=' && begins:
			reason, begins = strings.TrimSpace(line[1:]), false
		case line[0] == '=':
			reason += " " + strings.TrimSpace(line[1:])
		case reason == "":
			return nil, fmt.Errorf("unreached.txt:%d: no reason is given for %s", n+1, name)
		case twice:
			return nil, fmt.Errorf("unreached.txt:%d: twice: %s", n+1, name)
		default:
			excused[name], begins = excuse{reason, rarely}, true
		}
	}
	return excused, nil
}

// comparison is how what the simulation reaches differs from the list.
type comparison struct {
	reached, all int
	unlisted     []block  // not reached
	over         []string // listed: reached by now, or no longer there
}

// compare holds what the simulation reaches against the list, where a function's name alone stands for all its blocks.
func compare(found []block, excused map[string]excuse) comparison {
	c := comparison{all: len(found)}
	known := map[string]bool{} // listed, and rightly
	for _, b := range found {
		if b.reached {
			c.reached++
		}
	}
	for _, b := range whole(found) {
		e, listed := excused[b.name]
		switch {
		case listed && (e.rarely || !b.reached):
			known[b.name] = true
		case !b.reached && !listed:
			c.unlisted = append(c.unlisted, b)
		}
		if excused[b.function].rarely { // and this time some of it was reached
			known[b.function] = true
		}
	}
	c.unlisted = slices.DeleteFunc(c.unlisted, func(b block) bool { return excused[b.function].rarely })
	for name := range excused {
		if !known[name] {
			c.over = append(c.over, name)
		}
	}
	slices.Sort(c.over)
	return c
}

// err says what is to be done; nil: nothing.
func (c *comparison) err() error {
	var text strings.Builder
	for _, b := range c.unlisted {
		fmt.Fprintf(&text, "not reached, and no reason is given (%s):\n  %s\n", b.where, b.name)
	}
	for _, name := range c.over {
		fmt.Fprintf(&text, "listed, and reached by now, or no longer there:\n  %s\n", name)
	}
	if text.Len() == 0 {
		return nil
	}
	return fmt.Errorf("%sReach it, delete it, or give the reason in %s; -drop takes out what is reached by now", text.String(), listFile)
}

// drop returns the list without the lines of some blocks.
func drop(text string, over []string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if name, _ := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "~ "); !slices.Contains(over, name) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
