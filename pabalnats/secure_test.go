package pabalnats_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// A server with TLS, certificates of clients, and a password takes who has all of it; who lacks one is told which.
func TestConnectSecurely(t *testing.T) {
	a := servers.NewAuthority(t)
	server := servers.NATS(t, &servers.NATSOptions{Settings: []string{
		fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", a.File("server.pem"), a.File("server.key"), a.File("ca.pem")),
		"authorization { user: pabal, password: right }",
	}})
	ca, client := nats.RootCAs(a.File("ca.pem")), nats.ClientCert(a.File("client.pem"), a.File("client.key"))
	url := func(password string) string { return fmt.Sprintf("tls://pabal:%s@127.0.0.1:%d", password, server.Port) }
	b := openVillage(t, url("right"), &pabalnats.Options{Logger: quiet(), NATS: []nats.Option{ca, client}})
	if v := publishOne(t, b); v.Kind != driver.Accepted {
		t.Errorf("published over TLS: %v", v)
	}
	for _, c := range []struct {
		password string
		options  []nats.Option
		want     string
	}{
		{"right", []nats.Option{client}, "nats.RootCAs"},
		{"right", []nats.Option{ca}, "nats.ClientCert"},
		{"wrong", []nats.Option{ca, client}, "the server refuses user, password, token, key or credentials"},
		{"right", []nats.Option{nats.RootCAs(a.File("none.pem")), client}, a.File("none.pem")},
	} {
		log := &said{}
		_, err := pabalnats.Connect(t.Context(), url(c.password), &pabalnats.Options{Logger: log.logger(), NATS: c.options})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.password+"@") {
			t.Errorf("it answers %v, not %s; the log says %s", err, c.want, log)
		}
	}
}
