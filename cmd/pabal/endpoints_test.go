package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What /readyz tells is what was seen last, unless that is too old to say anything, or the process shuts down.
func TestReadyzSaysNothingThatItDoesNotKnow(t *testing.T) {
	e := &endpoints{starting: "starting"}
	says := func(status int, begins string) {
		t.Helper()
		answer := httptest.NewRecorder()
		e.readyz(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if answer.Code != status || !strings.HasPrefix(answer.Body.String(), begins) {
			t.Errorf("answers %d %q, want %d %q", answer.Code, answer.Body, status, begins)
		}
	}
	says(http.StatusServiceUnavailable, "not ready\nstarting\n")
	e.seenAt = time.Now()
	e.waits("order: database: refused") // other clients of the process are there and ready
	says(http.StatusServiceUnavailable, "not ready\norder: database: refused\n")
	e.started()
	says(http.StatusOK, "ready\n")
	e.seenAt = time.Now().Add(-lookEvery - 2*lookTime - time.Second)
	says(http.StatusServiceUnavailable, "not ready\nnobody has looked at database and broker for 12s\n")
	e.seenAt = time.Now()
	e.drain()
	says(http.StatusServiceUnavailable, "not ready\nshutting down\n")
}

// Each client's reasons are told apart; one that can be reached and does not run yet is not ready either.
func TestSeenNamesEachClientsReasons(t *testing.T) {
	fine := func(context.Context) error { return nil }
	waiting := func(ctx context.Context) error { return ctx.Err() } // as pabal.Client.Ready, asked without patience
	away := func(context.Context) error {
		return errors.Join(errors.New("database: refused"), errors.New("broker: silent"))
	}
	got := strings.Join(seen(t.Context(), []watched{{"order", away, fine}, {"member", fine, fine}, {"settlement", fine, waiting}}), "\n")
	want := "order: database: refused\norder: broker: silent\nsettlement: its client does not run yet, or its queues are not subscribed"
	if got != want {
		t.Errorf("says\n%s\nwant\n%s", got, want)
	}
}
