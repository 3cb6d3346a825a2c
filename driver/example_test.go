package driver_test

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// A driver feeds the watch of a connection with what it sees there, and hears what became of what was recorded.
func ExampleCommitWatch() {
	var watch driver.CommitWatch
	outcome := func(s driver.CommitState) { fmt.Println(s) }

	fmt.Println("recording outside of a transaction:", watch.Recording(outcome))
	for _, seen := range [][]driver.CommitSignal{
		{driver.SawCommit},
		{driver.SawDoubt, driver.SawCommit}, // a savepoint was rolled back: with the events, or not
		{driver.SawCommitLost},
		{driver.SawEnd},
	} {
		watch.See(driver.SawBegin)
		watch.Recording(outcome)
		for _, signal := range seen {
			watch.See(signal)
		}
	}
	fmt.Println("open:", watch.Open())
	// Output:
	// recording outside of a transaction: false
	// proven
	// doubtful
	// doubtful
	// void
	// open: false
}

// A row of the work list that is not due at any time waits for an operator.
func ExamplePending_Parked() {
	row := driver.Pending{DueAt: time.Now()}
	fmt.Println(row.Parked())
	row.DueAt = time.Time{}
	fmt.Println(row.Parked())
	// Output:
	// false
	// true
}

// An event refers to the one of its key before it; the first of a key to none.
func ExampleEvent_Ref() {
	first := driver.Event{ID: uuid.New(), Position: 1, RecordedAt: time.Now()}
	second := driver.Event{ID: uuid.New(), Position: 2, RecordedAt: time.Now(), Prev: first.Ref()}
	fmt.Println(first.Prev.IsZero(), second.Prev.IsZero(), second.Prev.Position)
	// Output: true false 1
}

// How bad a finding is is a word, in text and in JSON.
func ExampleSeverity() {
	text, err := driver.Broken.MarshalText()
	fmt.Printf("%s %v\n", text, err)
	var s driver.Severity
	fmt.Println(s.UnmarshalText([]byte("note")), s, s == driver.Note)
	fmt.Println(s.UnmarshalText([]byte("dreadful")))
	// Output:
	// broken <nil>
	// <nil> note true
	// "dreadful" is no severity
}
