package shop

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// Problem is why the shop refuses a request: an error, and over HTTP a problem detail (RFC 9457).
type Problem struct {
	Type   string       `json:"type"` // /problems/<name>, where it is explained
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"`
	Errors []FieldError `json:"errors,omitempty"`
}

// FieldError is what is wrong with one field of a request.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (p *Problem) Error() string {
	s := p.Title
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	for _, e := range p.Errors {
		s += fmt.Sprintf("; %s: %s", e.Field, e.Detail)
	}
	return s
}

const problemPath = "/problems/"

type problemKind string

const (
	malformed      problemKind = "malformed"
	invalid        problemKind = "invalid"
	notFound       problemKind = "not-found"
	wrongMethod    problemKind = "method"
	orderState     problemKind = "order-state"
	otherSeller    problemKind = "other-seller"
	keyReused      problemKind = "idempotency-key-reused"
	unknownProduct problemKind = "unknown-product"
	tooLarge       problemKind = "too-large"
	mediaType      problemKind = "media-type"
	internalError  problemKind = "internal"
	unavailable    problemKind = "unavailable"
)

// problemKinds say what every kind means; GET /problems/<name> shows it.
var problemKinds = map[problemKind]struct {
	status int
	title  string
	advice string
}{
	malformed:   {http.StatusBadRequest, "request cannot be read", "Mend the request; it will never be taken as it is."},
	invalid:     {http.StatusUnprocessableEntity, "request is not valid", "The member errors says which fields, and why."},
	notFound:    {http.StatusNotFound, "there is no such thing", "Look at the address."},
	wrongMethod: {http.StatusMethodNotAllowed, "method is not allowed here", "The header Allow lists those that are."},
	orderState: {http.StatusConflict, "order is not in a state for that",
		"A paid order is not paid again, a cancelled one not at all. Get the order to see its state."},
	otherSeller: {http.StatusConflict, "product belongs to another seller", "Only its seller prices a product."},
	keyReused: {http.StatusUnprocessableEntity, "idempotency key was used for another request",
		"Repeat a request with its key unchanged, and give every new request a new key."},
	unknownProduct: {http.StatusUnprocessableEntity, "product has no price yet",
		"Give it a price first; the order service hears of that from an event, a moment later."},
	tooLarge:      {http.StatusRequestEntityTooLarge, "request is too large", "A request has at most 64 KiB."},
	mediaType:     {http.StatusUnsupportedMediaType, "request is not JSON", "Send Content-Type: application/json."},
	internalError: {http.StatusInternalServerError, "something went wrong here", "The log has it. Trying again is safe."},
	unavailable:   {http.StatusServiceUnavailable, "database is away or busy", "Try again in a moment; that is safe."},
}

// refuse makes a problem.
func refuse(kind problemKind, format string, args ...any) *Problem {
	k := problemKinds[kind]
	return &Problem{Type: problemPath + string(kind), Title: k.title, Status: k.status, Detail: fmt.Sprintf(format, args...)}
}

// findings collects what is wrong with the fields of a request.
type findings []FieldError

func (f *findings) unless(ok bool, field, format string, args ...any) {
	if !ok {
		*f = append(*f, FieldError{field, fmt.Sprintf(format, args...)})
	}
}

func (f *findings) id(field, value string) {
	f.unless(identifier.MatchString(value), field, "is 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
}

func (f *findings) text(field, value string, longest int) {
	f.unless(value == strings.TrimSpace(value) && len(value) <= longest && !strings.ContainsFunc(value, control),
		field, "is at most %d bytes, without control characters or space around it", longest)
}

func (f *findings) money(field string, m Money) {
	if err := m.Check(); err != nil {
		f.unless(false, field, "%v", err)
	}
}

// problem is nil when nothing was found.
func (f *findings) problem() error {
	if len(*f) == 0 {
		return nil
	}
	p := refuse(invalid, "")
	p.Errors = *f
	return p
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func control(r rune) bool { return r < ' ' || r == 0x7f }
