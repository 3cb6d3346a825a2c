package pabalnats_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalnats"
)

// authority signs certificates of a test, which lie in files of dir: NAME.pem and NAME.key.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.sign(t, "server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.sign(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) sign(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed, key
}

// A server with TLS, certificates of clients, and a password takes who has all of it; who lacks one is told which.
func TestConnectSecurely(t *testing.T) {
	a := newAuthority(t)
	server := servers.NATS(t, &servers.NATSOptions{Settings: []string{
		fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", a.file("server.pem"), a.file("server.key"), a.file("ca.pem")),
		"authorization { user: pabal, password: right }",
	}})
	ca, client := nats.RootCAs(a.file("ca.pem")), nats.ClientCert(a.file("client.pem"), a.file("client.key"))
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
		{"right", []nats.Option{nats.RootCAs(a.file("none.pem")), client}, a.file("none.pem")},
	} {
		log := &said{}
		_, err := pabalnats.Connect(t.Context(), url(c.password), &pabalnats.Options{Logger: log.logger(), NATS: c.options})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.password+"@") {
			t.Errorf("it answers %v, not %s; the log says %s", err, c.want, log)
		}
	}
}
