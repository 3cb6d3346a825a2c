package sim

import (
	"bytes"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
)

// reindex keeps the indexes of the tables that are searched.
func (d *Database) reindex(key rowKey, old, value any) {
	switch key.table {
	case tableEvent:
		d.indexEvent(old, value)
	case tablePending:
		d.indexPending(old, value)
	case tableTopic:
		d.nameTopic(key.topic)
	case tableInbox:
		d.indexInbox(key, old, value)
	case tableConsumer, tableCursor:
		d.nameMember(key.name)
	case tableJob:
		if old == nil {
			d.jobs = append(d.jobs, key.id)
		} else if value == nil {
			d.jobs = slices.DeleteFunc(d.jobs, func(id uuid.UUID) bool { return id == key.id })
		}
	}
}

func (d *Database) nameTopic(name string) {
	if i, found := slices.BinarySearch(d.topics, name); !found {
		d.topics = slices.Insert(d.topics, i, name)
	}
}

func (d *Database) nameMember(name string) {
	if i, found := slices.BinarySearch(d.members, name); !found {
		d.members = slices.Insert(d.members, i, name)
	}
}

func compareEvents(a, b *eventRow) int {
	if c := a.RecordedAt.Compare(b.RecordedAt); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

func (d *Database) indexEvent(old, value any) {
	if old != nil {
		if i, found := slices.BinarySearchFunc(d.events, old.(*eventRow), compareEvents); found {
			if value != nil {
				d.events[i] = value.(*eventRow)
				return
			}
			d.events = slices.Delete(d.events, i, i+1)
		}
	}
	if value != nil {
		e := value.(*eventRow)
		i := len(d.events)
		for i > 0 && compareEvents(d.events[i-1], e) > 0 {
			i--
		}
		d.events = slices.Insert(d.events, i, e)
	}
}

func (d *Database) indexPending(old, value any) {
	if old != nil {
		p := old.(*driver.Pending)
		t := d.pending[p.Topic]
		i := t.index[p.ID]
		if value != nil {
			t.rows[i] = value.(*driver.Pending)
			return
		}
		last := t.rows[len(t.rows)-1]
		t.rows[i] = last
		t.index[last.ID] = i
		t.rows[len(t.rows)-1] = nil
		t.rows = t.rows[:len(t.rows)-1]
		delete(t.index, p.ID)
		return
	}
	if value == nil {
		return
	}
	p := value.(*driver.Pending)
	t := d.pending[p.Topic]
	if t == nil {
		t = &topicPending{index: map[uuid.UUID]int{}}
		d.pending[p.Topic] = t
		d.nameTopic(p.Topic)
	}
	t.index[p.ID] = len(t.rows)
	t.rows = append(t.rows, p)
}

func cursorKey(consumer string, k driver.CursorKey) rowKey {
	return rowKey{table: tableCursor, name: consumer, source: k.Source, topic: k.Topic, key: k.Key, job: k.Job}
}

func inboxKey(consumer string, r *driver.Row) rowKey {
	return rowKey{table: tableInbox, name: consumer, source: r.Source, id: r.ID, job: r.Job}
}

func kept(v any) *driver.Row {
	if r, ok := v.(*driver.Row); ok && (r.State == driver.Held || r.State == driver.Parked) {
		return r
	}
	return nil
}

func (d *Database) indexInbox(key rowKey, old, value any) {
	was, is := kept(old), kept(value)
	if was != nil {
		k := cursorKey(key.name, was.CursorKey)
		d.waiting[k] = without(d.waiting[k], was)
		if len(d.waiting[k]) == 0 {
			delete(d.waiting, k)
		}
		d.kept[key.name] = without(d.kept[key.name], was)
	}
	if is != nil {
		k := cursorKey(key.name, is.CursorKey)
		list := d.waiting[k]
		i := len(list)
		for i > 0 && comparePositions(list[i-1], is) > 0 {
			i--
		}
		d.waiting[k] = slices.Insert(list, i, is)
		d.kept[key.name] = append(d.kept[key.name], is)
	}
	switch n := (inboxID{key.name, key.id}); {
	case old == nil && value != nil:
		d.inbox[n]++
	case old != nil && value == nil:
		d.inbox[n]--
	}
	d.nameMember(key.name)
}

func comparePositions(a, b *driver.Row) int {
	if a.Position != b.Position {
		if a.Position < b.Position {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

func compareRows(a, b *driver.Row) int {
	for _, c := range []int{
		strings.Compare(a.Source, b.Source), strings.Compare(a.Topic, b.Topic), strings.Compare(a.Key, b.Key),
		bytes.Compare(a.Job[:], b.Job[:]),
	} {
		if c != 0 {
			return c
		}
	}
	return comparePositions(a, b)
}

func without(rows []*driver.Row, row *driver.Row) []*driver.Row {
	for i := range rows {
		if rows[i] == row {
			return slices.Delete(rows, i, i+1)
		}
	}
	return rows
}
