package main

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// TestLoginsOfNATSAreSettingsOfItsAddress: what a server makes of them is pabalnats' matter.
func TestLoginsOfNATSAreSettingsOfItsAddress(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := user.PublicKey()
	seed, _ := user.Seed()
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	given := func(setting, value string) (o nats.Options, err error) {
		var options pabalnats.Options
		err = setNATS(&options, url.Values{setting: {value}})
		for _, option := range options.NATS {
			if failed := option(&o); failed != nil {
				t.Fatal(failed)
			}
		}
		return o, err
	}
	o, err := given("nkey", file("seed", string(seed)))
	if err != nil || o.Nkey != public || o.SignatureCB == nil {
		t.Errorf("nkey: key %q, %v", o.Nkey, err)
	}
	o, err = given("creds", file("user.creds", "-----BEGIN NATS USER JWT-----\nthe.token\n------END NATS USER JWT------\n\n"+
		"-----BEGIN USER NKEY SEED-----\n"+string(seed)+"\n------END USER NKEY SEED------\n"))
	if err != nil || o.UserJWT == nil {
		t.Fatalf("creds: %v", err)
	}
	if token, err := o.UserJWT(); token != "the.token" || err != nil {
		t.Errorf("creds: %q, %v", token, err)
	}
	if _, err := given("nkey", "none.seed"); err == nil || !strings.Contains(err.Error(), "nkey: ") || !strings.Contains(err.Error(), "none.seed") {
		t.Errorf("a missing file: %v", err)
	}
}

// An address with files for TLS, and a password, connects to a server that wants all of it.
func TestAddressOfNATSWithTLSConnects(t *testing.T) {
	authority := servers.NewAuthority(t)
	server := servers.NATS(t, &servers.NATSOptions{Settings: []string{
		fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }",
			authority.File("server.pem"), authority.File("server.key"), authority.File("ca.pem")),
		"authorization { user: pabal, password: right }",
	}})
	files := url.Values{"ca": {authority.File("ca.pem")}, "cert": {authority.File("client.pem")}, "key": {authority.File("client.key")}}
	open := func(password string, files url.Values) error {
		a := &app{ctx: t.Context(), log: slog.New(slog.DiscardHandler)}
		b, err := openBroker(a, fmt.Sprintf("tls://pabal:%s@127.0.0.1:%d?%s", password, server.Port, files.Encode()))
		if err != nil {
			return err
		}
		defer b.Close() //nolint:errcheck // of a test
		return b.Check(t.Context(), driver.Topology{Topics: []driver.TopicSpec{{Name: "paid"}}}, true)
	}
	if err := open("right", files); err != nil {
		t.Error(err)
	}
	if err := open("wrong", files); err == nil || !strings.Contains(err.Error(), "the server refuses user, password") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with another password: %v", err)
	}
	if err := open("right", url.Values{"ca": files["ca"]}); err == nil {
		t.Error("it connects without a certificate")
	}
}
