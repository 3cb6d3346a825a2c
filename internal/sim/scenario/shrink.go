package scenario

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// A seed that fails says little: thousands of steps, hundreds of faults. Shrinking looks for the smallest case in which the
// same promise is broken: every setting towards its least, then the faults one by one.

// leasts are the settings that do not go down to zero.
var leasts = map[string]int64{"Orders": 1, "Keys": 1, "Weather": int64(20 * time.Second)}

// kept are the settings that do not say how large a case is.
var kept = []string{"Settle", "RepublishAfter", "Faults.LatencyMost"}

// otherSeeds is how many seeds besides its own a smaller case is tried with: another one may go there more directly. They
// differ by a multiple of all small numbers, by which a seed decides what kind of case it is.
const (
	otherSeeds   = 5
	otherSeedsBy = 3840 * 7
)

// shrinking is a search for a smaller case.
type shrinking struct {
	c       Config
	result  Result // of c
	promise string
	run     func(Config) Result
	more    func() bool
}

// Shrink returns a smaller case that breaks the same promise as c, and its result; c itself if none is found. run carries out a
// case; more is asked before each run whether there is time for it. What it finds depends on nothing else.
func Shrink(c Config, run func(Config) Result, more func() bool) (Config, Result) {
	s := &shrinking{c: c, result: run(c), run: run, more: more}
	if s.result.Failure == nil {
		return c, s.result
	}
	s.promise = promise(s.result.Failure)
	s.groups()
	for s.round() {
	}
	s.tidy()
	return s.c, s.result
}

// promise is what two failures have in common if they are of the same kind: the first words that name no event, process or
// number.
func promise(failure error) string {
	line, _, _ := strings.Cut(failure.Error(), "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return ""
	}
	rest := slices.DeleteFunc(words[1:], func(word string) bool { return strings.ContainsAny(word, "0123456789") })
	return strings.Join(append(words[:1:1], rest[:min(len(rest), 7)]...), " ")
}

// breaks reports whether a case breaks the same promise; then the search goes on from there.
func (s *shrinking) breaks(c Config) bool {
	if !c.sound() {
		return false
	}
	for n := range 1 + otherSeeds {
		if n > 0 && c.Faults.Only != nil || !s.more() { // which are meant by Only is another matter with another seed
			return false
		}
		if r := s.run(c); r.Failure != nil && promise(r.Failure) == s.promise {
			s.c, s.result = c, r
			return true
		}
		c.Seed += otherSeedsBy
	}
	return false
}

// groups tries what would save most.
func (s *shrinking) groups() {
	for _, prefix := range []string{"Faults.", "Broker.", "Database."} {
		s.change(func(all []setting) {
			for _, x := range all {
				if strings.HasPrefix(x.name, prefix) && x.value.Kind() != reflect.Slice && !slices.Contains(kept, x.name) {
					least(x)
				}
			}
		})
	}
}

// change tries the case with some settings changed.
func (s *shrinking) change(how func([]setting)) bool {
	c := s.c
	how(settings(&c))
	return s.breaks(c)
}

// round tries to make every setting smaller; false if none became so.
func (s *shrinking) round() bool {
	shrunk := false
	for i, x := range settings(&s.c) {
		switch {
		case slices.Contains(kept, x.name):
		case x.value.Kind() == reflect.Slice:
			shrunk = s.list(i) || shrunk
		default:
			shrunk = s.number(i) || shrunk
		}
	}
	if !shrunk && s.c.Faults.Only == nil && s.result.Faults > 0 {
		s.c.Faults.Only = make([]int, s.result.Faults)
		for n := range s.c.Faults.Only {
			s.c.Faults.Only[n] = n
		}
		return true
	}
	return shrunk
}

// number makes the i-th setting its least, or lower by a half of what is above it, a quarter and so on.
func (s *shrinking) number(i int) bool {
	x := settings(&s.c)[i]
	if isLeast(x) {
		return false
	}
	if s.change(func(all []setting) { least(all[i]) }) {
		return true
	}
	if x.value.Kind() == reflect.Bool || strings.HasSuffix(x.name, "Every") { // less often is a larger number
		return false
	}
	finest := int64(1)
	if _, ok := x.value.Interface().(time.Duration); ok {
		finest = int64(5 * time.Second)
	}
	shrunk := false
	for by := (x.value.Int() - leasts[x.name]) / 2 / finest; by > 0; by /= 2 {
		for settings(&s.c)[i].value.Int()-by*finest >= leasts[x.name] && s.change(func(all []setting) { lower(all[i], by*finest) }) {
			shrunk = true
		}
	}
	return shrunk
}

func lower(x setting, by int64) { x.value.SetInt(x.value.Int() - by) }

func least(x setting) {
	if x.value.Kind() == reflect.Bool {
		x.value.SetBool(false)
		return
	}
	x.value.SetInt(min(x.value.Int(), leasts[x.name]))
}

func isLeast(x setting) bool {
	return x.value.Kind() == reflect.Bool && !x.value.Bool() || x.value.Kind() != reflect.Bool && x.value.Int() <= leasts[x.name]
}

// list leaves elements out of the i-th setting: halves, then quarters, at last single ones.
func (s *shrinking) list(i int) bool {
	shrunk := false
	n := settings(&s.c)[i].value.Len()
	for size := n; size > 0; size /= 2 {
		for from := 0; from < settings(&s.c)[i].value.Len(); {
			if s.change(func(all []setting) { leaveOut(all[i].value, from, size) }) {
				shrunk = true
			} else {
				from += size
			}
		}
	}
	return shrunk
}

// tidy puts back what makes no difference, so that what is left says what matters.
func (s *shrinking) tidy() {
	base := Default(s.c.Seed)
	for i, usual := range settings(&base) {
		c := s.c
		x := settings(&c)[i]
		if x.text() == usual.text() || !s.more() {
			continue
		}
		x.value.Set(usual.value)
		if !c.sound() {
			continue
		}
		if r := s.run(c); r.Failure != nil && r.Hash == s.result.Hash {
			s.c, s.result = c, r
		}
	}
}

// leaveOut takes size elements out of a list, which others may hold.
func leaveOut(list reflect.Value, from, size int) {
	rest := reflect.MakeSlice(list.Type(), 0, list.Len())
	rest = reflect.AppendSlice(rest, list.Slice(0, from))
	list.Set(reflect.AppendSlice(rest, list.Slice(min(from+size, list.Len()), list.Len())))
}
