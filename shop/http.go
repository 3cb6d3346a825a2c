package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	bodyMax     = 64 << 10
	requestTime = 10 * time.Second
	listMax     = 200
	listDefault = 50
	keyMax      = 255
)

// Handler serves the endpoints of services. What nobody serves is answered as a problem too.
func Handler(services ...Service) http.Handler {
	mux := http.NewServeMux()
	for _, s := range services {
		s.Mount(mux)
	}
	mux.HandleFunc("GET "+problemPath+"{name}", explainProblem)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		said := &refusal{ResponseWriter: w}
		h.ServeHTTP(said, r)
		switch said.status {
		case http.StatusMethodNotAllowed:
			writeProblem(w, refuse(wrongMethod, "%s %s", r.Method, r.URL.Path))
		default:
			writeProblem(w, refuse(notFound, "no endpoint %s", r.URL.Path))
		}
	})
}

// refusal hears what the mux would answer: its status, and the header Allow.
type refusal struct {
	http.ResponseWriter
	status int
}

func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// answer is what an endpoint answers.
type answer struct {
	status   int // 0: 200
	location string
	link     string // to the next page
	body     any
}

// serve makes an endpoint of a function: it bounds it in time and answers its error as a problem.
func (b *base) serve(mux *http.ServeMux, pattern string, f func(ctx context.Context, r *http.Request) (answer, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
		a, err := f(ctx, r)
		var p *Problem
		switch {
		case err == nil:
			if a.location != "" {
				w.Header().Set("Location", a.location)
			}
			if a.link != "" {
				w.Header().Set("Link", "<"+a.link+`>; rel="next"`)
			}
			writeJSON(w, "application/json", max(a.status, http.StatusOK), a.body)
		case errors.As(err, &p):
			writeProblem(w, p)
		case r.Context().Err() != nil: // the client has gone
		case ctx.Err() != nil:
			b.log.Warn("request took too long", "endpoint", pattern, "err", err)
			w.Header().Set("Retry-After", "1")
			writeProblem(w, refuse(unavailable, "no answer within %v", requestTime))
		default:
			b.log.Error("request failed", "endpoint", pattern, "err", err)
			writeProblem(w, refuse(internalError, ""))
		}
	})
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	writeJSON(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, contentType string, status int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil { // of our own types: cannot happen, and is no reason to panic
		status, contentType = http.StatusInternalServerError, "text/plain"
		b.Reset()
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client has gone: nobody to tell
}

func explainProblem(w http.ResponseWriter, r *http.Request) {
	k, ok := problemKinds[problemKind(r.PathValue("name"))]
	if !ok {
		writeProblem(w, refuse(notFound, "no problem %q", r.PathValue("name")))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "%d %s\n\n%s\n", k.status, k.title, k.advice)
}

// decode reads the JSON body of a request: one value, of known fields.
func decode[T any](r *http.Request) (v T, err error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return v, refuse(mediaType, "Content-Type is %q", r.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err = d.Decode(&v); err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return v, nil
		}
		if err == nil {
			err = errors.New("there is more than one JSON value")
		}
	}
	var long *http.MaxBytesError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &long):
		return v, refuse(tooLarge, "more than %d bytes", long.Limit)
	case errors.As(err, &typed):
		f := findings{{typed.Field, fmt.Sprintf("is a JSON %s, which is no %v", typed.Value, typed.Type)}}
		return v, f.problem()
	case errors.Is(err, io.EOF):
		return v, refuse(malformed, "the body is empty")
	}
	return v, refuse(malformed, "%s", strings.TrimPrefix(err.Error(), "json: "))
}

// decodeOptional is decode for a body that may be absent.
func decodeOptional[T any](r *http.Request) (v T, err error) {
	if r.ContentLength == 0 {
		return v, nil
	}
	return decode[T](r)
}

// idempotencyKey reads the header Idempotency-Key, a quoted string or a bare one; "" without it.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	printable := !strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
	if len(values) > 1 || key == "" || len(key) > keyMax || !printable {
		return "", refuse(malformed, "header Idempotency-Key: one, of 1 to %d printable ASCII characters without space", keyMax)
	}
	return key, nil
}

// page reads the query parameters of a list: those named, before and limit. It answers a function that makes the link to
// the page after the one that ends with last, or "" if that was not full.
func page(r *http.Request, names ...string) (q url.Values, limit int, next func(n int, last string) string, err error) {
	q = r.URL.Query()
	var f findings
	for name, values := range q {
		known := name == "before" || name == "limit"
		for _, n := range names {
			known = known || n == name
		}
		f.unless(known && len(values) == 1, name, "is one of %s, before and limit, given once", strings.Join(names, ", "))
	}
	limit = listDefault
	if s := q.Get("limit"); s != "" {
		limit, err = strconv.Atoi(s)
		f.unless(err == nil && limit >= 1 && limit <= listMax, "limit", "is from 1 to %d", listMax)
	}
	return q, limit, func(n int, last string) string {
		if n < limit {
			return ""
		}
		q.Set("before", last)
		return r.URL.Path + "?" + q.Encode()
	}, f.problem()
}
