package pabal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/internal/sim"
	"github.com/pabal-go/pabal/pabaltest"
)

// long is a text of n bytes.
func long(n int) string { return strings.Repeat("x", n) }

// with is an event with n headers.
func with(n int) pabal.Event {
	e := view(1)
	for i := range n {
		e = e.With(fmt.Sprint("h", i), "v")
	}
	return e
}

func TestEveryLimitNamesFieldLimitAndActualValue(t *testing.T) {
	byKey := pabal.Define("by-key", pabal.Key(func(k string) string { return k }))
	raw, binary := pabal.Define[json.RawMessage]("raw"), pabal.Define[[]byte]("binary")
	channel := pabal.Define[chan int]("channel")
	for name, c := range map[string]struct {
		event pabal.Event
		want  string // of the error
		limit *pabal.LimitError
	}{
		"type": {event: pabal.Define[int](long(129)).On("x").New(1),
			limit: &pabal.LimitError{Field: fmt.Sprintf("event type %q", long(129)), Unit: "bytes", Limit: 128, Actual: 129}},
		"type's letters": {event: pabal.Define[int]("order paid").New(1), want: `event type "order paid": a name is letters, digits`},
		"empty type":     {event: pabal.Define[int]("").New(1), want: `event type "": a name is letters`},
		"topic": {event: pabal.Define[int]("a").On(long(65)).New(1),
			limit: &pabal.LimitError{Field: fmt.Sprintf("topic of a %q", long(65)), Unit: "bytes", Limit: 64, Actual: 65}},
		"topic's letters": {event: pabal.Define[int]("a/b").New(1), want: `topic of a/b "a/b": a name is letters, digits, '-' and '_'`},
		"version": {event: pabal.Define[int]("a").Version(long(65)).New(1),
			limit: &pabal.LimitError{Field: "version of a", Unit: "bytes", Limit: 64, Actual: 65}},
		"key": {event: byKey.New(long(256)),
			limit: &pabal.LimitError{Field: "key of by-key", Unit: "bytes", Limit: 255, Actual: 256, Hint: "use a digest of it"}},
		"empty key":   {event: byKey.New(""), want: "key of by-key is empty: an ordered type needs one for each event"},
		"key's bytes": {event: byKey.New("a\x00b"), want: `key of by-key: "a\x00b" is not valid UTF-8 without U+0000`},
		"headers": {event: with(21),
			limit: &pabal.LimitError{Field: "headers of order-viewed", Unit: "headers", Limit: 20, Actual: 21}},
		"header's name": {event: view(1).With(long(65), "v"),
			limit: &pabal.LimitError{
				Field: fmt.Sprintf("name of header %q of order-viewed", long(65)), Unit: "bytes", Limit: 64, Actual: 65}},
		"header's letters": {event: view(1).With("Big", "v"), want: `header "Big" of order-viewed: a name is lower-case letters`},
		"header's value": {event: view(1).With("h", long(1025)),
			limit: &pabal.LimitError{Field: `header "h" of order-viewed`, Unit: "bytes", Limit: 1024, Actual: 1025}},
		"header's bytes": {event: view(1).With("h", "\xff"), want: `header "h" of order-viewed is not valid UTF-8`},
		"size": {event: binary.New(make([]byte, 1<<20)),
			limit: &pabal.LimitError{Field: "size of binary on the wire", Unit: "bytes", Limit: 1 << 20, Actual: 1399156,
				Hint: "store the payload elsewhere and record a reference to it"}},
		"no JSON":          {event: raw.New(json.RawMessage("{")), want: "payload of raw does not encode: json.RawMessage holds no valid JSON"},
		"does not encode":  {event: channel.New(make(chan int)), want: "payload of channel does not encode: json: unsupported type"},
		"zero Event":       {event: pabal.Event{}, want: "event 0 is the zero Event"},
		"of the zero Type": {event: pabal.Type[int]{}.New(1), want: "event type is the zero Type: make it with Define"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProtocol(t)
			err := p.InTx(p.order, func(tx pabaltest.Tx) error {
				err := p.order.Record(t.Context(), tx, c.event)
				return errors.Join(err, p.order.Record(t.Context(), tx, pay("A1", 1))) // nothing was sent: the transaction is as it was
			})
			if err == nil {
				t.Fatal("no error")
			}
			var limit *pabal.LimitError
			if is := errors.As(err, &limit); is != (c.limit != nil) || is && *limit != *c.limit {
				t.Fatalf("%v: %+v, want %+v", err, limit, c.limit)
			}
			for _, want := range []string{"record: ", c.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if limit != nil && !strings.Contains(err.Error(), fmt.Sprintf("%d %s, at most %d", limit.Actual, limit.Unit, limit.Limit)) {
				t.Errorf("%q names no numbers", err)
			}
		})
	}
}

func TestWhatIsJustWithinTheLimitsArrives(t *testing.T) {
	p := newProtocol(t)
	byKey := pabal.Define(long(64), pabal.Key(func(k string) string { return k })).Version(long(64))
	e := byKey.New(long(255))
	for i := range 20 {
		e = e.With(fmt.Sprintf("%s%02d", long(62), i), long(1024))
	}
	binary := pabal.Define[[]byte]("binary")
	size := 3 * (1<<20 - 1024 - 2*12 - 8) / 4 / 3 * 3
	p.record(e, binary.New(make([]byte, size-12)))
	p.Settle(time.Minute)
	p.expectCount("confirm confirmed", 2)
}

func TestTooManyEventsInACall(t *testing.T) {
	p := newProtocol(t)
	err := p.InTx(p.order, func(tx pabaltest.Tx) error { return p.order.Record(t.Context(), tx, make([]pabal.Event, 1001)...) })
	var limit *pabal.LimitError
	if !errors.As(err, &limit) || *limit != (pabal.LimitError{
		Field: "events in one Record", Unit: "events", Limit: 1000, Actual: 1001, Hint: "call it several times",
	}) {
		t.Errorf("%v", err)
	}
}

func TestAllEventsOfACallAreRecordedOrNone(t *testing.T) {
	p := newProtocol(t)
	_ = p.InTx(p.order, func(tx pabaltest.Tx) error {
		if err := p.order.Record(t.Context(), tx, pay("A1", 1), pay("", 2)); err == nil {
			t.Error("no error")
		}
		return nil // the caller goes on and commits
	})
	if n := len(p.events()); n != 0 {
		t.Errorf("recorded %d", n)
	}
}

func TestRecordWantsAnOpenTransaction(t *testing.T) {
	p := newProtocol(t)
	err := p.order.Record(t.Context(), nil, pay("A1", 1))
	if !errors.Is(err, pabal.ErrNoTransaction) || !strings.Contains(err.Error(), "record order-pay-done") {
		t.Errorf("nil: %v", err)
	}
	var finished pabaltest.Tx
	_ = p.InTx(p.order, func(tx pabaltest.Tx) error { finished = tx; return nil })
	if err := p.order.Record(t.Context(), finished, pay("A1", 1)); !errors.Is(err, pabal.ErrNoTransaction) {
		t.Errorf("finished: %v", err)
	}
	if err := p.order.Record(t.Context(), nil); err != nil {
		t.Errorf("no events: %v", err)
	}
}

func TestSourceIsKeptAndItsNameChecked(t *testing.T) {
	for source, want := range map[string]string{
		"":          `source "": a name is letters`,
		"my source": `source "my source": a name is letters, digits, '-' and '_'`,
		long(52):    "source " + long(52) + ": 52 bytes, at most 51", // its record queue has a name within 64
	} {
		if err := open(source, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New answers %v, want %s", err, want)
		}
	}
	s := sim.New(1, sim.Faults{})
	defer s.Close()
	w := s.Process("order").World()
	store := sim.NewDatabase(w, sim.DatabaseOptions{}).Connect(w, sim.Direct)
	broker := sim.NewBrokerServer(w, sim.BrokerOptions{}).Connect(w, sim.Direct)
	if _, err := pabal.New(t.Context(), store, broker, long(51), nil); err != nil {
		t.Error(err)
	}
	_, err := pabal.New(t.Context(), store, broker, "billing", nil)
	if !errors.Is(err, pabal.ErrSource) || !strings.Contains(err.Error(), long(51)+" is stored, billing is given") {
		t.Errorf("another source: %v", err)
	}
	if _, err = pabal.New(t.Context(), store.Unwatched(), broker, long(51), nil); !errors.Is(err, pabal.ErrUnwatched) {
		t.Errorf("unwatched: %v", err)
	}
}

func TestConsumersOptionsAreCheckedByRun(t *testing.T) {
	for want, o := range map[string]pabal.ConsumerOptions{
		"Concurrency of consumer settlement is 257": {Concurrency: 257},
		"Timeout of consumer settlement is 1ms":     {Timeout: time.Millisecond},
		"Tries of consumer settlement is 101":       {Tries: 101},
		"Batch of consumer settlement is 1001":      {Batch: 1001},
	} {
		p := newProtocol(t)
		client := p.Client("settlement")
		pabal.Handle(client.Consumer("settlement", &o), OrderPaid, nil)
		if err := client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run answers %v, want %s", err, want)
		}
	}
}
