package scenario

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/internal/world"
)

// pace is how much faster than the machine's the clock of a real run goes.
const pace = 60

// RunReal runs the scenario on goroutines, for the race detector: the same programs, the same promises. Processes are
// restarted instead of crashed, and no run is like another.
func RunReal(c Config) (result Result) {
	c.Plagues, c.Operator, c.Later = false, false, 0 // they look into the simulation
	c.Refusing, c.Deaf, c.Joining, c.Forging, c.Losing, c.Foreign, c.Canaries = false, false, false, false, false, false, false
	w := world.Hurried(pace)
	r := newRun(c, nil)
	r.broker = sim.NewBrokerServer(w, r.brokerOptions())
	for _, name := range r.services() {
		r.databases[name] = sim.NewDatabase(w, c.Database)
	}
	r.broker.OnPublish(r.checkMessage)
	storm := sim.NewStorm(w, c.Seed, c.Faults)
	ctx, stop := context.WithCancel(context.Background())
	for _, name := range processes {
		main := r.program(name)
		w.Go(name, func(w world.World) { r.keepRunning(ctx, w, storm, name, main) })
	}
	w.Go("weather", func(w world.World) { r.realWeather(ctx, w, storm) })
	start := w.Now()
	for r.failed() == nil && !(r.calm.Load() && r.settled()) && w.Now().Sub(start) < c.Weather+c.Settle {
		_ = w.Sleep(ctx, time.Second)
	}
	result.Elapsed, result.Published = w.Now().Sub(start), r.broker.Accepted()
	stop()
	var err error
	patience, cancel := w.Deadline(context.Background(), 10*time.Minute)
	defer cancel()
	if w.Join(patience) != nil {
		err = fmt.Errorf("processes did not end within 10 min of being asked to")
	}
	r.conclude(&result, err)
	return result
}

// keepRunning runs a process again and again: each time until it is restarted, or until ctx ends.
func (r *run) keepRunning(ctx context.Context, w world.World, storm *sim.Storm, name string, main program) {
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		self := process{name, life, storm.Link, func() {}, func(bool) {}, slog.New(slog.DiscardHandler), nil}
		w.Go("restarts-"+name, func(w world.World) {
			for !r.calm.Load() && w.Sleep(life, time.Second) == nil {
				if w.Rand()%uint64(len(processes)*int(r.c.Faults.CrashEvery/time.Second)) == 0 {
					end()
				}
			}
		})
		main(self, w)
		end()
	}
}

func (r *run) realWeather(ctx context.Context, w world.World, storm *sim.Storm) {
	for end := w.Now().Add(r.c.Weather); w.Now() < end; {
		_ = w.Sleep(ctx, time.Duration(w.Rand()%uint64(r.c.Faults.OutageEvery)))
		servers := []string{"database-order", "database-settlement", "database-notification", "broker"}
		storm.Outage(servers[w.Rand()%uint64(len(servers))], r.c.Faults.OutageMost)
	}
	r.calm.Store(true)
	storm.Calm()
	r.broker.Calm()
	for _, d := range r.databases {
		d.Calm()
	}
}
