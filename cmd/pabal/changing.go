package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// plainEvery is how often a line is written where no terminal is.
const plainEvery = 5 * time.Second

// changingLine says how far something is: on a terminal in one line that changes, elsewhere now and then in a further one.
type changingLine struct {
	w        io.Writer
	terminal bool
	text     string    // the last one
	at       time.Time // when that was written
}

func changing(a *app) changingLine {
	info, err := os.Stderr.Stat()
	return changingLine{w: a.stderr, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (l *changingLine) put(now time.Time, text string) {
	switch {
	case l.terminal:
		_, _ = fmt.Fprintf(l.w, "\r%s\x1b[K", text)
	case text == l.text || now.Sub(l.at) < plainEvery:
		return
	default:
		_, _ = fmt.Fprintln(l.w, text)
	}
	l.text, l.at = text, now
}

// end leaves the line.
func (l *changingLine) end() {
	if l.terminal && l.text != "" {
		_, _ = fmt.Fprintln(l.w)
	}
}
