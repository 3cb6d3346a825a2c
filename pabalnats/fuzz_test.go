package pabalnats

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

type nowhere struct{}

var errNowhere = errors.New("nowhere")

func (nowhere) Dial(_, _ string) (net.Conn, error) { return nil, errNowhere }

// FuzzServers: no list of servers makes Connect panic, and no error repeats a password of it.
func FuzzServers(f *testing.F) {
	for _, urls := range []string{
		"nats://h:4222", "nats://u:secret@h:1,nats://h:2", "tls://secret@h", "nats://u:/secret@h", "nats://u:%zsecret@h", "u:secret@h", "h", "", ",", "nats://[::1",
		"ws://h", "nats://u:secret@h:x", "nats://h:1,ws://u:secret@h:2",
	} {
		f.Add(urls)
	}
	o, err := (&Options{}).fill()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, urls string) {
		b, err := connect(t.Context(), urls, o, nats.SetCustomDialer(nowhere{}), nats.SkipHostLookup())
		if err == nil {
			_ = b.Close() // it would connect later
			return
		}
		before, after, found := strings.Cut(urls, ":secret@")
		if found && !strings.Contains(before+after, "secret") && strings.Contains(err.Error(), "secret") {
			t.Fatalf("the error of %q is %q", urls, err)
		}
	})
}
