package sim

import (
	"fmt"
	"io"
	"time"

	"github.com/pabal-go/pabal/internal/world"
)

// Every step is mixed into the hash of the run; what happened is written down only when somebody wants to read it.

type trace struct{ w io.Writer }

// TraceTo has what happens written to w, a line each.
func (s *Sim) TraceTo(w io.Writer) { s.trace = &trace{w} }

// Hash identifies what has happened so far.
func (s *Sim) Hash() uint64 { return s.hash }

// Steps is how many steps tasks have taken.
func (s *Sim) Steps() int { return s.steps }

// Elapsed is the virtual time that has passed.
func (s *Sim) Elapsed() time.Duration { return time.Duration(s.now) }

// Note writes a line of the caller's own into the trace.
func (s *Sim) Note(who, what string) { s.note(who, what, nil) }

// note mixes an occurrence into the hash; detail is only asked for when the trace is read.
func (s *Sim) note(who, what string, detail func() string) {
	s.mix(who)
	s.mix(what)
	if s.trace == nil {
		return
	}
	text := what
	if detail != nil {
		text += " " + detail()
	}
	_, _ = fmt.Fprintf(s.trace.w, "%10.3f s  %-16s %s\n", time.Duration(s.now).Seconds(), who, text)
}

// FNV-1a.
const (
	hashBasis = 14695981039346656037
	hashPrime = 1099511628211
)

func mixed(hash uint64, text string) uint64 {
	for i := range len(text) {
		hash = (hash ^ uint64(text[i])) * hashPrime
	}
	return hash
}

func (s *Sim) mix(text string) { s.hash = mixed(s.hash, text) }

func (s *Sim) mixInt(n uint64) { s.hash = (s.hash ^ n) * hashPrime }

var _ world.World = (*simWorld)(nil)
