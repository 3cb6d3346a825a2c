package pabal_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabaltest"
)

func TestOnlyTheMissingPredecessorIsCalledMissing(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	b := p.intercept(pay("A1", 1), pay("A1", 2), pay("A1", 3))
	p.deliver(b[1], b[2])
	p.Pass(31 * time.Second)
	if said := p.troubles(settlement); strings.Contains(said, fmt.Sprintf("%s is missing", read(t, b[1]).ID)) {
		t.Errorf("an event that lies in the inbox is called missing:\n%s", said)
	}
}

func TestHeldLongIsShownBehindManyThatAreHeldJustNow(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	var events []pabal.Event
	for n := range 30 {
		events = append(events, pay(fmt.Sprintf("A%02d", n), 1), pay(fmt.Sprintf("A%02d", n), 2))
	}
	b := p.intercept(append(events, pay("Z", 1), pay("Z", 2))...)
	p.deliver(b[61])
	p.Pass(31 * time.Second)
	for n := range 30 {
		p.Send("settlement", b[2*n+1])
	}
	p.Pass(time.Second)
	if said := p.troubles(settlement); !strings.Contains(said, read(t, b[60]).ID.String()) {
		t.Errorf("P6: held for half a minute, and status says %q", said)
	}
}

func TestHeldLongIsNotHiddenByMoreThanIsRead(t *testing.T) {
	p := newProtocol(t)
	settlement := p.settlement(pabal.ConsumerOptions{}, nil)
	var events []pabal.Event
	for n := range 250 {
		events = append(events, pay(fmt.Sprintf("A%03d", n), 1), pay(fmt.Sprintf("A%03d", n), 2))
	}
	p.answer = func(m pabaltest.Message) pabaltest.Answer { return pabaltest.Forget }
	p.record(pay("Z", 1), pay("Z", 2))
	p.record(events...)
	p.Pass(time.Second)
	second := map[string][]byte{}
	for _, s := range p.sent {
		second[s.Key] = s.Body // the later one of each key
	}
	p.deliver(second["Z"])
	p.Pass(31 * time.Second)
	for key, body := range second {
		if key != "Z" {
			p.Send("settlement", body)
		}
	}
	p.Pass(time.Second)
	if said := p.troubles(settlement); !strings.Contains(said, "settlement: of 251 events that are held one has been for long") {
		t.Errorf("P6: status says %q", said)
	}
}
