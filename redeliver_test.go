package pabal

import (
	"testing"
	"time"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/world"
)

func TestRedeliveredEventsAreSpreadEvenly(t *testing.T) {
	at := world.Mono(0)
	due := newRation(250, driver.Limits{}, at)
	expect := func(what string, want int) {
		t.Helper()
		n, wait := due.now(at)
		if n != want || (n == 0) != (wait > 0) {
			t.Errorf("%s: %d and %v, expected %d", what, n, wait, want)
		}
		due.sent += n
	}
	expect("the first", 1)
	expect("the second, at once", 0)
	at = at.Add(4 * time.Millisecond)
	expect("the second, in time", 1)
	at = at.Add(40 * time.Millisecond)
	expect("after a slow call", 10)
	at = at.Add(time.Minute)
	expect("after a pause", 25)
	expect("right after", 0)
	at = at.Add(4 * time.Millisecond)
	expect("then", 1)
	for range 1000 {
		_, wait := due.now(at)
		at = at.Add(wait)
		expect("in a row", 1)
	}
	if most := 4100 * time.Millisecond; at.Sub(due.from) > most {
		t.Errorf("1,000 more took %v", at.Sub(due.from))
	}
}

func TestRedeliveredEventsFillCallsWhereCallsAreCounted(t *testing.T) {
	at := world.Mono(0)
	due := newRation(250, driver.Limits{Batch: 10}, at)
	for n := range 100 {
		got, _ := due.now(at)
		if got != 10 {
			t.Fatalf("call %d is of %d events", n, got)
		}
		due.sent += got
		got, wait := due.now(at)
		if got != 0 || wait < 39*time.Millisecond || wait > 41*time.Millisecond {
			t.Fatalf("after call %d: %d and %v, expected 40 ms", n, got, wait)
		}
		at = at.Add(wait)
	}
}
