package sim

import "time"

// Faults says how often what goes wrong; the zero value is a perfect world.
type Faults struct {
	// In a thousand calls:
	LostRequest int // not carried out, no answer
	LostAnswer  int // carried out, no answer
	LateEffect  int // no answer, carried out some time later; of calls for which that makes sense
	Twice       int // carried out twice; of calls for which that makes sense
	Slow        int // takes up to SlowMost
	SlowMost    time.Duration
	LatencyMost time.Duration // of an ordinary call there and back; at least a tenth of it
	Skew        time.Duration // of clocks on the wall, to either side

	// Larger events come at such intervals, on average, to one of the targets; 0: never.
	CrashEvery     time.Duration
	StallEvery     time.Duration
	StallMost      time.Duration
	OutageEvery    time.Duration // of a server
	OutageMost     time.Duration
	PartitionEvery time.Duration // between a process and a server
	PartitionMost  time.Duration
	FailoverEvery  time.Duration // a database drops its last commits; see Database.Failover

	// Only, if not nil, is which of all these happen, by number from 0; the others are left out of the same seed's run.
	Only []int
}

// DefaultFaults is bad weather.
func DefaultFaults() Faults {
	return Faults{
		LostRequest: 5, LostAnswer: 5, LateEffect: 3, Twice: 3, Slow: 10, SlowMost: 8 * time.Second,
		LatencyMost: 4 * time.Millisecond, Skew: 3 * time.Second,
		CrashEvery: 90 * time.Second, StallEvery: 3 * time.Minute, StallMost: 40 * time.Second,
		OutageEvery: 4 * time.Minute, OutageMost: 2 * time.Minute,
		PartitionEvery: 3 * time.Minute, PartitionMost: time.Minute,
	}
}
