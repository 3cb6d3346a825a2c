package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

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
