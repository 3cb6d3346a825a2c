package pabal

import (
	"context"
	"time"

	"github.com/pabal-go/pabal/driver"
)

// The inbox sweep: what of the inbox is due goes back into the lanes.

// dueRows decides which rows the inbox sweep takes: an event that was started often without an outcome alone, once nothing
// else is handled from the inbox (busy), lest others that die with it count as its like. One that was started too often is taken
// to be parked.
func dueRows(now time.Time, rows []driver.Row, lease time.Duration, busy bool) []driver.Row {
	var taken []driver.Row
	for i, row := range rows {
		switch {
		case row.State != driver.Held:
			continue
		case row.Started >= startedMax:
			row.Started++
			row.NextAt = now.Add(lease)
			taken = append(taken, row)
			continue
		case row.Started >= startedAlone && busy && i == 0:
			return nil // it is its turn: nothing else begins before it
		case row.Started >= startedAlone && (busy || len(taken) > 0):
			continue
		default:
			row.Started++
			row.NextAt = now.Add(lease)
		}
		taken = append(taken, row)
		if row.Started > startedAlone {
			break
		}
	}
	return taken
}

// runSweep hands the rows of the inbox that are due to the lanes: next tries, joins, what a crash left behind.
func (c *Consumer[X]) runSweep(ctx context.Context) {
	h := c.house
	alone := false // what was taken last has to be alone
	for ctx.Err() == nil {
		h.mu.Lock()
		room, busy := c.bound()-c.waiting, c.swept > 0
		h.mu.Unlock()
		if room > 0 && !(alone && busy) {
			rows, err := c.dueNow(ctx, min(room, successorsMax), busy)
			if err != nil {
				h.warn(ctx, "inbox cannot be swept, trying again", "consumer", c.name, "err", err)
			}
			if err == nil && len(rows) > 0 {
				alone = rows[len(rows)-1].Started > startedAlone
				c.sweepOut(rows)
				continue
			}
		}
		c.due.Wait(ctx, h.o.Sweep-time.Duration(h.w.Rand()%uint64(h.o.Sweep/4)))
	}
}

func (c *Consumer[X]) dueNow(ctx context.Context, limit int, busy bool) ([]driver.Row, error) {
	call, cancel := c.house.w.Deadline(ctx, c.house.o.Lease)
	defer cancel()
	return c.inbox.Due(call, driver.InboxSelection{Consumer: c.name, Limit: limit,
		Decide: func(now time.Time, rows []driver.Row) []driver.Row { return dueRows(now, rows, c.runLease(), busy) }})
}

func (c *Consumer[X]) sweepOut(rows []driver.Row) {
	for i := range rows {
		c.house.mu.Lock()
		c.enqueue(arriveAgain(rows[i]))
		c.house.mu.Unlock()
	}
}
