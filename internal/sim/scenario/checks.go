package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/driver"
)

// checkMessage is P2, at the moment when the broker takes a message.
func (r *run) checkMessage(m *driver.Message) {
	if r.calmly.canaries[m.ID] {
		return
	}
	if !r.databases["order"].Has(m.ID) && !r.losses.isGone[m.ID] {
		_ = r.fail("P2 no ghost: %s is published and not committed", m.ID)
	}
	if r.watch == nil {
		return
	}
	r.watch.promptly(m.ID, m.Dedup)
	if r.c.Joining {
		r.sent(m.ID)
	}
	if r.c.Losing {
		r.losses.published[m.ID] = true
	}
	if r.c.Odd {
		r.checkForm(m)
	}
	if (r.c.Later > 0 || r.c.Forging || r.c.Losing) && typeOf(m) != orderPosted.Name() {
		r.bodies = append(r.bodies, bytes.Clone(m.Body))
	}
	if bytes.Contains(m.Body, []byte(`"skipped":true`)) && (bytes.Contains(m.Body, []byte(`"data"`)) || bytes.Contains(m.Body, []byte(`"data_base64"`))) {
		_ = r.fail("skip: the message of %s carries its data", m.ID)
	}
}

// settled reports whether nothing is owed any more.
func (r *run) settled() bool {
	r.mu.Lock()
	for _, done := range r.orders {
		if !done {
			r.mu.Unlock()
			return false
		}
	}
	r.mu.Unlock()
	return r.owed() == ""
}

// owed says what is still under way; empty: nothing.
func (r *run) owed() string {
	for _, name := range r.services() {
		if owed := r.databases[name].Owed(); owed != "" {
			return owed
		}
	}
	for _, job := range r.databases["order"].Jobs() {
		if !job.Finished {
			return fmt.Sprintf("redelivery %s is not finished: %s", job.ID, job.LastError)
		}
	}
	return r.broker.Owed()
}

// checkEnd checks what must hold once the faults have stopped and everything had its time.
func (r *run) checkEnd() error {
	order := r.databases["order"]
	for _, e := range order.Events() {
		found := order.PendingOf(e.ID)
		if found != nil && !found.Parked() {
			return fmt.Errorf("P1 no loss: %s is not confirmed in the end: %+v", e.ID, *found)
		}
		if found != nil {
			return fmt.Errorf("P1 no loss: %s is parked: %s", e.ID, found.LastError)
		}
		if err := r.checkEffects(&e, uuid.Nil); err != nil {
			return err
		}
	}
	if err := r.checkJobs(); err != nil {
		return err
	}
	if err := r.checkParked(); err != nil {
		return err
	}
	if r.watch != nil {
		r.watch.answered()
	}
	return errors.Join(r.failed(), r.checkPositions())
}

// checkEffects checks that every consumer has handled an event, or handled it again for a job.
func (r *run) checkEffects(e *driver.Event, job uuid.UUID) error {
	if e.Type == orderNoted.Name() || r.watch != nil && r.watch.skipped[e.ID] {
		return nil // nobody handles it, or nobody has to
	}
	for _, consumer := range consumersOf {
		if r.watch != nil && r.watch.passed[consumer+" "+e.ID.String()] {
			continue
		}
		if r.databases[consumer].Business("effect", effectOf("order", e.ID, job)) == nil {
			return fmt.Errorf("P4 one effect: %s has not handled %s %s at %s/%d: %s", consumer, e.Type, effectOf("order", e.ID, job), e.Key,
				e.Position, r.databases[consumer].Explain(consumer, e.ID))
		}
	}
	return nil
}

// checkJobs checks that redeliveries were carried out.
func (r *run) checkJobs() error {
	for _, job := range r.databases["order"].Jobs() {
		var spec pabal.Redelivery
		if err := json.Unmarshal(job.Spec, &spec); err != nil {
			return err
		}
		for _, e := range r.databases["order"].Events() {
			if !spec.Again || e.Topic != spec.Topic || e.RecordedAt.Before(spec.From) || !e.RecordedAt.Before(spec.Until) {
				continue
			}
			if err := r.checkEffects(&e, job.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPositions is P7's second half and the ground of P5: positions of a key follow without gaps within a run.
func (r *run) checkPositions() error {
	last := map[string]driver.Event{}
	for _, e := range r.databases["order"].ByPosition() {
		if e.Key == "" {
			continue
		}
		before, known := last[e.Key]
		last[e.Key] = e
		if begins, err := r.checkRun(&before, &e); err != nil || begins && known {
			if err != nil {
				return err
			}
			continue
		}
		if known && (e.Position != before.Position+1 || e.Prev.ID != before.ID) {
			return fmt.Errorf("P5 order: position %d of %s follows %d", e.Position, e.Key, before.Position)
		}
	}
	return nil
}
