package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Load makes traffic on a shop: orders that are placed, paid and cancelled by many members at once, now and then twice or
// against each other, and changes of profiles, prices and stock. It checks every answer.
//
// Every request is safe to repeat (the key, the payment's id, the state asked for), and is repeated while the shop is away:
// so a load may go on while the shop is killed and started again.
type Load struct {
	URL         string          // such as http://127.0.0.1:8080
	Rate        float64         // orders placed per second; 0: as fast as the shop takes them
	For         time.Duration   // default 10 s
	Enough      <-chan struct{} // closed: no journey begins any more, although its time is not over; nil: it never is
	Concurrency int             // journeys at a time; default 16
	Seed        uint64          // of what happens to whom
	Patience    time.Duration   // how long a request is repeated while the shop is away; default 30 s
	Client      *http.Client    // default: one of its own, with a connection per journey
	Progress    func(Progress)  // if not nil, called every second
}

// Progress is what a load has done so far.
type Progress struct {
	Elapsed   time.Duration
	Placed    int64
	Paid      int64 // payments that were answered as the one that won
	Cancelled int64
	Refused   int64 // as they should be: second payments, payments of cancelled orders
	Repeated  int64 // requests that were sent again because the shop was away
	Wrong     int64 // answers that should not have been
}

// Traffic is what a load has done, and how long it took.
type Traffic struct {
	Progress
	PayP50, PayP99 time.Duration // from the first try of a payment to its answer
	Complaints     []string      // of the wrong answers, the first 20
}

const (
	loadProducts   = 40
	loadSellers    = 8
	loadMembers    = 1000
	complaintsMax  = 20
	samplesMax     = 1000
	loadRetry      = 50 * time.Millisecond
	loadRetryMost  = time.Second
	catalogueTries = 200 // the order service hears of a price a moment after it was set
)

type loader struct {
	Load
	start  time.Time
	next   atomic.Int64 // journeys begun
	run    string       // makes ids of this run differ from another's
	paying histogram

	placed, paid, cancelled, refused, repeated, wrong atomic.Int64

	mu         sync.Mutex
	complaints []string
	samples    []Order // as the shop answered them last, to be looked at again at the end
}

// Run makes traffic until its time is over, it is enough or ctx ends, lets the journeys that have begun come to their end, and looks once
// more at up to 1,000 orders: what was answered must still be so. Its error says that the load could not be made; what
// the shop did wrong is in Traffic.
func (l Load) Run(ctx context.Context) (*Traffic, error) {
	w := &loader{Load: l, run: fmt.Sprintf("%x", time.Now().UnixMicro())}
	w.fill()
	if err := w.catalogue(ctx); err != nil {
		return nil, fmt.Errorf("set up a catalogue: %w", err)
	}
	w.start = time.Now()
	stop, cancel := context.WithTimeout(ctx, w.For)
	defer cancel()
	var tasks sync.WaitGroup
	tasks.Go(func() {
		select {
		case <-w.Enough:
			cancel()
		case <-stop.Done():
		}
	})
	for i := range w.Concurrency {
		tasks.Go(func() { w.work(ctx, stop, rand.New(rand.NewPCG(w.Seed, uint64(i)))) })
	}
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { w.report(done) })
	tasks.Wait()
	close(done)
	reporter.Wait()
	w.lookAgain(ctx)
	t := &Traffic{Progress: w.progress(), Complaints: w.complaints,
		PayP50: w.paying.quantile(0.5), PayP99: w.paying.quantile(0.99)}
	return t, ctx.Err()
}

func (w *loader) fill() {
	if w.For == 0 {
		w.For = 10 * time.Second
	}
	if w.Concurrency == 0 {
		w.Concurrency = 16
	}
	if w.Patience == 0 {
		w.Patience = 30 * time.Second
	}
	if w.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 2 * w.Concurrency
		w.Client = &http.Client{Transport: t, Timeout: requestTime + time.Second}
	}
}

// work makes journeys, each at its moment if there is a rate, until stop ends.
func (w *loader) work(ctx, stop context.Context, random *rand.Rand) {
	for stop.Err() == nil {
		n := w.next.Add(1) - 1
		if w.Rate > 0 {
			at := w.start.Add(time.Duration(float64(n) / w.Rate * float64(time.Second)))
			if !sleep(stop, time.Until(at)) {
				return
			}
		}
		j := journey{loader: w, random: random, n: n}
		j.travel(ctx)
	}
}

func (w *loader) report(done <-chan struct{}) {
	if w.Progress == nil {
		return
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			w.Progress(w.progress())
		}
	}
}

func (w *loader) progress() Progress {
	return Progress{Elapsed: time.Since(w.start), Placed: w.placed.Load(), Paid: w.paid.Load(), Cancelled: w.cancelled.Load(),
		Refused: w.refused.Load(), Repeated: w.repeated.Load(), Wrong: w.wrong.Load()}
}

func (w *loader) complain(format string, args ...any) {
	w.wrong.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.complaints) < complaintsMax {
		w.complaints = append(w.complaints, fmt.Sprintf(format, args...))
	}
}

// sample remembers an order as it was answered last: each one of the run with the same probability.
func (w *loader) sample(random *rand.Rand, o Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) < samplesMax {
		w.samples = append(w.samples, o)
	} else if i := random.Int64N(max(w.placed.Load(), 1)); i < samplesMax {
		w.samples[i] = o
	}
}

// lookAgain compares orders with what was answered.
func (w *loader) lookAgain(ctx context.Context) {
	for _, was := range w.samples {
		var is Order
		if code := w.call(ctx, http.MethodGet, "/orders/"+was.No, "", nil, &is); code != http.StatusOK {
			if ctx.Err() != nil {
				return
			}
			w.complain("order %s was answered, and is not there: %d", was.No, code)
		} else if is.Status != was.Status || is.PaymentID != was.PaymentID || is.Total != was.Total {
			w.complain("order %s was %s by payment %q of %v, and is %s by payment %q of %v",
				was.No, was.Status, was.PaymentID, was.Total, is.Status, is.PaymentID, is.Total)
		}
	}
}

// call sends a request until it is answered, at most as long as patience lasts, and decodes the answer: into a problem too if
// it is one, which is then lost but for its status. It returns 0 if there was no answer.
func (w *loader) call(ctx context.Context, method, path, key string, body, into any) int {
	data, err := json.Marshal(body)
	if err != nil {
		w.complain("%s %s: %v", method, path, err)
		return 0
	}
	patience, cancel := context.WithTimeout(ctx, w.Patience)
	defer cancel()
	for pause := loadRetry; ; pause = min(2*pause, loadRetryMost) {
		code, err := w.once(patience, method, path, key, data, into)
		if err == nil && code != http.StatusInternalServerError && code != http.StatusServiceUnavailable {
			return code
		}
		if !sleep(patience, pause) {
			if ctx.Err() == nil {
				w.complain("%s %s: no answer within %v: %d %v", method, path, w.Patience, code, err)
			}
			return 0
		}
		w.repeated.Add(1)
	}
}

func (w *loader) once(ctx context.Context, method, path, key string, data []byte, into any) (int, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.URL+path, bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", `"`+key+`"`)
	}
	answer, err := w.Client.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }() // it has been read
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	if into != nil && answer.StatusCode < 300 {
		err = json.Unmarshal(text, into)
	}
	return answer.StatusCode, err
}

// catalogue offers the products that are ordered later, and waits until the order service has heard of all.
func (w *loader) catalogue(ctx context.Context) error {
	for i := range loadProducts {
		if code := w.call(ctx, http.MethodPut, "/products/"+productID(i)+"/price", "", pricing(i, 1), nil); code/100 != 2 {
			return fmt.Errorf("product %s: status %d: %w", productID(i), code, w.reason(ctx))
		}
	}
	for i := range loadProducts {
		for try := 0; ; try++ {
			p := placement("member-0", productID(i), 1)
			code := w.call(ctx, http.MethodPost, "/orders", w.run+"-catalogue-"+productID(i), p, nil)
			if code == http.StatusCreated {
				w.placed.Add(1)
				break
			}
			if try == catalogueTries || !sleep(ctx, loadRetry) {
				return fmt.Errorf("order of product %s: status %d: %w", productID(i), code, w.reason(ctx))
			}
		}
	}
	return nil
}

// reason says why a call failed: what ended the traffic, or the first thing that an answer complained of.
func (w *loader) reason(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(w.complaints) > 0 {
		return errors.New(w.complaints[0])
	}
	return errors.New("the answer gives no reason")
}

// pricing is what a product costs; prices of a seller are in one currency.
func pricing(i int, factor int64) Pricing {
	currency := "KRW"
	if i%loadSellers == loadSellers-1 {
		currency = "USD"
	}
	return Pricing{SellerID: fmt.Sprintf("seller-%d", i%loadSellers), Name: fmt.Sprintf("Tea no. %d", i),
		Price: Money{int64(i+1) * 100 * factor, currency}}
}

// LoadPrices is what a [Load] offers before it begins: for a benchmark of the order service without the product service.
func LoadPrices() []PriceChanged {
	prices := make([]PriceChanged, loadProducts)
	for i := range prices {
		p := pricing(i, 1)
		prices[i] = PriceChanged{ProductID: productID(i), SellerID: p.SellerID, Name: p.Name, Price: p.Price, ChangedAt: now()}
	}
	return prices
}

func productID(i int) string { return fmt.Sprintf("tea-%d", i) }

// sleep waits for d; false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// histogram counts durations in buckets an eighth of a power of two wide.
type histogram struct{ counts [512]atomic.Int64 }

func (h *histogram) note(d time.Duration) {
	us := uint64(max(d.Microseconds(), 8))
	exp := bits.Len64(us) - 4 // us >> exp is from 8 to 15
	h.counts[min(exp*8+int(us>>exp)-8, len(h.counts)-1)].Add(1)
}

// quantile answers the upper end of the bucket in which the quantile lies.
func (h *histogram) quantile(q float64) time.Duration {
	var counts []int64
	var total int64
	for i := range h.counts {
		counts = append(counts, h.counts[i].Load())
		total += counts[i]
	}
	rank := int64(q * float64(total))
	i := slices.IndexFunc(counts, func(n int64) bool { rank -= n; return rank < 0 })
	if i < 0 {
		return 0
	}
	return time.Duration((i%8+9)<<(i/8)) * time.Microsecond
}
