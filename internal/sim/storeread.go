package sim

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/pabal-go/pabal/driver"
)

// Read implements driver.Store.
func (s *Store) Read(ctx context.Context, q driver.Query) (r driver.Reading, err error) {
	err = s.link.Call(ctx, Call{What: "read"}, func() error {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		r = driver.Reading{Now: s.d.now(), Source: s.d.source, Generation: s.d.generation()}
		if q.Topics {
			for _, name := range s.d.topics {
				if p := s.d.pending[name]; s.d.rows[rowKey{table: tableTopic, topic: name}] == nil && (p == nil || len(p.rows) == 0) {
					continue // it had pending rows once
				}
				r.Topics = append(r.Topics, s.d.readTopic(name, q))
			}
		}
		if q.Events != nil {
			r.Events = s.d.readEvents(q.Events, r.Now)
		}
		if q.Count != nil {
			every := *q.Count
			every.After, every.Limit = driver.Ref{}, len(s.d.events)
			r.Count = len(s.d.readEvents(&every, r.Now))
		}
		if q.Jobs {
			r.Jobs = s.d.readJobs()
		}
		return nil
	})
	return r, err
}

func (d *Database) readTopic(name string, q driver.Query) driver.Topic {
	t := d.topic(name)
	p := d.pending[name]
	if p == nil {
		return t
	}
	for _, row := range p.rows {
		if row.Parked() {
			t.Parked++
			continue
		}
		t.Waiting++
		if !row.DueAt.Before(q.After) && (t.OldestDue.IsZero() || row.DueAt.Before(t.OldestDue)) {
			t.OldestDue = row.DueAt
		}
		if t.OldestWaiting.IsZero() || row.RecordedAt.Before(t.OldestWaiting) {
			t.OldestWaiting = row.RecordedAt
		}
	}
	t.Waiting, t.Parked = min(t.Waiting, driver.CountMax), min(t.Parked, driver.CountMax)
	if !q.Counts {
		t.Waiting, t.Parked, t.OldestWaiting = 0, 0, time.Time{}
	}
	return t
}

func (d *Database) readEvents(f *driver.EventFilter, now time.Time) (found []driver.Found) {
	events := d.events
	if !f.After.IsZero() {
		i, exact := slices.BinarySearchFunc(events, &eventRow{driver.Event{ID: f.After.ID, RecordedAt: f.After.RecordedAt}}, compareEvents)
		switch {
		case f.Descending:
			events = events[:i]
		case exact:
			events = events[i+1:]
		default:
			events = events[i:]
		}
	}
	for n := range events {
		e := events[n]
		if f.Descending {
			e = events[len(events)-1-n]
		}
		p, _ := d.rows[rowKey{table: tablePending, id: e.ID}].(*driver.Pending)
		if !matches(f, e, p, now) {
			continue
		}
		if found = append(found, driver.Found{Event: e.Event}); p != nil {
			row := *p
			found[len(found)-1].Pending = &row
		}
		if len(found) == f.Limit {
			break
		}
	}
	return found
}

func matches(f *driver.EventFilter, e *eventRow, p *driver.Pending, now time.Time) bool {
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, e.ID),
		f.Topic != "" && f.Topic != e.Topic, f.Type != "" && f.Type != e.Type, f.Key != "" && f.Key != e.Key,
		!f.From.IsZero() && e.RecordedAt.Before(f.From), !f.To.IsZero() && !e.RecordedAt.Before(f.To):
		return false
	}
	switch f.State {
	case driver.Unconfirmed:
		return p != nil
	case driver.ParkedOnly:
		return p != nil && p.Parked()
	case driver.LateOnly:
		return p != nil && !p.Parked() && e.RecordedAt.Before(now.Add(-f.Late))
	case driver.ConfirmedOnly:
		return p == nil
	default:
		return true
	}
}

func jobKey(id uuid.UUID) rowKey { return rowKey{table: tableJob, id: id} }

func (d *Database) readJobs() (jobs []driver.Job) {
	others := 0
	for _, id := range slices.Backward(d.jobs) {
		j := *d.rows[jobKey(id)].(*driver.Job)
		if j.Finished {
			if others++; others > 20 {
				continue
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}
