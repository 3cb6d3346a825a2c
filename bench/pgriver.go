package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// River has no broker: an event is a job for each service, inserted in the transaction, worked by this process. It is as its
// documentation recommends for throughput: all jobs of a transaction in one COPY (InsertManyFastTx), LISTEN/NOTIFY, short
// fetch intervals, many workers, completion in batches. A worker whose effect and completion shall be one transaction
// (JobCompleteTx) would need two round trips more.
var riverContender = contender{name: "River", open: openRiver}

const riverWorkers = 100 // of a queue

// riverJob is an event for one service; each kind has its queue.
type riverJob struct {
	bill
	Service int `json:"service"`
}

func (riverJob) Kind() string { return "order-pay-done" }

type riverWorker struct {
	river.WorkerDefaults[riverJob]
	t *site
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverJob]) error {
	w.t.journal.handle(job.Args.Service, int(job.Args.No))
	_, err := w.t.service[job.Args.Service].Exec(ctx, insertEffect, job.Args.No)
	return err
}

func openRiver(ctx context.Context, t *site) (*line, error) {
	driver := riverpgxv5.New(t.order)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers, queues := river.NewWorkers(), map[string]river.QueueConfig{}
	river.AddWorker(workers, &riverWorker{t: t})
	for i := range services {
		queues[riverQueue(i)] = river.QueueConfig{MaxWorkers: riverWorkers}
	}
	client, err := river.NewClient(driver, &river.Config{
		Logger: quiet, Workers: workers, Queues: queues, FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 100_000, Kinds: []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed},
	})
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	var left atomic.Int64
	w, ctx := newWorks(ctx)
	w.run(ctx, func() error {
		for e := range events {
			if e.Kind != river.EventKindJobCompleted {
				return fmt.Errorf("job %d failed: %v", e.Job.ID, e.Job.Errors)
			}
			left.Add(-1)
		}
		return nil
	})
	return &line{
		write: func(ctx context.Context, n int) error {
			err := t.buy(ctx, n, func(tx pgx.Tx) error {
				_, err := client.InsertManyFastTx(ctx, tx, riverJobs(n))
				return err
			})
			left.Add(services)
			return err
		},
		owed: func() int { return int(left.Load()) / services },
		check: func(ctx context.Context, events int) error {
			return t.holds(ctx, services*events, `select count(*) from river_job where state = 'completed'`)
		},
		stop: func() error {
			err := client.Stop(context.WithoutCancel(ctx))
			unsubscribe()
			return errors.Join(err, w.stop())
		},
	}, nil
}

func riverQueue(service int) string { return fmt.Sprint("service", service+1) }

func riverJobs(n int) []river.InsertManyParams {
	jobs := make([]river.InsertManyParams, services)
	for i := range jobs {
		jobs[i] = river.InsertManyParams{Args: riverJob{bill: billOf(n), Service: i}, InsertOpts: &river.InsertOpts{Queue: riverQueue(i)}}
	}
	return jobs
}
